"""For tests of pipelines: messages without Kafka, and a replay that needs no server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill_stream.plan import Plan
from tidemill_stream.processor import Message, Processor
from tidemill_stream.progress import Partition, Progress

CREATE_TIME = 1


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A Kafka message that was never in Kafka."""

    at: int
    data: bytes | None
    name: bytes | None = None
    timestamp_ms: int = 0
    attached: list[tuple[str, bytes | None]] | None = field(default=None)

    def offset(self) -> int:
        """Return the offset."""
        return self.at

    def value(self) -> bytes | None:
        """Return the value."""
        return self.data

    def key(self) -> bytes | None:
        """Return the key."""
        return self.name

    def timestamp(self) -> tuple[int, int]:
        """Return kind and milliseconds."""
        return CREATE_TIME, self.timestamp_ms

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """Return the headers."""
        return self.attached


def fake_messages(values: Iterable[bytes | None], *, start: int = 0) -> list[FakeMessage]:
    """Make messages with offsets from `start`."""
    return [FakeMessage(offset, value) for offset, value in enumerate(values, start)]


def replay(
    plan: Plan, logs: Mapping[Partition, Sequence[Message]], *, flush: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Process whole logs in one go, in memory: what every run over them must end with.

    Returns:
        Rows, windows and dead letters as dictionaries, by partition and offset.
    """
    tables: dict[str, list[dict[str, Any]]] = {"rows": [], "windows": [], "dlq": []}
    for partition, messages in sorted(logs.items()):
        processor = Processor(plan, partition, Progress(offset=0))
        processor.feed(messages)
        if flush:
            processor.flush()
        output = processor.take()
        for batch in output.rows:
            tables["rows"] += batch.to_pylist()
        for name, batch in (("windows", output.windows), ("dlq", output.dead)):
            if batch is not None:
                tables[name] += batch.to_pylist()
    return tables
