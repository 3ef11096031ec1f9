"""Look at dead letters, and send them to their topic again once the cause is mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidemill_core.errors import PermanentError

from tidemill_stream.errors import PipelineInvalid
from tidemill_stream.kafka.producer import produce
from tidemill_stream.plan import Plan
from tidemill_stream.sinks._base import KeepsLetters, SinkContext, StoredLetter, open_sinks


def letters(plan: Plan, context: SinkContext, *, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
    """Read the dead letters of a pipeline from its first sink that keeps them, by topic, partition and offset.

    Raises:
        PipelineInvalid: No sink keeps dead letters.
    """
    sinks = open_sinks(context)
    try:
        for config, sink in zip(plan.config.sinks, sinks, strict=True):
            if isinstance(sink, KeepsLetters) and "dlq" in config.outputs():
                yield from sink.letters(reasons)
                return
    finally:
        for sink in sinks:
            sink.close()
    raise PipelineInvalid(plan.config.name, "no sink keeps dead letters that can be read again")


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
