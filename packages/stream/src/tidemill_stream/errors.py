"""What can go wrong in a stream, and what the caller must do.

StreamError
├── FilterSyntax          (ConfigError)    the `where` expression cannot be read
├── SchemaInvalid         (ConfigError)    the JSON Schema cannot be used
├── PipelineInvalid       (ConfigError)    parts of a pipeline do not fit together
├── Fenced                (TransientError) another worker has claimed our partitions: claim again or leave
├── PipelineBusy          (TransientError) a live service holds the partitions
├── BrokerUnavailable     (TransientError) Kafka does not answer
├── TopicChanged          (TransientError) the log changed while it was read; look at it again
├── TopicEmptied          (TransientError) the topic was emptied; wait for its next records
├── TopicMissing          (PermanentError) the topic does not exist
├── TopicRecreated        (PermanentError) the topic is another one than the checkpoint's
├── OffsetLost            (PermanentError) the log starts after the stored offset
├── RecordsDropped        (PermanentError) the embedded broker no longer holds the first records
├── DeliveryFailed        (PermanentError) Kafka refused a message we produced
├── TooManyInvalid        (PermanentError) more records are invalid than the limit allows
├── InvalidRecord         (RecordError)    a record is invalid and `on_invalid` is ``fail``
└── StateTooLarge         (PermanentError) more windows are open than the limit allows
"""

from __future__ import annotations

from tidemill_core.errors import ConfigError, PermanentError, RecordError, TidemillError, TransientError


class StreamError(TidemillError):
    """Base of the stream processor's errors."""


class FilterSyntax(StreamError, ConfigError):
    """The `where` expression cannot be read."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        self.text, self.position, self.reason = text, position, reason
        super().__init__(f"where: {reason} at column {position + 1}: {text[:position]}⟨here⟩{text[position:]}")


class SchemaInvalid(StreamError, ConfigError):
    """The JSON Schema cannot be used."""


class PipelineInvalid(StreamError, ConfigError):
    """The parts of a pipeline do not fit together."""

    def __init__(self, pipeline: str, reason: str) -> None:
        self.pipeline, self.reason = pipeline, reason
        super().__init__(f"pipeline {pipeline!r}: {reason}")


class AggregateOverflow(StreamError, PermanentError):
    """A window's whole-number aggregate is beyond 64 bits, and no sink takes dead letters."""

    def __init__(self, pipeline: str, name: str, value: int) -> None:
        self.pipeline, self.name, self.value = pipeline, name, value
        super().__init__(
            f"pipeline {pipeline!r}: the aggregate {name!r} of a window is {value}, beyond 64 bits; give a sink a dlq "
            "output for such windows, or sum the field as a number"
        )


class Fenced(StreamError, TransientError):
    """Another worker claimed a partition after us; nothing of ours was written."""

    def __init__(self, sink: str, topic: str, partition: int, epoch: int) -> None:
        self.sink, self.topic, self.partition, self.epoch = sink, topic, partition, epoch
        super().__init__(
            f"sink {sink}: {topic}[{partition}] was claimed by another worker after our epoch {epoch}; "
            "this batch was not written"
        )


class PipelineBusy(StreamError, TransientError):
    """A live service holds the pipeline's partitions."""

    def __init__(self, pipeline: str, owner: str, retry_after_s: float) -> None:
        self.pipeline, self.owner, self.retry_after_s = pipeline, owner, retry_after_s
        super().__init__(
            f"pipeline {pipeline!r} is being run by {owner}; stop it, wait {retry_after_s:.0f} s for its lease to end, "
            "or drain with takeover"
        )


class BrokerUnavailable(StreamError, TransientError):
    """Kafka does not answer."""

    def __init__(self, servers: str, reason: str) -> None:
        self.servers, self.reason = servers, reason
        super().__init__(f"Kafka at {servers} does not answer: {reason}")


class TopicChanged(StreamError, TransientError):
    """The log changed while it was read; a new look tells what happened."""

    def __init__(self, topic: str, reason: str) -> None:
        self.topic, self.reason = topic, reason
        super().__init__(f"topic {topic!r} changed while it was read ({reason}); looking at it again")


class TopicEmptied(StreamError, TransientError):
    """The topic holds nothing any more; a service waits until it does."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        super().__init__(f"topic {topic!r} is empty, after its records were processed; waiting for new ones")


class TopicMissing(StreamError, PermanentError):
    """The topic does not exist."""

    def __init__(self, topic: str, servers: str) -> None:
        self.topic, self.servers = topic, servers
        super().__init__(f"Kafka at {servers} has no topic {topic!r}; create it or publish to it first")


class TopicRecreated(StreamError, PermanentError):
    """The topic is another one than the one the checkpoint was made on."""

    def __init__(self, pipeline: str, topic: str, reason: str) -> None:
        self.pipeline, self.topic = pipeline, topic
        super().__init__(
            f"pipeline {pipeline!r}: topic {topic!r} was created anew: {reason}. Set on_recreated: restart "
            "to drop this pipeline's outputs and begin again, or run it under a new pipeline name"
        )


class OffsetLost(StreamError, PermanentError):
    """Records between the stored offset and the log's start are gone."""

    def __init__(self, topic: str, partition: int, stored: int, low: int) -> None:
        self.topic, self.partition, self.stored, self.low = topic, partition, stored, low
        super().__init__(
            f"{topic}[{partition}]: the checkpoint is at offset {stored} but the log begins at {low}; "
            f"{low - stored} records were deleted before they were read; set source.on_lost: skip to go on"
        )


class RecordsDropped(StreamError, PermanentError):
    """The embedded broker has dropped the first records of a partition, which it does without a word."""

    def __init__(self, topic: str, partition: int, low: int) -> None:
        self.topic, self.partition, self.low = topic, partition, low
        super().__init__(
            f"{topic}[{partition}] begins at offset {low}: the embedded broker holds about 5 MB of a partition and has "
            f"dropped its first {low} records. Set TIDEMILL_KAFKA_BOOTSTRAP to a real broker "
            "(docs/how-to/real-servers.md), or source.on_lost: skip to do without them"
        )


class DeliveryFailed(StreamError, PermanentError):
    """Kafka refused a message we produced, or lost some."""


class TooManyInvalid(StreamError, PermanentError):
    """More records are invalid than the limit allows."""

    def __init__(self, pipeline: str, invalid: int, consumed: int, limit: float) -> None:
        self.invalid, self.consumed, self.limit = invalid, consumed, limit
        super().__init__(
            f"pipeline {pipeline!r}: {invalid} of {consumed} records are invalid, over the limit of {limit:.0%}; "
            "the schema has probably changed upstream. Nothing after the last checkpoint was written"
        )


class InvalidRecord(StreamError, RecordError):
    """A record is invalid and `on_invalid` is ``fail``."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        self.topic, self.partition, self.offset = topic, partition, offset
        super().__init__(f"{topic}[{partition}] offset {offset}: {reason}")


class StateTooLarge(StreamError, PermanentError):
    """More windows are open than the limit allows."""

    def __init__(self, pipeline: str, topic: str, partition: int, windows: int, limit: int) -> None:
        self.windows, self.limit = windows, limit
        super().__init__(
            f"pipeline {pipeline!r}: {topic}[{partition}] holds {windows} windows, over limits.open_windows={limit}; "
            "use fewer keys, a smaller window or grace, or raise the limit"
        )
