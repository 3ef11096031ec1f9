"""The contract every file format keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.sources import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A part of a file that is loaded whole or not at all.

    Attributes:
        index: Place in the file, from 0.
        rows: Rows of the part; None where only reading tells.
        size_bytes: Bytes to read.
        start: First byte, where the part is a byte range; None for a whole file or a part with its own index.
        end: The byte behind the last one, as `start`.
    """

    index: int
    rows: int | None
    size_bytes: int
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that could not even be read; `row` counts from 0 in its unit."""

    row: int
    reason: str
    text: str


OnBadRow = Callable[[BadRow], None]


class Format(Protocol):
    """Reads one kind of file; makes no decision about the table."""

    suffixes: ClassVar[tuple[str, ...]]
    """Ends of file names, with their dot and without a compression's, by which ``format: auto`` finds it."""

    def __init__(self, config: LoadConfig) -> None: ...

    def schema(self, source: SourceFile) -> pa.Schema:
        """The columns of a file, with the types its metadata or a sample show.

        A field's metadata may name a PostgreSQL type under ``tidemill.sql``.
        """

    def units(self, source: SourceFile) -> list[Unit]:
        """The parts of a file; none for an empty one."""

    def batches(self, source: SourceFile, unit: Unit, schema: pa.Schema, on_bad: OnBadRow) -> Iterator[pa.RecordBatch]:
        """Read one unit in order; text formats give text columns, named as in `schema`."""
