"""Publish records to a topic: every delivery checked, no duplicates from retries, and resumable."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill_stream.errors import BrokerUnavailable, DeliveryFailed, RecordsDropped
from tidemill_stream.kafka.source import MOCK_CLUSTER

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

Record = bytes | None | tuple[bytes | None, bytes | None] | tuple[int, bytes | None, bytes | None]
"""A value, ``(key, value)``, or ``(partition, key, value)``; a value of None is a tombstone."""

REQUEST_TIMEOUT_S = 15.0
_PROPERTIES: Mapping[str, Any] = {
    "enable.idempotence": True,
    "linger.ms": 100,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "compression.type": "zstd",
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 262_144,
    "log_level": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a call published; `skipped` records were in the topic already."""

    topic: str
    sent: int
    skipped: int
    bytes: int
    ends: Mapping[int, int]


def produce(
    servers: str,
    topic: str,
    records: Iterable[Record],
    *,
    partitions: int = 4,
    resume: bool = False,
    properties: Mapping[str, Any] | None = None,
    timeout_s: float = 120.0,
) -> Published:
    """Publish records in order; the topic is created if it does not exist.

    A record without a partition goes to the one its key hashes to (CRC-32, librdkafka's
    ``consistent``), or to each in turn when it has no key.

    Args:
        servers: Kafka bootstrap servers.
        topic: Name of the topic.
        records: Values, ``(key, value)`` or ``(partition, key, value)``.
        partitions: Partitions of a topic that is created.
        resume: Skip, in each partition, as many records as it holds. For a publisher that always
            gives the same records and is the only one: what a killed run left is a prefix.
        properties: Further librdkafka producer properties.
        timeout_s: How long to wait for the last deliveries.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        DeliveryFailed: A record was refused, or the log does not begin at 0 as a resumed one must.
        RecordsDropped: Every record was confirmed, but the embedded broker has dropped some since.
    """
    from confluent_kafka import Producer

    producer = Producer({**_PROPERTIES, **(properties or {}), "bootstrap.servers": servers})
    numbers = ensure_topic(servers, topic, partitions=partitions, properties=properties)
    held = _held(servers, topic, numbers, properties) if resume else dict.fromkeys(numbers, 0)
    sending = _Sending(producer, topic, len(numbers))
    skipped = 0
    left = dict(held)
    for partition, key, value in sending.placed(records):
        if left.get(partition, 0) > 0:
            left[partition] -= 1
            skipped += 1
        else:
            sending.send(partition, key, value)
    sending.finish(timeout_s)
    if resume or sending.is_embedded():
        _check_kept(servers, topic, sending.starts, properties, is_resumed=resume)
    ends = {number: held.get(number, 0) + sending.sent.get(number, 0) for number in numbers} if resume else sending.ends
    return Published(topic=topic, sent=sending.total, skipped=skipped, bytes=sending.bytes, ends=ends)


