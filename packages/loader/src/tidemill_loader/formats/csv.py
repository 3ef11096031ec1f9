"""CSV: every field is read as text and meets its column's type later, so that a bad one names its row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill_core.postgres.identifiers import safe_identifiers

from tidemill_loader.errors import LoadError, SourceUnreadable
from tidemill_loader.formats._base import BadRow, OnBadRow, Unit
from tidemill_loader.formats._ranges import BOM, Quoting, csv_borders, is_cut, opened_range, units_of
from tidemill_loader.formats._text import Counted, decompressed, sample_of
from tidemill_loader.infer import infer_text

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.sources import SourceFile

BLOCK_BYTES = 4 << 20
ASCII_BASED = frozenset(
    {"ascii", "utf8", "latin1", "iso88591", "iso885915", "cp1250", "cp1251", "cp1252"}
    | {"windows1250", "windows1251", "windows1252"}
)
"""Character sets in which the bytes of quotes and line ends are never part of another character."""


class CsvFormat:
    """Reads delimited text, plain or compressed (gz, bz2, zst, lz4); a long plain file is cut into ranges."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    def __init__(self, config: LoadConfig) -> None:
        self._config = config
        self._known_names: dict[tuple[str, str], list[str]] = {}
        self._known_lines: dict[tuple[str, str], int] = {}

    def schema(self, source: SourceFile) -> pa.Schema:
        """Choose types from the first `sample_bytes` of a file."""
        import pyarrow as pa

        names = self._names(source)
        if not names:
            return pa.schema([])
        sample = sample_of(source, self._config.sample_bytes)
        table = pa.Table.from_batches(list(self._read(source, sample, names, lambda _: None)), _texts(names))
        return pa.schema([_field(name, table.column(name)) for name in names])

    def units(self, source: SourceFile) -> list[Unit]:
        """Byte ranges of a long file, one unit for another, none for a file without a byte."""
        given, every = self._config, self._config.split_bytes
        quoting = self._quoting()
        if quoting is None or not is_cut(source, given.split, every, costs_a_scan=True):
            return units_of(source, ())
        with source.open() as file:
            return units_of(source, csv_borders(lambda size: bytes(file.read(size)), quoting, every))

    def _quoting(self) -> Quoting | None:
        """What decides where records end; None where only the parser itself knows."""
        given = self._config.csv
        plain = given.encoding.lower().replace("-", "").replace("_", "") in ASCII_BASED
        if given.escape or not plain or not (given.delimiter + given.quote).isascii():
            return None
        return Quoting(delimiter=given.delimiter.encode(), quote=given.quote.encode(), skip_lines=given.skip_rows)

    def batches(self, source: SourceFile, unit: Unit, schema: pa.Schema, on_bad: OnBadRow) -> Iterator[pa.RecordBatch]:
        """Read all rows of a unit as text."""
        names = self._names(source)
        with decompressed(source) if unit.start is None else opened_range(source, unit) as stream:
            for batch in self._read(source, stream, names, on_bad, is_first=not unit.start):
                yield batch.select(schema.names)

    def _names(self, source: SourceFile) -> list[str]:
        at = source.url, source.etag
        if at not in self._known_names:
            self._known_names[at] = self._read_names(source)
        return self._known_names[at]

    def _read_names(self, source: SourceFile) -> list[str]:
        """Read the header, made good for column names; or count the fields of the first row."""
        import pyarrow as pa
        from pyarrow import csv

        head = sample_of(source, 1 << 20)
        read, parse = self._options(source)
        read.autogenerate_column_names = True
        parse.invalid_row_handler = lambda _row: "skip"  # only the first row matters here
        try:
            with csv.open_csv(head, read_options=read, parse_options=parse, convert_options=_no_types()) as reader:
                first = next(iter(reader), None)
        except (pa.ArrowInvalid, StopIteration) as error:
            if "Empty CSV" in str(error):
                return []
            raise SourceUnreadable(source.url, " ".join(str(error).split())) from error
        if first is None or first.num_rows == 0:
            return []
        if not self._config.csv.header:
            return list(first.schema.names)
        header = first.slice(0, 1).to_pylist()[0].values()
        return safe_identifiers((value or b"").decode("utf-8", "replace") for value in header)

    def _lines_before(self, source: SourceFile) -> int:
        """Count the lines to skip, and the empty ones behind them: the parser would take one for the header."""
        at, given = (source.url, source.etag), self._config.csv
        if at not in self._known_lines:
            lines = sample_of(source, 1 << 16).getvalue().removeprefix(BOM).splitlines()[given.skip_rows :]
            empty = sum(1 for _ in takewhile(lambda line: not line, lines)) if given.header else 0
            self._known_lines[at] = given.skip_rows + empty
        return self._known_lines[at]

    def _options(self, source: SourceFile, *, is_first: bool = True) -> tuple[Any, Any]:
        from pyarrow import csv

        given = self._config.csv
        skip = self._lines_before(source) if is_first else 0
        read = csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding=given.encoding, skip_rows=skip)
        parse = csv.ParseOptions(
            delimiter=given.delimiter,
            quote_char=given.quote,
            escape_char=given.escape or False,
            newlines_in_values=True,
        )
        return read, parse

    def _read(
        self, source: SourceFile, stream: Any, names: list[str], on_bad: OnBadRow, *, is_first: bool = True
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv

        read, parse = self._options(source, is_first=is_first)
        read.column_names = names
        read.skip_rows_after_names = int(self._config.csv.header and is_first)
        counted = Counted(first=read.skip_rows + read.skip_rows_after_names + 1)
        stopped: list[LoadError] = []
        parse.invalid_row_handler = lambda row: _set_aside(row, counted, on_bad, stopped)
        convert = csv.ConvertOptions(
            column_types={name: pa.binary() for name in names},  # a bad character is found later, by row
            null_values=list(self._config.nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        try:
            with csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert) as reader:
                for batch in reader:
                    yield pa.RecordBatch.from_arrays([each.view(pa.string()) for each in batch.columns], names=names)
        except pa.ArrowInvalid as error:
            if stopped:
                raise stopped[0] from None
            if "Empty CSV" not in str(error):
                raise SourceUnreadable(source.url, " ".join(str(error).split())) from error


def _set_aside(row: Any, counted: Counted, on_bad: OnBadRow, stopped: list[LoadError]) -> str:
    """Answer the parser ``skip``, or ``error`` when there are too many; its callback may raise nothing."""
    at = counted.next_bad() if row.number is None else row.number - counted.first
    reason = f"{row.actual_columns} fields where {row.expected_columns} are expected"
    try:
        on_bad(BadRow(row=at, reason=reason, text=row.text))
    except LoadError as error:
        stopped.append(error)
        return "error"
    return "skip"


def _field(name: str, column: pa.ChunkedArray) -> pa.Field:
    import pyarrow as pa

    try:
        column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # not all of it is UTF-8
        return pa.field(name, pa.string())
    return infer_text(name, column)


def _texts(names: list[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in names])


def _no_types() -> Any:
    import pyarrow as pa
    from pyarrow import csv

    return csv.ConvertOptions(column_types={f"f{at}": pa.binary() for at in range(2_000)}, strings_can_be_null=False)
