"""Carry claimed partitions forward in step with their sinks.

Every sink keeps its own progress. Where all sinks of a partition agree, one processor
feeds them all. Where one lags (a crash between two commits, or a sink that was added),
the partition goes on from the one that lags, alone, and stops exactly at each point the
leading sink has committed; there the others join in. Windows do not depend on how the
stream is cut, so the sink that caught up holds what the leader held at that point.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemill_core.telemetry import get_logger

from tidemill_stream import metrics
from tidemill_stream.errors import Fenced, TooManyInvalid
from tidemill_stream.plan import Plan
from tidemill_stream.processor import Message, Processor
from tidemill_stream.progress import Claim, Counts, Partition, Progress, total

if TYPE_CHECKING:
    from tidemill_stream.progress import Output
    from tidemill_stream.sinks._base import Sink, Written

log = get_logger(__name__)


@dataclass(slots=True)
class Lane:
    """One partition: its processor, and where each sink stands."""

    processor: Processor
    sinks: dict[str, Progress]
    initial: Counts
    log_end: int = 0

    def leader(self) -> Progress | None:
        """Find the sink that is furthest ahead of the last commit; None if all stand there."""
        best = max(self.sinks.values(), key=lambda progress: progress.position)
        return best if best.position > self.processor.base.position else None

    def cut(self) -> int | None:
        """Tell the next offset at which to commit because a sink that is ahead stands there, or was flushed there."""
        if (leader := self.leader()) is None:
            return None
        committed = self.processor.base.position
        stops = [each.offset for each in self.sinks.values() if each.position > committed]
        stops += leader.flushes[len(self.processor.flushes) :][:1]
        return min(stops)


class Session:
    """The partitions one worker has claimed. After any error it must be thrown away and claimed anew."""

    def __init__(self, plan: Plan, sinks: Sequence[Sink]) -> None:
        self.plan, self.sinks = plan, tuple(sinks)
        self.lanes: dict[Partition, Lane] = {}
        self.written: dict[str, int] = {}
        self.reasons: Counter[str] = Counter()
        self.bytes_written = self.commits = 0
        self._done = Counts()  # of lanes that were given up

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, int]:
        """Claim partitions in every sink; returns the offset to read each from."""
        found = [(sink.name, sink.claim(claims)) for sink in self.sinks]
        for partition, claim in claims.items():
            sinks = {name: progress[partition] for name, progress in found}
            behind = min(sinks.values(), key=lambda progress: progress.position)
            processor = Processor(self.plan, partition, behind)
            log_end = max(claim.log_end, *(progress.log_end for progress in sinks.values()))
            lane = Lane(processor, sinks, initial=processor.base.counts, log_end=log_end)
            if len({progress.position for progress in sinks.values()}) > 1:
                log.info(
                    "sinks_differ",
                    pipeline=self.plan.config.name,
                    partition=str(partition),
                    offsets={name: each.offset for name, each in sinks.items()},
                )
            self.lanes[partition] = lane
            self._settle(lane, processor.offset)
        return {partition: self.lanes[partition].processor.offset for partition in claims}

    def feed(self, partition: Partition, messages: Sequence[Message]) -> None:
        """Process messages of one partition, in offset order; those of a partition we do not hold are dropped."""
        lane = self.lanes.get(partition)
        if lane is None:
            return
        while messages and (cut := lane.cut()) is not None:
            head = [message for message in messages if message.offset() < cut]
            lane.processor.feed(head)
            messages = messages[len(head) :]
            self._settle(lane, messages[0].offset() if messages else lane.processor.offset)
        lane.processor.feed(messages)
        self._check_invalid()

    def advance(self, partition: Partition, offset: int) -> None:
        """Note that the log has nothing more before `offset`."""
        lane = self.lanes.get(partition)
        if lane is not None:
            self._settle(lane, offset)
            lane.processor.advance(offset)

    def _settle(self, lane: Lane, reached: int) -> None:
        """Stop at every cut that is not after `reached`: repeat flushes there, and let the lagging sinks commit."""
        while (cut := lane.cut()) is not None and cut <= reached:
            lane.processor.advance(cut)
            leader = lane.leader()
            if leader is not None and cut in leader.flushes[len(lane.processor.flushes) :][:1]:
                lane.processor.replay_flush()
            self._commit([lane])

    def flush(self) -> int:
        """Close every open window of every lane; returns how many lanes had any."""
        return sum(lane.processor.flush() for lane in self.lanes.values())

    @property
    def pending(self) -> int:
        """Records consumed since the last commit, over all lanes."""
        return sum(lane.processor.pending for lane in self.lanes.values())

    def commit(self, partitions: Sequence[Partition] | None = None) -> bool:
        """Commit what has happened (of all lanes, or of some); False if nothing has."""
        lanes = [lane for partition, lane in self.lanes.items() if partitions is None or partition in partitions]
        lanes = [lane for lane in lanes if lane.processor.has_output]
        if lanes:
            self._commit(lanes)
        return bool(lanes)

    def _commit(self, lanes: Sequence[Lane]) -> None:
        began = time.monotonic()
        before = [lane.processor.base.counts for lane in lanes]
        starts = [lane.processor.base.position for lane in lanes]
        outputs = [lane.processor.take(log_end=lane.log_end) for lane in lanes]
        for sink in self.sinks:
            due = [
                (lane, output)
                for lane, output, start in zip(lanes, outputs, starts, strict=True)
                if lane.sinks[sink.name].position == start and output.progress.position > start
            ]
            if not due:
                continue
            written = self._write(sink, [output for _, output in due])
            for lane, output in due:
                lane.sinks[sink.name] = output.progress
            for name, rows in written.rows.items():
                key = f"{sink.name} {name}"
                self.written[key] = self.written.get(key, 0) + rows
            self.bytes_written += written.bytes
        self.commits += 1
        name = self.plan.config.name
        metrics.committed(name, time.monotonic() - began)
        for lane, counts, output in zip(lanes, before, outputs, strict=True):
            metrics.processed(name, output, output.progress.counts.minus(counts))
            self.reasons.update(output.reasons)
            self._join(lane)

    def _write(self, sink: Sink, outputs: Sequence[Output]) -> Written:
        try:
            written = sink.commit(outputs)
        except Fenced:
            metrics.FENCED.labels(pipeline=self.plan.config.name).inc()
            raise
        metrics.ROWS_WRITTEN.labels(pipeline=self.plan.config.name, sink=sink.name).inc(sum(written.rows.values()))
        metrics.DEAD_LETTERS.labels(pipeline=self.plan.config.name).inc(written.rows.get("dlq", 0))
        return written

    def _join(self, lane: Lane) -> None:
        """Where the lagging sink has met another one, go on with that one's state: it is what its outputs came from."""
        position = lane.processor.position
        met = [each for each in lane.sinks.values() if each.position == position and each is not lane.processor.base]
        if met and met[0].pack() != lane.processor.base.pack():
            log.warning("sink_states_differ", pipeline=self.plan.config.name, partition=str(lane.processor.partition))
            lane.initial = lane.initial.plus(met[0].counts.minus(lane.processor.base.counts))
            lane.processor.adopt(met[0])

    def drop(self, partitions: Sequence[Partition]) -> None:
        """Give up partitions without committing."""
        for partition in partitions:
            lane = self.lanes.pop(partition, None)
            if lane is not None:
                self._done = self._done.plus(lane.processor.base.counts.minus(lane.initial))

    def totals(self) -> Counts:
        """Count what this session has done, uncommitted work included."""
        return total([self._done, *(lane.processor.counts.minus(lane.initial) for lane in self.lanes.values())])

    def _check_invalid(self) -> None:
        limits, done = self.plan.config.limits, self.totals()
        if done.invalid > done.consumed * limits.invalid_ratio and done.consumed >= max(1, limits.invalid_after):
            raise TooManyInvalid(self.plan.config.name, done.invalid, done.consumed, limits.invalid_ratio)
