"""JSON: one object a line, or one array of objects; values become text and meet their column's type later."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill_core.postgres.identifiers import safe_identifiers

from tidemill_loader.errors import SourceUnreadable
from tidemill_loader.formats._array import elements
from tidemill_loader.formats._base import BadRow, OnBadRow, Unit
from tidemill_loader.formats._ranges import BOM, is_cut, line_borders, opened_range, units_of
from tidemill_loader.formats._text import decompressed
from tidemill_loader.infer import SQL, infer_text

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.sources import SourceFile

_LONG_NUMBER = re.compile(rb"[0-9][0-9.]{15}|[0-9][eE]")
_CHUNK = 1 << 20
_SAMPLE_ROWS = 50_000


class JsonFormat:
    """Reads JSON, plain or compressed; a long plain file of lines is cut into ranges, an array is one unit."""

    suffixes: ClassVar[tuple[str, ...]] = (".json", ".jsonl", ".ndjson")

    def __init__(self, config: LoadConfig) -> None:
        self._config = config

    def schema(self, source: SourceFile) -> pa.Schema:
        """Choose types from the first `sample_bytes`; objects and arrays become jsonb."""
        import pyarrow as pa

        values: dict[str, list[Any]] = {}
        taken = 0
        for record, size in islice(self._records(source, lambda _: None), _SAMPLE_ROWS):
            for name, value in record.items():
                values.setdefault(name, []).append(value)
            taken += size
            if taken >= self._config.sample_bytes:
                break
        names = safe_identifiers(values)
        if names != list(values):
            raise SourceUnreadable(source.url, "a field's name is empty, too long, or holds a NUL")
        return pa.schema([_field(name, found) for name, found in values.items()])

    def units(self, source: SourceFile) -> list[Unit]:
        """Byte ranges of a long file of lines, one unit for another, none for a file without a byte."""
        given = self._config
        if not is_cut(source, given.split, given.split_bytes, costs_a_scan=False) or _is_array(source):
            return units_of(source, ())
        return units_of(source, line_borders(source, given.split_bytes))

    def batches(self, source: SourceFile, unit: Unit, schema: pa.Schema, on_bad: OnBadRow) -> Iterator[pa.RecordBatch]:
        """Read all objects; one with a field that is in no plan is set aside, never cut."""
        known = set(schema.names) | {name for name, each in self._config.columns.items() if each.skip}
        rows = (record for record, _ in self._records(source, on_bad, known, unit))
        while chunk := list(islice(rows, self._config.batch_rows)):
            yield _batch(chunk, schema.names)

    def _records(
        self, source: SourceFile, on_bad: OnBadRow, known: set[str] | None = None, unit: Unit | None = None
    ) -> Iterator[tuple[dict[str, Any], int]]:
        is_range = unit is not None and unit.start is not None
        with opened_range(source, unit) if unit and is_range else decompressed(source) as stream:
            for row, text in enumerate(_texts(source, stream, may_be_array=not (unit and unit.start))):
                try:
                    record = parse(text)
                except (ValueError, RecursionError) as error:
                    on_bad(BadRow(row=row, reason=f"not JSON: {error}", text=_shown(text)))
                    continue
                reason = _fault(record, known)
                if reason:
                    on_bad(BadRow(row=row, reason=reason, text=_shown(text)))
                else:
                    yield record, len(text)


def parse(text: bytes) -> Any:
    """Parse one JSON text; numbers that a double does not hold keep their digits."""
    import orjson

    if _LONG_NUMBER.search(text):
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    return orjson.loads(text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _fault(record: Any, known: set[str] | None) -> str | None:
    if not isinstance(record, dict):
        return "not a JSON object"
    unknown = record.keys() - known if known is not None else set()
    if unknown:
        name = min(unknown)
        return f"field {name!r} was not in the sample that chose the columns; raise `sample_bytes` or skip it"
    return None


def _is_array(source: SourceFile) -> bool:
    """Tell whether a file is one array, by its first character."""
    with decompressed(source) as stream:
        first, _ = _first_text(stream)
    return first.startswith(b"[")


def _first_text(stream: Any) -> tuple[bytes, Iterator[bytes]]:
    """Answer the first part of a text from its first character on, without a byte order mark, and the parts behind."""
    parts = iter(lambda: bytes(stream.read(_CHUNK)), b"")
    first = next(parts, b"").removeprefix(BOM).lstrip()
    while not first and (part := next(parts, b"")):
        first = part.lstrip()
    return first, parts


def _texts(source: SourceFile, stream: Any, *, may_be_array: bool) -> Iterator[bytes]:
    """Yield the text of each line, or of each element of an array."""
    first, parts = _first_text(stream)
    if may_be_array and first.startswith(b"["):
        try:
            yield from elements(chain((first,), parts))
        except (ValueError, RecursionError) as error:
            raise SourceUnreadable(source.url, f"not JSON: {error}") from error
        return
    yield from (line for line in _lines(chain((first,), parts)) if line.strip())


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    for part in parts:
        *whole, rest = part.split(b"\n")
        if whole:
            yield b"".join([*begun, whole[0]])
            yield from whole[1:]
            begun = []
        begun.append(rest)
    if last := b"".join(begun):
        yield last


def _field(name: str, values: list[Any]) -> pa.Field:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds & {dict, list}:
        return pa.field(name, pa.json_(), metadata={SQL: b"jsonb"})
    if str in kinds:
        return pa.field(name, pa.string())
    if bool in kinds and len(kinds) > 1:
        return pa.field(name, pa.string())
    return infer_text(name, pa.array([as_text(value) for value in values], pa.string()))


def as_text(value: Any) -> str | None:
    """Spell a JSON value: a string as it is, a number by its digits, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return str(value) if isinstance(value, Decimal) else _dumped(value)


def _dumped(value: Any) -> str:
    import orjson

    def plain(each: Any) -> Any:
        return orjson.Fragment(str(each)) if isinstance(each, Decimal) else str(each)

    try:
        return orjson.dumps(value, default=plain).decode()
    except TypeError:  # an integer over 64 bits
        return json.dumps(value, default=str, ensure_ascii=False)


def _batch(records: list[dict[str, Any]], names: list[str]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [pa.array([as_text(record.get(name)) for record in records], pa.large_string()) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=names)
