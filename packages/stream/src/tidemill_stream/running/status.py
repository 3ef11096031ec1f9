"""What the sinks hold of a pipeline: how far it is, what it wrote, and whether the outputs agree with that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tidemill_stream.config import ObjectStoreSinkConfig, PostgresSinkConfig, sink_name
from tidemill_stream.errors import BrokerUnavailable
from tidemill_stream.kafka.source import log_spans
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Counts, Partition, Progress, total
from tidemill_stream.records.event_time import to_datetime
from tidemill_stream.sinks._base import SinkContext, open_sinks


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """One partition as the sink that is least far holds it."""

    topic: str
    partition: int
    offset: int
    log_end: int
    epoch: int
    watermark: datetime | None
    open_windows: int
    counts: Counts
    log_start: int = 0

    @property
    def lag(self) -> int:
        """Records known to be in the log and not yet processed."""
        return max(0, self.log_end - max(self.offset, self.log_start))


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStatus:
    """A pipeline as its checkpoints and its broker tell.

    Attributes:
        log_ends_of: `broker`, or `checkpoint` where the broker was not asked or did not answer: then `lag` is
            that of the last checkpoint, and says nothing of records that came since.
        trouble: Why the broker did not answer.
    """

    pipeline: str
    partitions: tuple[PartitionStatus, ...]
    owner: str | None = None
    log_ends_of: Literal["broker", "checkpoint"] = "checkpoint"
    trouble: str | None = None

    @property
    def totals(self) -> Counts:
        """Totals since the beginning."""
        return total(each.counts for each in self.partitions)

    @property
    def is_drained(self) -> bool:
        """Whether everything in the log (see `log_ends_of`) has been processed; False before the first checkpoint."""
        return bool(self.partitions) and all(each.lag == 0 for each in self.partitions)

    def as_dict(self) -> dict[str, Any]:
        """The status as plain values."""
        return {
            "pipeline": self.pipeline,
            "is_drained": self.is_drained,
            "log_ends_of": self.log_ends_of,
            "trouble": self.trouble,
            "owner": self.owner,
            "totals": self.totals.as_dict(),
            "partitions": [
                {
                    "topic": each.topic,
                    "partition": each.partition,
                    "offset": each.offset,
                    "log_end": each.log_end,
                    "lag": each.lag,
                    "epoch": each.epoch,
                    "watermark": None if each.watermark is None else each.watermark.isoformat(),
                    "open_windows": each.open_windows,
                    **each.counts.as_dict(),
                }
                for each in self.partitions
            ],
        }


def status(plan: Plan, context: SinkContext, *, servers: str | None = None) -> PipelineStatus:
    """Read how far a pipeline is; nothing is claimed or created.

    Args:
        plan: The compiled pipeline.
        context: What the sinks need.
        servers: Kafka bootstrap servers, asked where the logs end now; without, the checkpoints tell where they ended.
    """
    sinks = open_sinks(context)
    topics = plan.config.source.topics
    try:
        stored = [sink.read(topics) for sink in sinks]
        leases = [lease for sink in sinks if (lease := sink.lease(topics)) is not None]
    finally:
        for sink in sinks:
            sink.close()
    spans: Mapping[Partition, tuple[int, int]] = {}
    trouble = None
    if servers is not None:
        try:
            spans = log_spans(plan.config, servers)
        except BrokerUnavailable as error:
            trouble = str(error)
    held = {partition for each in stored for partition in each}
    # Partitions that nothing was read of yet count as lag once the pipeline has begun; before that it has not started.
    found = sorted(held | set(spans)) if held else []
    return PipelineStatus(
        pipeline=plan.config.name,
        partitions=tuple(_partition(each, [s.get(each) for s in stored], spans.get(each)) for each in found),
        owner=leases[0].owner if leases else None,
        log_ends_of="broker" if spans else "checkpoint",
        trouble=trouble,
    )


def _partition(partition: Partition, held: list[Progress | None], span: tuple[int, int] | None) -> PartitionStatus:
    least = min((each or Progress(offset=0) for each in held), key=lambda each: each.position)
    known = max((each.log_end for each in held if each is not None), default=0)
    return PartitionStatus(
        log_start=span[0] if span else 0,
        topic=partition.topic,
        partition=partition.number,
        offset=least.offset,
        log_end=span[1] if span else known,
        epoch=least.epoch,
        watermark=None if least.watermark_us is None else to_datetime(least.watermark_us),
        open_windows=len(least.windows),
        counts=least.counts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How many rows of one output a sink really holds, and how many its checkpoints account for."""

    sink: str
    output: str
    rows: int
    expected: int

    @property
    def is_exact(self) -> bool:
        """Whether both agree."""
        return self.rows == self.expected


def verify(plan: Plan, context: SinkContext) -> list[Holding]:
    """Count what the sinks hold of rows and windows, against the totals in their checkpoints."""
    topics = plan.config.source.topics
    found = []
    for config, sink in zip(plan.config.sinks, sinks := open_sinks(context), strict=True):
        totals = total(each.counts for each in sink.read(topics).values())
        expected = {"rows": totals.rows, "windows": totals.windows}
        held: Mapping[str, int] = {}
        if isinstance(config, PostgresSinkConfig):
            held = _postgres_rows(config, context, topics)
        elif isinstance(config, ObjectStoreSinkConfig):
            held = _object_rows(config, context)
        found += [
            Holding(sink=sink_name(config), output=output, rows=rows, expected=expected[output])
            for output, rows in held.items()
        ]
    for sink in sinks:
        sink.close()
    return found


_COUNT = "SELECT count(*) FROM {table} WHERE _topic = ANY(%s)"


def _postgres_rows(config: PostgresSinkConfig, context: SinkContext, topics: list[str]) -> dict[str, int]:
    from tidemill_core.postgres import TableName, connect, postgres_errors

    url = context.postgres_url() if config.url is None else config.url.get_secret_value()
    tables = {"rows": config.rows_table, "windows": config.windows_table}
    found = {}
    with connect(url) as conn, postgres_errors("count the outputs"):
        for output, table in tables.items():
            if table:
                statement = _COUNT.format(table=TableName.parse(table).quoted)
                row = conn.execute(statement.encode(), (topics,)).fetchone()
                found[output] = 0 if row is None else int(row[0])
    return found


def _object_rows(config: ObjectStoreSinkConfig, context: SinkContext) -> dict[str, int]:
    """Count the rows of the committed files; a committed file that is missing or of another size counts nothing."""
    from tidemill_stream.sinks.manifest import read_manifest

    store = context.open_store(config.url)
    prefixes = {"rows": config.rows, "windows": config.windows}
    committed = read_manifest(store, context.plan.config.name, config.manifest)
    found = {}
    for output, prefix in prefixes.items():
        if prefix:
            sizes = {info.key: info.size_bytes for info in store.list(f"{prefix}/")}
            found[output] = sum(
                each.rows for each in committed if each.output == output and sizes.get(each.key) == each.bytes
            )
    return found
