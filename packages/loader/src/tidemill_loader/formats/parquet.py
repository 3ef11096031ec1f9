"""Parquet: columns and row groups from the footer; a unit is a row group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill_loader.errors import SourceUnreadable
from tidemill_loader.formats._base import OnBadRow, Unit

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.sources import SourceFile

MAX_GROUP_BYTES = 4 << 30
"""A row group that decodes to more is refused: files are not trusted."""


class ParquetFormat:
    """Reads Parquet files, a row group at a time."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def __init__(self, config: LoadConfig) -> None:
        self._rows = config.batch_rows
        self._footers: dict[tuple[str, str], Any] = {}

    def schema(self, source: SourceFile) -> pa.Schema:
        """Read the footer's columns."""
        return self._footer(source).schema.to_arrow_schema()

    def units(self, source: SourceFile) -> list[Unit]:
        """List the row groups that hold rows."""
        footer = self._footer(source)
        groups = [footer.row_group(at) for at in range(footer.num_row_groups)]
        units = [Unit(index=at, rows=g.num_rows, size_bytes=g.total_byte_size) for at, g in enumerate(groups)]
        for unit in units:
            if unit.size_bytes > MAX_GROUP_BYTES:
                raise SourceUnreadable(source.url, f"row group {unit.index} holds {unit.size_bytes} bytes; split it")
        return [unit for unit in units if unit.rows]

    def batches(self, source: SourceFile, unit: Unit, schema: pa.Schema, on_bad: OnBadRow) -> Iterator[pa.RecordBatch]:
        """Decode one row group, only the columns of `schema`."""
        del on_bad  # a Parquet file is readable or not
        with source.open() as stream, _readable(source):
            import pyarrow.parquet as pq

            # INT96 wraps silently outside 1677 to 2262 unless it is read as microseconds
            file = pq.ParquetFile(stream, metadata=self._footer(source), coerce_int96_timestamp_unit="us")
            yield from file.iter_batches(
                batch_size=self._rows, row_groups=[unit.index], columns=schema.names, use_threads=False
            )

    def _footer(self, source: SourceFile) -> Any:
        at = source.url, source.etag
        if at not in self._footers:
            import pyarrow.parquet as pq

            with source.open() as stream, _readable(source):
                self._footers[at] = pq.read_metadata(stream)
        return self._footers[at]


@contextmanager
def _readable(source: SourceFile) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise SourceUnreadable(source.url, " ".join(str(error).split())) from error
