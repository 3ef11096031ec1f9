"""How far a partition has been processed, and everything that must be stored with that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


@dataclass(slots=True, kw_only=True)
class Counts:
    """Totals of a partition since its beginning; ``consumed = rows + filtered + invalid + deleted``."""

    consumed: int = 0
    rows: int = 0
    filtered: int = 0
    invalid: int = 0
    late: int = 0
    windows: int = 0
    deleted: int = 0

    def plus(self, other: Counts) -> Counts:
        """Add two totals."""
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)})

    def minus(self, other: Counts) -> Counts:
        """Subtract an earlier total."""
        return Counts(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(Counts)})

    def as_dict(self) -> dict[str, int]:
        """The totals by name."""
        return {f.name: getattr(self, f.name) for f in fields(Counts)}


def total(counts: Iterable[Counts]) -> Counts:
    """Add up totals."""
    result = Counts()
    for each in counts:
        result = result.plus(each)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a checkpoint holds of one partition.

    Attributes:
        offset: The next offset to process.
        epoch: Number of the claim it was committed under; larger claims fence smaller ones.
        incarnation: Fingerprint of the topic the offsets belong to; empty when unknown.
        log_end: The log's end when the checkpoint was made; at least `offset`.
        watermark_us: Largest event time seen, or None.
        flushes: Offsets at which all open windows were closed on purpose, in order.
        counts: Totals since the beginning.
        windows: The open windows, as `Windows.dump` wrote them.
        definition: Fingerprint of the window definition the state belongs to.
    """

    offset: int
    epoch: int = 0
    incarnation: str = ""
    log_end: int = 0
    watermark_us: int | None = None
    flushes: tuple[int, ...] = ()
    counts: Counts = field(default_factory=Counts)
    windows: tuple[Any, ...] = ()
    definition: str = ""

    @property
    def position(self) -> tuple[int, int]:
        """Orders progress: a flush at an offset comes after the records before it."""
        return self.offset, len(self.flushes)

    @property
    def is_drained(self) -> bool:
        """Whether everything that was in the log at the checkpoint had been processed."""
        return self.offset >= self.log_end

    def pack(self) -> bytes:
        """Write state and totals (all but offset, epoch, incarnation and log end) as bytes."""
        state = {
            "watermark": self.watermark_us,
            "flushes": self.flushes,
            "counts": self.counts.as_dict(),
            "windows": self.windows,
            "definition": self.definition,
        }
        try:
            return msgspec.msgpack.encode(state)
        except OverflowError:  # a sum of an open window is beyond 64 bits, which MessagePack cannot hold
            return msgspec.msgpack.encode({**state, "windows": _without_big(self.windows)})

    def unpack(self, state: bytes) -> Progress:
        """Read what `pack` wrote, keeping offset, epoch, incarnation and log end."""
        found = msgspec.msgpack.decode(state)
        return replace(
            self,
            watermark_us=found["watermark"],
            flushes=tuple(found["flushes"]),
            counts=Counts(**found["counts"]),
            windows=tuple(_with_big(found["windows"])),
            definition=found["definition"],
        )


_BIG = "tidemill.int"


def _without_big(value: Any) -> Any:
    """Write whole numbers beyond 64 bits as ``{"tidemill.int": text}``."""
    if isinstance(value, list | tuple):
        return [_without_big(each) for each in value]
    is_big = isinstance(value, int) and not -(2**63) <= value < 2**64
    return {_BIG: str(value)} if is_big else value


def _with_big(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_big(each) for each in value]
    return int(value[_BIG]) if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """How to take over one partition.

    Attributes:
        start: Where to begin when the sink has no progress for it.
        incarnation: Fingerprint of the topic as it is now.
        log_end: The log's end as far as we know it.
        restart: Drop this pipeline's outputs and state of the partition, and begin at `start`.
    """

    start: int
    incarnation: str = ""
    log_end: int = 0
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Everything one commit of a partition writes: [start, progress.offset) and what came of it."""

    partition: Partition
    start: int
    progress: Progress
    rows: tuple[pa.RecordBatch, ...] = ()
    windows: pa.RecordBatch | None = None
    dead: pa.RecordBatch | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    last_timestamp_ms: int | None = None

    def batches(self) -> dict[str, list[pa.RecordBatch]]:
        """Give the batches of each output; none where nothing came of it."""
        return {
            "rows": list(self.rows),
            "windows": [] if self.windows is None else [self.windows],
            "dlq": [] if self.dead is None else [self.dead],
        }
