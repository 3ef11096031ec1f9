"""Decide where to begin: compare the topics as they are with the progress that the sinks hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidemill_stream.config import PipelineConfig
from tidemill_stream.errors import OffsetLost, RecordsDropped, TopicEmptied, TopicMissing, TopicRecreated
from tidemill_stream.kafka.source import TopicLog
from tidemill_stream.progress import Claim, Partition, Progress

Stored = Sequence[Mapping[Partition, Progress]]
"""The progress each sink holds, in the order of the sinks."""


@dataclass(slots=True, kw_only=True)
class Start:
    """What to claim and how far to read.

    Attributes:
        claims: Partitions that have work.
        ends: Offset to read each of them to.
        reads: Lowest offset that can be read, by partition.
        restarted: Topics that were created anew and begin again.
        vanished: Topics that are empty or gone now, after everything in them was processed.
    """

    claims: dict[Partition, Claim] = field(default_factory=dict)
    ends: dict[Partition, int] = field(default_factory=dict)
    reads: dict[Partition, int] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)


def decide(
    config: PipelineConfig, logs: Sequence[TopicLog], stored: Stored, *, servers: str = "", flush: bool = False
) -> Start:
    """Decide for every partition of every topic.

    Args:
        config: The pipeline.
        logs: The topics as they are.
        stored: The progress each sink holds.
        servers: Named in errors.
        flush: Open windows are to be closed, which is work by itself.

    Raises:
        TopicMissing: A topic does not exist and nothing was ever read from it.
        TopicRecreated: A topic was created anew and the pipeline may not restart, or has nothing to restart from.
        OffsetLost: A log begins after the stored offset.
        RecordsDropped: The embedded broker no longer holds the first records of a partition.
    """
    start = Start()
    for log in logs:
        known = {p: [sink[p] for sink in stored if p in sink] for sink in stored for p in sink if p.topic == log.topic}
        reason = _difference(log, known)
        if log.is_empty and any(each.offset > 0 for sinks in known.values() for each in sinks):
            _vanished(config, log, known, len(stored), start, flush=flush)
        elif not log.spans:
            raise TopicMissing(log.topic, servers)
        elif reason is None:
            _go_on(config, log, known, len(stored), start, flush=flush)
        elif config.source.on_recreated == "restart":
            _restart(config, log, known, start)
        else:
            raise TopicRecreated(config.name, log.topic, reason)
    return start


def claims_for(
    config: PipelineConfig, logs: Sequence[TopicLog], stored: Stored, partitions: Sequence[Partition]
) -> dict[Partition, Claim]:
    """Decide how to claim partitions that a service was assigned, whether or not they have work now.

    Raises:
        TopicEmptied: A topic is empty after having been processed; its next records will be other ones.
        StreamError: As `decide`.
    """
    start = decide(config, logs, stored)
    if start.vanished:
        raise TopicEmptied(start.vanished[0])
    by_topic = {log.topic: log for log in logs}
    claims = {}
    for partition in partitions:
        log = by_topic[partition.topic]
        low, high = log.spans.get(partition.number, (0, 0))
        is_new = not any(held.topic == partition.topic for sink in stored for held in sink)
        fresh = high if config.source.start == "latest" and is_new else low
        claim = Claim(start=fresh, incarnation=log.incarnation(partition.number), log_end=high)
        claims[partition] = start.claims.get(partition, claim)
    return claims


Known = Mapping[Partition, Sequence[Progress]]


def _difference(log: TopicLog, known: Known) -> str | None:
    """Tell why the topic is not the one the progress belongs to; None if it may be."""
    for partition, sinks in sorted(known.items()):
        _, high = log.spans.get(partition.number, (0, 0))
        now = log.incarnation(partition.number)
        for each in sinks:
            if each.incarnation and now and each.incarnation != now:
                return f"{partition} is {now}, the checkpoint was made on {each.incarnation}"
            if each.offset > high:
                return f"{partition} ends at offset {high}, before the checkpoint's {each.offset}"
    return None


def _vanished(config: PipelineConfig, log: TopicLog, known: Known, sinks: int, start: Start, *, flush: bool) -> None:
    """Accept an emptied topic if nothing of it was left to do; open windows can be closed without it."""
    for partition, each in sorted(known.items()):
        if len({one.position for one in each}) > 1 or len(each) < sinks or not all(one.is_drained for one in each):
            ends = max(one.log_end for one in each)
            reason = (
                f"it is empty now, but only {min(one.offset for one in each)} of {ends} records of {partition} "
                "were processed; publish them again"
            )
            raise TopicRecreated(config.name, log.topic, reason)
        if flush and any(one.windows for one in each):
            start.claims[partition] = Claim(start=each[0].offset)
            start.ends[partition] = each[0].offset
    start.vanished.append(log.topic)


def _restart(config: PipelineConfig, log: TopicLog, known: Known, start: Start) -> None:
    partitions = {partition.number for partition in known} | set(log.spans)
    for number in sorted(partitions):
        low, high = log.spans.get(number, (0, 0))
        _refuse_dropped(config, log, number, low)
        partition = Partition(log.topic, number)
        start.claims[partition] = Claim(start=low, incarnation=log.incarnation(number), log_end=high, restart=True)
        start.ends[partition], start.reads[partition] = high, low
    start.restarted.append(log.topic)


def _go_on(config: PipelineConfig, log: TopicLog, known: Known, sinks: int, start: Start, *, flush: bool) -> None:
    for number, (low, high) in sorted(log.spans.items()):
        partition = Partition(log.topic, number)
        held = known.get(partition, ())
        is_latest = config.source.start == "latest" and not known
        fresh = high if is_latest else low
        if len(held) < sinks and not is_latest:
            _refuse_dropped(config, log, number, low)
        offsets = [*(each.offset for each in held), *([fresh] if len(held) < sinks else [])]
        if min(offsets) < low and config.source.on_lost == "fail":
            raise OffsetLost(log.topic, number, min(offsets), low)
        differ = len({each.position for each in held}) > 1
        has_flush = flush and any(each.windows for each in held)
        # A first drain from the end has nothing to read, and must note where that end is: else the next one
        # would begin at a later end, and never read anything. A partition that is added later begins at its first
        # record.
        if min(offsets) < high or differ or has_flush or is_latest:
            start.claims[partition] = Claim(start=fresh, incarnation=log.incarnation(number), log_end=high)
            start.ends[partition], start.reads[partition] = max(high, *offsets), low


def _refuse_dropped(config: PipelineConfig, log: TopicLog, number: int, low: int) -> None:
    """Refuse to begin where the embedded broker begins, if that is after its first record.

    A real broker's log may begin later by its retention; the embedded one has none, and drops what it cannot hold.
    """
    if log.is_embedded and low > 0 and config.source.on_lost == "fail":
        raise RecordsDropped(log.topic, number, low)