class _Sending:
    def __init__(self, producer: Producer, topic: str, partitions: int) -> None:
        self.producer, self.topic, self.partitions = producer, topic, partitions
        self.sent: dict[int, int] = {}
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.total = self.bytes = self.delivered = 0
        self.error: KafkaError | None = None

    def placed(self, records: Iterable[Record]) -> Iterable[tuple[int, bytes | None, bytes | None]]:
        for index, record in enumerate(records):
            if record is None or isinstance(record, bytes):
                yield index % self.partitions, None, record
            elif len(record) == 3:  # noqa: PLR2004 - (partition, key, value)
                yield record
            else:
                key, value = record
                yield (index if key is None else zlib.crc32(key)) % self.partitions, key, value

    def send(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        from confluent_kafka import KafkaException

        while True:
            try:
                self.producer.produce(
                    self.topic, value=value, key=key, partition=partition, on_delivery=self.note_delivery
                )
                break
            except BufferError:
                self.producer.poll(0.05)
            except KafkaException as error:
                raise DeliveryFailed(f"Kafka refuses record {self.total} for {self.topic}: {error.args[0]}") from error
        self.sent[partition] = self.sent.get(partition, 0) + 1
        self.total += 1
        self.bytes += len(value or b"") + len(key or b"")
        if self.total % 5_000 == 0:
            self.producer.poll(0)
            self.check()

    def note_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.delivered += 1
            number, offset = int(message.partition() or 0), int(message.offset() or 0)
            self.starts[number] = min(self.starts.get(number, offset), offset)
            self.ends[number] = max(self.ends.get(number, 0), offset + 1)
        else:
            self.error = self.error or error

    def check(self) -> None:
        if self.error is not None:
            raise DeliveryFailed(f"Kafka refused a record for {self.topic}: {self.error}; run it again with resume")

    def is_embedded(self) -> bool:
        """Whether the broker is librdkafka's mock, which drops the first records of a full partition."""
        from confluent_kafka import KafkaException

        try:
            return str(self.producer.list_topics(timeout=REQUEST_TIMEOUT_S).cluster_id).startswith(MOCK_CLUSTER)
        except KafkaException as error:
            raise DeliveryFailed(f"whether {self.topic} holds what was sent cannot be read: {error.args[0]}") from error

    def finish(self, timeout_s: float) -> None:
        left = self.producer.flush(timeout_s)
        self.check()
        if left or self.delivered != self.total:
            raise DeliveryFailed(
                f"{self.total - self.delivered} of {self.total} records for {self.topic} were not confirmed "
                f"within {timeout_s:g} s; run it again with resume"
            )


def ensure_topic(
    servers: str, topic: str, *, partitions: int = 4, properties: Mapping[str, Any] | None = None
) -> list[int]:
    """Create a topic if it does not exist; returns its partition numbers.

    Brokers without an administration interface (librdkafka's mock) create it by being asked for it.

    Raises:
        BrokerUnavailable: Kafka does not answer, or the topic cannot be made.
    """
    from confluent_kafka import KafkaException, Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    client = {**(properties or {}), "bootstrap.servers": servers, "log_level": 2}
    admin = AdminClient(client)
    try:
        metadata = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
        if topic not in metadata.topics and not str(metadata.cluster_id).startswith(MOCK_CLUSTER):
            _create(admin, NewTopic(topic, num_partitions=partitions))
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        asker = Producer(client)
        while time.monotonic() < deadline:
            found = asker.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            time.sleep(0.05)
    except KafkaException as error:
        raise BrokerUnavailable(servers, str(error.args[0])) from error
    raise BrokerUnavailable(servers, f"topic {topic!r} did not appear within {REQUEST_TIMEOUT_S:.0f} s")


def _create(admin: Any, topic: Any) -> None:
    from confluent_kafka import KafkaError, KafkaException

    try:
        admin.create_topics([topic], request_timeout=REQUEST_TIMEOUT_S)[topic.topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def watermarks(servers: str, topic: str, *, properties: Mapping[str, Any] | None = None) -> dict[int, tuple[int, int]]:
    """Read the low and high watermark of each partition; empty when the topic does not exist.

    Raises:
        BrokerUnavailable: Kafka does not answer.
    """
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    consumer = Consumer({**(properties or {}), "bootstrap.servers": servers, "group.id": "tidemill", "log_level": 2})
    try:
        numbers = sorted(consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic].partitions)
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=REQUEST_TIMEOUT_S)
            for number in numbers
        }
    except KafkaException as error:
        raise BrokerUnavailable(servers, str(error.args[0])) from error
    finally:
        consumer.close()


def _held(servers: str, topic: str, numbers: list[int], properties: Mapping[str, Any] | None) -> dict[int, int]:
    spans = watermarks(servers, topic, properties=properties)
    for number, (low, _) in spans.items():
        if low != 0:
            raise DeliveryFailed(
                f"{topic}[{number}] begins at offset {low}: what was published before is not all there"
            )
    return {number: spans.get(number, (0, 0))[1] for number in numbers}


def _check_kept(
    servers: str,
    topic: str,
    starts: Mapping[int, int],
    properties: Mapping[str, Any] | None,
    *,
    is_resumed: bool,
) -> None:
    """Look whether the log still holds what was confirmed: from offset 0 if resumed, else from our first record."""
    for number, (low, high) in watermarks(servers, topic, properties=properties).items():
        first = 0 if is_resumed else starts.get(number, high)
        if low > first:
            raise RecordsDropped(topic, number, low)
