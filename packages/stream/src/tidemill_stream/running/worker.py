"""The long-lived service: one member of the consumer group, committing outputs and offsets together.

Everything happens in one thread: fetch, process, commit. While a sink is slow nothing more
is taken from Kafka, and the client's own queue is bounded, so memory is too. Whatever goes
wrong, the member leaves the group, forgets what was not committed, and joins again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tidemill_core.errors import TransientError
from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

from tidemill_stream import metrics
from tidemill_stream.errors import TopicChanged
from tidemill_stream.kafka.recovery import claims_for
from tidemill_stream.kafka.source import consumer_properties, grouped, inspect, open_consumer, topic_id
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Partition
from tidemill_stream.running.session import Session
from tidemill_stream.sinks._base import Sink, SinkContext, open_sinks

if TYPE_CHECKING:
    from confluent_kafka import Consumer

POLL_S = 0.1
LEASE_S = 30.0
RENEWAL_S = 5.0
IDENTITY_S = 30.0
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 30.0
STUCK_S = 300.0

log = get_logger(__name__)


class Worker:
    """Runs one pipeline until it is told to stop.

    Args:
        plan: The compiled pipeline.
        servers: Kafka bootstrap servers.
        context: What the sinks need; give it a `lease_s` (`LEASE_S`), so that drains keep away.
        stop: Finish the batch, commit and leave when it is set.
        properties: Further librdkafka properties of this member, such as ``session.timeout.ms``.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        plan: Plan,
        servers: str,
        context: SinkContext,
        *,
        stop: StopToken | None = None,
        properties: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.servers, self.context = plan, servers, context
        self.stop, self._clock = stop or StopToken(), clock
        self._properties = properties or {}
        self._beat = clock()
        self._trouble: str | None = "not assigned yet"
        self._member: _Member | None = None

    def run(self) -> None:
        """Work until stopped; transient errors are survived, all others are raised.

        Raises:
            PermanentError: Somebody must change something first.
        """
        delay_s = FIRST_DELAY_S
        while not self.stop.is_set:
            began = self._clock()
            try:
                self._once()
            except TransientError as error:
                self._trouble = str(error)
                if self._clock() - began > MAX_DELAY_S:
                    delay_s = FIRST_DELAY_S
                wait_s = max(delay_s, error.retry_after_s or 0.0)
                log.warning("joining_again", pipeline=self.plan.config.name, error=str(error), wait_s=round(wait_s, 1))
                self._wait(wait_s)
                delay_s = min(delay_s * 2, MAX_DELAY_S)

    def _wait(self, seconds: float) -> None:
        self._beat = self._clock() + seconds
        self.stop.wait(seconds)

    def _once(self) -> None:
        member = _Member(self.plan, self.servers, self.context, self._properties, self._clock)
        self._member = member
        try:
            member.join()
            while not self.stop.is_set:
                member.step()
                self._beat = self._clock()
                self._trouble = None if member.is_assigned else "not assigned yet"
            member.leave()
        finally:
            self._member = None
            member.close()

    def live(self) -> str | None:
        """Tell what is wrong if the loop no longer turns; waiting for a broker is not wrong."""
        idle_s = self._clock() - self._beat
        return f"the loop has not turned for {idle_s:.0f} s" if idle_s > STUCK_S else None

    def ready(self) -> str | None:
        """Tell why no records are being processed; None when they are."""
        return self._trouble

    def status(self) -> dict[str, Any]:
        """Describe this worker."""
        member = self._member
        return {
            "pipeline": self.plan.config.name,
            "owner": self.context.owner,
            "ready": self._trouble is None,
            "trouble": self._trouble,
            "partitions": {} if member is None else member.positions(),
        }


