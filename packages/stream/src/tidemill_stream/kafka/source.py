"""Read Kafka: which partitions a topic has, where its log begins and ends, whether it is still the same topic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tidemill_stream.config import PipelineConfig
from tidemill_stream.errors import BrokerUnavailable, TopicChanged
from tidemill_stream.progress import Partition

if TYPE_CHECKING:
    from confluent_kafka import Consumer

REQUEST_TIMEOUT_S = 15.0
_IDENTITY_TIMEOUT_S = 5.0
MOCK_CLUSTER = "mockCluster"
"""How the cluster ids of librdkafka's mock begin."""
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLog:
    """A topic as it is now.

    Attributes:
        spans: Low and high watermark by partition number; empty when the topic does not exist.
        identity: Topic id, where the broker gives one; of the home's embedded broker, the broker's own identity.
        first: Fingerprint of the record at offset 0 by partition, where the broker gives no topic id.
        is_embedded: Whether the broker is librdkafka's mock, which drops the first records of a full partition.
    """

    topic: str
    spans: Mapping[int, tuple[int, int]]
    identity: str | None = None
    first: Mapping[int, str] = field(default_factory=dict)
    is_embedded: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the topic holds no record, or does not exist."""
        return all(high <= low for low, high in self.spans.values())

    def incarnation(self, number: int) -> str:
        """Fingerprint of a partition's topic; empty when it cannot be known."""
        return f"id:{self.identity}" if self.identity else self.first.get(number, "")


def consumer_properties(config: PipelineConfig, servers: str) -> dict[str, Any]:
    """Properties of our consumers: we keep the offsets, and a missing offset is an error.

    Those before the user's own are defaults that the user may change.
    """
    return {
        "fetch.wait.max.ms": 50,
        # A partition whose queue was full is fetched again this soon; the library waits for a second.
        "fetch.queue.backoff.ms": 5,
        "fetch.min.bytes": 1,
        "queued.min.messages": 100_000,
        "queued.max.messages.kbytes": 32_768,
        "max.partition.fetch.bytes": 4_194_304,
        **config.source.properties,
        "bootstrap.servers": servers,
        "group.id": config.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "log_level": 2,
    }


def open_consumer(properties: Mapping[str, Any]) -> Consumer:
    """Make a consumer; nothing is connected yet."""
    from confluent_kafka import Consumer

    return Consumer(dict(properties))


def inspect(consumer: Consumer, topics: Sequence[str], servers: str, client: Mapping[str, Any]) -> list[TopicLog]:
    """Look at topics: partitions, watermarks, identity. The consumer must have no assignment.

    Raises:
        BrokerUnavailable: Kafka does not answer in time.
    """
    from confluent_kafka import KafkaException, TopicPartition

    try:
        found = {topic: consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S) for topic in topics}
        logs = []
        for topic, metadata in found.items():
            numbers = sorted(metadata.topics[topic].partitions)
            spans = {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=REQUEST_TIMEOUT_S)
                for number in numbers
            }
            is_embedded = str(metadata.cluster_id).startswith(MOCK_CLUSTER)
            identity = _identity(topic, servers, client, is_embedded=is_embedded) if numbers else None
            first = {} if identity else _first_records(consumer, topic, spans)
            logs.append(TopicLog(topic=topic, spans=spans, identity=identity, first=first, is_embedded=is_embedded))
    except KafkaException as error:
        raise BrokerUnavailable(servers, str(error.args[0])) from error
    return logs


def log_spans(config: PipelineConfig, servers: str) -> dict[Partition, tuple[int, int]]:
    """Ask the broker where each partition of a pipeline's topics begins and ends now.

    Raises:
        BrokerUnavailable: It does not answer in time.
    """
    from confluent_kafka import KafkaException, TopicPartition

    consumer = open_consumer(consumer_properties(config, servers))
    try:
        return {
            Partition(topic, number): consumer.get_watermark_offsets(
                TopicPartition(topic, number), timeout=REQUEST_TIMEOUT_S
            )
            for topic in config.source.topics
            for number in consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic].partitions
        }
    except KafkaException as error:
        raise BrokerUnavailable(servers, str(error.args[0])) from error
    finally:
        consumer.close()


