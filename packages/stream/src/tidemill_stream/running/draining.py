"""The bounded drain: fix the ends of the log now, process everything before them, commit, and stop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

from tidemill_stream import metrics
from tidemill_stream.errors import BrokerUnavailable, PipelineBusy
from tidemill_stream.kafka.recovery import Start, decide
from tidemill_stream.kafka.source import consumer_properties, grouped, inspect, open_consumer
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Claim, Counts, Partition, Progress, total
from tidemill_stream.running.announce import announce
from tidemill_stream.running.session import Session
from tidemill_stream.sinks._base import Sink, SinkContext, open_sinks

if TYPE_CHECKING:
    from confluent_kafka import Consumer

POLL_S = 0.05
STALL_S = 60.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionResult:
    """One partition of a drain; `start` and `end` are offsets, [start, end)."""

    topic: str
    partition: int
    start: int
    end: int
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """What a drain did.

    Attributes:
        did_work: False when everything was processed before.
        done: Totals of this drain.
        totals: Totals of the pipeline since its beginning.
        partitions: Every partition of the topics.
        written: Rows written by sink and output.
        reasons: Invalid records of this drain by reason.
        restarted: Topics that were created anew and were begun again.
        vanished: Topics that are empty now, after everything in them was processed.
        tidied: Abandoned files that were deleted.
        version: Of the outputs: another one after every commit, the same while there was none.
    """

    pipeline: str
    did_work: bool
    done: Counts
    totals: Counts
    partitions: tuple[PartitionResult, ...]
    written: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    commits: int = 0
    restarted: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    tidied: int = 0
    seconds: float = 0.0
    version: str = ""

    @property
    def lag(self) -> int:
        """Records before the fixed ends that were not processed: 0 after a drain that ended well."""
        return sum(each.lag for each in self.partitions)

    def sentence(self) -> str:
        """Say it in one line, for people."""
        if not self.did_work:
            return f"{self.pipeline}: nothing new, {self.totals.consumed} records were processed before"
        done = self.done
        return (
            f"{self.pipeline}: {done.consumed} records in {self.seconds:.1f} s: {done.rows} rows, "
            f"{done.filtered} filtered, {done.invalid} invalid, {done.late} late, {done.windows} windows"
        )

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "pipeline": self.pipeline,
            "did_work": self.did_work,
            "done": self.done.as_dict(),
            "totals": self.totals.as_dict(),
            "lag": self.lag,
            "partitions": [
                {"topic": p.topic, "partition": p.partition, "start": p.start, "end": p.end, "lag": p.lag}
                for p in self.partitions
            ],
            "written": dict(self.written),
            "reasons": dict(self.reasons),
            "bytes": self.bytes,
            "commits": self.commits,
            "restarted": list(self.restarted),
            "vanished": list(self.vanished),
            "tidied": self.tidied,
            "seconds": round(self.seconds, 3),
            "version": self.version,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProgress:
    """How far a running drain is; given to `on_progress` about once per batch."""

    consumed: int
    remaining: int


def drain(
    plan: Plan,
    servers: str,
    context: SinkContext,
    *,
    stop: StopToken | None = None,
    takeover: bool = False,
    on_progress: Callable[[DrainProgress], None] | None = None,
    asset_keys: Mapping[str, str] | None = None,
) -> DrainResult:
    """Process everything that is in the topics now, exactly once, and stop.

    Args:
        plan: The compiled pipeline.
        servers: Kafka bootstrap servers.
        context: What the sinks need.
        stop: Set it to commit what is done and leave early, by raising `Stopped`.
        takeover: Go on although a live service holds the pipeline; it will be fenced.
        on_progress: Called now and then.
        asset_keys: Dagster asset keys by output, for lineage.

    Raises:
        PipelineBusy: A live service runs the pipeline.
        Fenced: Another worker took over meanwhile.
        StreamError: See `errors`.
    """
    result = _Drain(plan, servers, context, stop or StopToken(), on_progress).run(takeover=takeover)
    announce(plan, servers, context, result.totals, asset_keys=asset_keys or {})
    return result


class _Drain:
    def __init__(
        self,
        plan: Plan,
        servers: str,
        context: SinkContext,
        stop: StopToken,
        on_progress: Callable[[DrainProgress], None] | None,
    ) -> None:
        self.plan, self.servers, self.context, self.stop = plan, servers, context, stop
        self.on_progress = on_progress or (lambda _: None)
        self.topics = plan.config.source.topics

    def run(self, *, takeover: bool) -> DrainResult:
        began = time.monotonic()
        sinks = open_sinks(self.context)
        consumer = open_consumer(consumer_properties(self.plan.config, self.servers))
        try:
            if not takeover:
                self.refuse_if_busy(sinks)
            for sink in sinks:
                sink.prepare()
            stored = [sink.read(self.topics) for sink in sinks]
            logs = inspect(consumer, self.topics, self.servers, self.plan.config.source.properties)
            flush = self.plan.config.flush_on_drain and self.plan.window is not None
            start = decide(self.plan.config, logs, stored, servers=self.servers, flush=flush)
            session = Session(self.plan, sinks)
            if start.claims:
                self.work(session, consumer, start, flush=flush)
            tidied = sum(sink.tidy() for sink in sinks)
            after = stored if not start.claims else [sink.read(self.topics) for sink in sinks]
        finally:
            consumer.close()
            for sink in sinks:
                sink.close()
        result = self.result(session, start, stored, after, tidied, time.monotonic() - began)
        log.info("drained" if result.did_work else "nothing_to_drain", **_summary(result))
        return result

    def refuse_if_busy(self, sinks: Sequence[Sink]) -> None:
        for sink in sinks:
            lease = sink.lease(self.topics)
            if lease is not None:
                raise PipelineBusy(self.plan.config.name, lease.owner, max(1.0, lease.seconds_left))

    def work(self, session: Session, consumer: Consumer, start: Start, *, flush: bool) -> None:
        from confluent_kafka import TopicPartition

        offsets = session.claim(start.claims)
        remaining = {partition: end for partition, end in start.ends.items() if offsets[partition] < end}
        if remaining:
            consumer.assign(
                [TopicPartition(*each, max(offsets[each], start.reads.get(each, 0))) for each in sorted(remaining)]
            )
            self.read(session, consumer, remaining)
        if flush:
            session.flush()
        session.commit()

    def read(self, session: Session, consumer: Consumer, remaining: dict[Partition, int]) -> None:
        """Feed until every partition has reached its end, committing on the way."""
        config = self.plan.config
        last_commit = last_message = time.monotonic()
        while remaining:
            if self.stop.is_set:
                session.commit()
                self.stop.raise_if_set()
            messages = consumer.consume(config.limits.batch_records, POLL_S)
            records, ends = grouped(messages, self.servers)
            for partition, batch in records.items():
                feed_until(session, partition, batch, remaining)
            for partition, end in ends.items():
                if end >= remaining.get(partition, end + 1):
                    session.advance(partition, remaining.pop(partition))
            now = time.monotonic()
            if messages:
                last_message = now
                metrics.batch(config.name, len(messages))
                self.on_progress(_progress(session, remaining))
            elif now - last_message > STALL_S:
                raise BrokerUnavailable(self.servers, f"no message for {STALL_S:.0f} s before the end of {remaining}")
            if session.pending >= config.checkpoint.rows or now - last_commit >= config.checkpoint.interval_s:
                session.commit()
                last_commit = time.monotonic()

    def result(
        self,
        session: Session,
        start: Start,
        before: Sequence[Mapping[Partition, Progress]],
        after: Sequence[Mapping[Partition, Progress]],
        tidied: int,
        seconds: float,
    ) -> DrainResult:
        behind = {
            partition: min(s[partition].offset for s in after if partition in s) for s in after for partition in s
        }
        partitions = []
        for partition, offset in sorted(behind.items()):
            was = [sink[partition].offset for sink in before if partition in sink]
            claim = start.claims.get(partition, Claim(start=offset))
            first = claim.start if claim.restart or not was else min(was)
            end = start.ends.get(partition, offset)
            partitions.append(
                PartitionResult(
                    topic=partition.topic, partition=partition.number, start=first, end=offset, lag=max(0, end - offset)
                )
            )
        return DrainResult(
            pipeline=self.plan.config.name,
            did_work=bool(start.claims),
            done=session.totals(),
            totals=total(each.counts for each in after[0].values()),
            partitions=tuple(partitions),
            written=session.written,
            reasons=dict(session.reasons),
            bytes=session.bytes_written,
            commits=session.commits,
            restarted=tuple(start.restarted),
            vanished=tuple(start.vanished),
            tidied=tidied,
            seconds=seconds,
            version=_version(after),
        )


def feed_until(session: Session, partition: Partition, batch: list[Any], remaining: dict[Partition, int]) -> None:
    """Feed one partition's messages up to its fixed end; what comes after is left for the next drain."""
    end = remaining.get(partition)
    if end is None:
        return
    if batch[-1].offset() >= end:
        batch = [message for message in batch if message.offset() < end]
        session.feed(partition, batch)
        session.advance(partition, remaining.pop(partition))
        return
    session.feed(partition, batch)
    if batch[-1].offset() + 1 >= end:
        del remaining[partition]


def _version(after: Sequence[Mapping[Partition, Progress]]) -> str:
    """Digest how far every sink is; claims are numbered upwards, also when a topic begins anew."""
    places = [
        (number, *partition, held.epoch, *held.position)
        for number, sink in enumerate(after)
        for partition, held in sorted(sink.items())
    ]
    return hashlib.sha256(repr(places).encode()).hexdigest()[:16]


def _progress(session: Session, remaining: Mapping[Partition, int]) -> DrainProgress:
    left = sum(end - session.lanes[partition].processor.offset for partition, end in remaining.items())
    return DrainProgress(consumed=session.totals().consumed, remaining=left)


def _summary(result: DrainResult) -> dict[str, Any]:
    return {
        "pipeline": result.pipeline,
        "consumed": result.done.consumed,
        "rows": result.done.rows,
        "invalid": result.done.invalid,
        "late": result.done.late,
        "windows": result.done.windows,
        "seconds": round(result.seconds, 3),
    }