class _Member:
    """One membership in the group: thrown away whole after any error."""

    def __init__(
        self, plan: Plan, servers: str, context: SinkContext, properties: dict[str, Any], clock: Callable[[], float]
    ) -> None:
        self.plan, self.servers, self.context, self._clock = plan, servers, context, clock
        self.sinks: list[Sink] = open_sinks(context)
        self.session = Session(plan, self.sinks)
        self.is_assigned = False
        self._fault: BaseException | None = None
        self._identities: dict[str, str] = {}
        self._last_commit = self._last_renewal = self._last_identity = clock()
        chosen = {**consumer_properties(plan.config, servers), **properties}
        if chosen.get("group.protocol") != "consumer":  # there the broker assigns, one partition at a time as well
            chosen["partition.assignment.strategy"] = "cooperative-sticky"
        self.consumer: Consumer = open_consumer(chosen)

    def join(self) -> None:
        for sink in self.sinks:
            sink.prepare()
        self.consumer.subscribe(
            self.plan.config.source.topics,
            on_assign=self._guarded(self._assigned),
            on_revoke=self._guarded(self._revoked),
            on_lost=self._guarded(self._lost),
        )

    def step(self) -> None:
        """Fetch, process, and commit when it is time."""
        config = self.plan.config
        messages = self.consumer.consume(config.limits.batch_records, POLL_S)
        self._raise_fault()
        records, ends = grouped(messages, self.servers)
        for partition, batch in records.items():
            self.session.feed(partition, batch)
        for partition, end in ends.items():
            self.session.advance(partition, end)
            if partition in self.session.lanes:
                self.session.lanes[partition].log_end = end
        if records:
            metrics.batch(config.name, len(messages))
        now = self._clock()
        metrics.CHECKPOINT_AGE.labels(pipeline=config.name).set(now - self._last_commit)
        if self.session.pending >= config.checkpoint.rows or now - self._last_commit >= config.checkpoint.interval_s:
            self.commit()
        if now - self._last_renewal >= max(RENEWAL_S, self.context.lease_s / 3):
            for sink in self.sinks:
                sink.renew(list(self.session.lanes))
            self._last_renewal = self._clock()
        if now - self._last_identity >= IDENTITY_S:
            self.check_identity()

    def check_identity(self) -> None:
        """Notice a topic that was created anew, even when its new log reaches beyond our offset already."""
        for topic, known in self._identities.items():
            found = topic_id(topic, self.servers, self.plan.config.source.properties)
            if found is not None and found != known:
                raise TopicChanged(topic, f"its id is {found}, it was {known}")
        self._last_identity = self._clock()

    def commit(self, partitions: Sequence[Partition] | None = None) -> None:
        if self.session.commit(partitions):
            self._tell_group()
        self._last_commit = self._clock()
        for partition, lane in self.session.lanes.items():
            place = {"pipeline": self.plan.config.name, "topic": partition.topic, "partition": partition.number}
            processor = lane.processor
            metrics.LAG.labels(**place).set(max(0, lane.log_end - processor.offset))
            if processor.windows is not None:
                metrics.STATE_KEYS.labels(**place).set(len(processor.windows))
                mark = processor.windows.watermark_us
                if mark is not None:
                    metrics.WATERMARK_DELAY.labels(**place).set(time.time() - mark / 1e6)

    def _tell_group(self) -> None:
        """Commit the offsets to the group too: unused by us, but lag tools read them."""
        from confluent_kafka import KafkaException, TopicPartition

        with suppress(KafkaException):
            self.consumer.commit(
                offsets=[TopicPartition(*each, lane.processor.offset) for each, lane in self.session.lanes.items()],
                asynchronous=True,
            )

    def leave(self) -> None:
        """Commit everything and end the leases; `close` then leaves the group."""
        self.commit()
        self._give_up(list(self.session.lanes))

    def close(self) -> None:
        self.session.drop(list(self.session.lanes))
        self.consumer.close()
        for sink in self.sinks:
            sink.close()

    def positions(self) -> dict[str, int]:
        return {str(partition): lane.processor.offset for partition, lane in list(self.session.lanes.items())}

    def _guarded(self, callback: Callable[[Consumer, list[Any]], None]) -> Callable[[Consumer, list[Any]], None]:
        """Keep an error of a callback for the loop to raise: the client may swallow it."""

        def call(consumer: Consumer, partitions: list[Any]) -> None:
            metrics.REBALANCES.labels(pipeline=self.plan.config.name).inc()
            try:
                callback(consumer, partitions)
            except Exception as error:  # noqa: BLE001 - raised again by the loop
                self._fault = self._fault or error

        return call

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _assigned(self, consumer: Consumer, partitions: list[Any]) -> None:
        from confluent_kafka import TopicPartition

        self.is_assigned = True
        found = [Partition(each.topic, each.partition) for each in partitions]
        offsets: dict[Partition, int] = {}
        if found:
            topics = self.plan.config.source.topics
            looker = open_consumer(consumer_properties(self.plan.config, self.servers))
            try:
                logs = inspect(looker, topics, self.servers, self.plan.config.source.properties)
            finally:
                looker.close()
            self._identities = {each.topic: each.identity for each in logs if each.identity}
            stored = [sink.read(topics) for sink in self.sinks]
            offsets = self.session.claim(claims_for(self.plan.config, logs, stored, found))
            spans = {Partition(each.topic, number): span for each in logs for number, span in each.spans.items()}
            offsets = {each: max(offset, spans[each][0]) for each, offset in offsets.items()}
            for each in found:
                self.session.lanes[each].log_end = spans[each][1]
        consumer.incremental_assign([TopicPartition(*each, offset) for each, offset in offsets.items()])
        log.info("assigned", pipeline=self.plan.config.name, partitions=[str(each) for each in found])

    def _revoked(self, consumer: Consumer, partitions: list[Any]) -> None:
        found = [Partition(each.topic, each.partition) for each in partitions]
        held = [each for each in found if each in self.session.lanes]
        if held and self._fault is None:
            self.commit(held)
            self._give_up(held)
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[Any]) -> None:
        self.session.drop([Partition(each.topic, each.partition) for each in partitions])
        consumer.incremental_unassign(partitions)

    def _give_up(self, partitions: list[Partition]) -> None:
        self.session.drop(partitions)
        for sink in self.sinks:
            sink.release(partitions)
