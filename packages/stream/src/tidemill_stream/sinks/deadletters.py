"""Look at dead letters, and send them to their topic again once the cause is mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill_core.errors import PermanentError

from tidemill_stream.config import ObjectStoreSinkConfig, PostgresSinkConfig
from tidemill_stream.errors import PipelineInvalid
from tidemill_stream.kafka.producer import produce
from tidemill_stream.plan import Plan
from tidemill_stream.sinks._base import SinkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A dead letter as a sink holds it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    path: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The letter as plain values; bytes that are not UTF-8 are escaped."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "path": self.path,
            "message": self.message,
            "key": _text(self.key),
            "value": _text(self.value),
        }


def letters(plan: Plan, context: SinkContext, *, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
    """Read the dead letters of a pipeline from its first sink that keeps them, by topic, partition and offset.

    Raises:
        PipelineInvalid: No sink keeps dead letters.
    """
    for sink in plan.config.sinks:
        if isinstance(sink, PostgresSinkConfig) and sink.dlq_table:
            yield from _from_postgres(plan, context, sink, list(reasons))
            return
        if isinstance(sink, ObjectStoreSinkConfig) and sink.dlq:
            yield from _from_objects(plan, context, sink, set(reasons))
            return
    raise PipelineInvalid(plan.config.name, "no sink keeps dead letters in PostgreSQL or an object store")


def replay(plan: Plan, context: SinkContext, servers: str, *, reasons: Sequence[str] = ()) -> int:
    """Publish dead letters to their topics again, with their keys; they stay listed where they are.

    Late records are left out unless asked for by reason: their rows were stored already.
    A replay that is run twice publishes twice.

    Returns:
        How many were published.
    """
    wanted = [each for each in letters(plan, context, reasons=reasons) if reasons or each.reason != "late"]
    by_topic: dict[str, list[tuple[bytes | None, bytes | None]]] = {}
    for each in wanted:
        by_topic.setdefault(each.topic, []).append((each.key, each.value))
    for topic, records in by_topic.items():
        done = produce(servers, topic, records, properties=dict(plan.config.source.properties))
        if done.sent != len(records):
            raise PermanentError(f"only {done.sent} of {len(records)} dead letters went to {topic}")
    return len(wanted)


def _from_postgres(
    plan: Plan, context: SinkContext, sink: PostgresSinkConfig, reasons: list[str]
) -> Iterator[StoredLetter]:
    from tidemill_core.postgres import TableName, connect, postgres_errors

    url = context.postgres_url() if sink.url is None else sink.url.get_secret_value()
    statement = _READ.format(table=TableName.parse(sink.dlq_table or "").quoted)
    with connect(url) as conn, postgres_errors(f"read {sink.dlq_table}"):
        for row in conn.execute(statement.encode(), (plan.config.name, reasons, reasons)):
            yield _letter(dict(zip(("topic", "partition", "offset", *_REST), row, strict=True)))


def _from_objects(
    plan: Plan, context: SinkContext, sink: ObjectStoreSinkConfig, reasons: set[str]
) -> Iterator[StoredLetter]:
    import io

    import pyarrow.parquet as pq

    from tidemill_stream.sinks.manifest import read_manifest

    store = context.open_store(sink.url)
    for each in read_manifest(store, plan.config.name, sink.manifest):
        if each.output == "dlq":
            for row in pq.read_table(io.BytesIO(store.get(each.key))).to_pylist():
                if not reasons or row["reason"] in reasons:
                    yield _letter(row)


_READ = """
SELECT topic, partition, "offset", key, value, reason, path, message FROM {table}
WHERE pipeline = %s AND (%s::text[] = '{{}}' OR reason = ANY(%s)) ORDER BY topic, partition, "offset"
"""
_REST = ("key", "value", "reason", "path", "message")


def _letter(row: dict[str, Any]) -> StoredLetter:
    return StoredLetter(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        key=row["key"],
        value=row["value"],
        reason=row["reason"],
        path=row["path"],
        message=row["message"],
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).decode("utf-8", "backslashreplace")