def _identity(topic: str, servers: str, client: Mapping[str, Any], *, is_embedded: bool) -> str | None:
    """Take the id of the topic; the mock's topics live as long as the broker, and its first record may be dropped."""
    if not is_embedded:
        return topic_id(topic, servers, client)
    from tidemill_core.embedded.kafka import identity_of
    from tidemill_core.settings import Settings

    return identity_of(Settings.from_env().home, servers)


def topic_id(topic: str, servers: str, client: Mapping[str, Any]) -> str | None:
    """Ask for the topic's id; None where the broker does not know the request."""
    from confluent_kafka import KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({**client, "bootstrap.servers": servers, "log_level": 2})
    with suppress(KafkaException):
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=_IDENTITY_TIMEOUT_S)[topic]
        found = str(answer.result(timeout=_IDENTITY_TIMEOUT_S + 1).topic_id)
        return None if found == _NO_ID else found
    return None


def _first_records(consumer: Consumer, topic: str, spans: Mapping[int, tuple[int, int]]) -> dict[int, str]:
    """Fingerprint the record at offset 0 of each partition that still has one."""
    from confluent_kafka import TopicPartition

    wanted = {number for number, (low, high) in spans.items() if low == 0 and high > 0}
    found: dict[int, str] = {}
    if not wanted:
        return found
    consumer.assign([TopicPartition(topic, number, 0) for number in wanted])
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while wanted - set(found) and time.monotonic() < deadline:
        for message in consumer.consume(len(wanted), 0.1):
            number = message.partition()
            if message.error() is None and number in wanted and number not in found:
                text = f"{message.timestamp()}|{message.offset()}|{message.key()!r}|{message.value()!r}"
                found[number] = f"first:{sha256(text.encode()).hexdigest()[:24]}"
                consumer.pause([TopicPartition(topic, number)])
    consumer.resume([TopicPartition(topic, number) for number in found])  # a pause outlives the assignment
    consumer.unassign()
    return found


def grouped(messages: Iterable[Any], servers: str) -> tuple[dict[Partition, list[Any]], dict[Partition, int]]:
    """Sort fetched messages by partition; returns them, and the ends of log that were reached.

    Raises:
        TopicChanged: The log no longer has the offset we asked for, or is gone.
        BrokerUnavailable: The client has met an error that it cannot mend itself.
    """
    records: dict[Partition, list[Any]] = {}
    ends: dict[Partition, int] = {}
    held: dict[tuple[str, int], list[Any]] = {}
    for message in messages:
        if message.error() is not None:
            _note_error(message, servers, ends)
            continue
        place = message.topic(), message.partition()
        if place not in held:
            held[place] = records[Partition(*place)] = []
        held[place].append(message)
    return records, ends


def _note_error(message: Any, servers: str, ends: dict[Partition, int]) -> None:
    from confluent_kafka import KafkaError

    error, code = message.error(), message.error().code()
    if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's public constant
        ends[Partition(message.topic(), message.partition())] = message.offset()
    elif code in _changes():
        raise TopicChanged(str(message.topic()), str(error))
    elif error.fatal() or not (error.retriable() or code in _passing()):
        raise BrokerUnavailable(servers, str(error))


def _changes() -> tuple[int, ...]:
    """Errors that mean that our offset or the topic is gone."""
    from confluent_kafka import KafkaError

    return (
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 - the library's public constants
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    )


def _passing() -> tuple[int, ...]:
    """Errors that librdkafka reports and goes on from by itself."""
    from confluent_kafka import KafkaError

    return KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT  # noqa: SLF001


def log_urn(servers: str, topic: str) -> str:
    """Name a topic for lineage."""
    return f"kafka://{servers.split(',', 1)[0]}/{topic}"
