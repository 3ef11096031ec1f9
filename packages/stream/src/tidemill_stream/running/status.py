"""What the sinks hold of a pipeline: how far it is, what it wrote, and whether the outputs agree with that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tidemill_stream.errors import BrokerUnavailable
from tidemill_stream.kafka.source import log_spans
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Counts, Partition, Progress, total
from tidemill_stream.records.event_time import to_datetime
from tidemill_stream.sinks._base import CountsRows, Sink, SinkContext, open_sinks


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
    sinks = open_sinks(context)
    try:
        return [holding for sink in sinks if isinstance(sink, CountsRows) for holding in _holdings(sink, topics)]
    finally:
        for sink in sinks:
            sink.close()


def _holdings(sink: Sink, topics: list[str]) -> list[Holding]:
    assert isinstance(sink, CountsRows)
    totals = total(each.counts for each in sink.read(topics).values())
    expected = {"rows": totals.rows, "windows": totals.windows}
    held = sink.held()
    return [
        Holding(sink=sink.name, output=output, rows=held[output], expected=expected[output])
        for output in expected
        if output in held
    ]
