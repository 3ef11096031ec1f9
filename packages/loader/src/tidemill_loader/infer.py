"""Choose column types: from text by its spelling, and for many files the one type that holds them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tidemill_core.postgres.ddl import sql_type

from tidemill_loader.errors import SchemaConflict

if TYPE_CHECKING:
    import pyarrow as pa

SQL = b"tidemill.sql"
"""Field metadata: the PostgreSQL type, where Arrow has none that says it."""
DOUBLE_DIGITS = 15
"""Decimal digits that a double always gives back."""

_INTEGER = r"^[+-]?(0|[1-9][0-9]{0,17})$"
_DECIMAL = r"^[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_FLOAT = r"^([+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|[nN]a[nN]|[+-]?inf)$"
_BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_LOCAL, _INSTANT = f"^{_TIME}$", f"^{_TIME}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$"


def infer_text(name: str, column: pa.ChunkedArray | pa.Array) -> pa.Field:
    """Choose a type for text values: the narrowest that gives every one back.

    Integers become bigint, decimals double precision where a double prints them again and
    numeric otherwise; a leading zero (a postcode, a code) makes a column text.

    Returns:
        A nullable field; text for a column of nothing but nulls, with Arrow type null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.unique(column.drop_null()) if len(column) else column
    if len(values) == 0:
        return pa.field(name, pa.null())
    tests = (
        (_BOOLEAN, pa.bool_()),
        (_INTEGER, pa.int64()),
        (_DATE, pa.date32()),
        (_LOCAL, pa.timestamp("us")),
        (_INSTANT, pa.timestamp("us", "UTC")),
    )
    for pattern, type_ in tests:
        if _all_match(values, pattern) and _casts(values, type_):
            return pa.field(name, type_)
    if _all_match(values, _DECIMAL):
        return pa.field(name, pa.float64()) if _doubles_hold(values) else numeric(name)
    if _all_match(values, _FLOAT):
        return pa.field(name, pa.float64())
    return pa.field(name, pa.string())


def _doubles_hold(values: Any) -> bool:
    """Tell whether every decimal is what its nearest double prints."""
    import pyarrow.compute as pc

    digits = pc.utf8_length(pc.replace_substring_regex(values, r"^[+-]?0*|\.", ""))
    long = values.filter(pc.greater(digits, DOUBLE_DIGITS)).to_pylist()
    return all(Decimal(repr(float(text))) == Decimal(text) for text in long)


def numeric(name: str) -> pa.Field:
    """A field of numbers of any size."""
    import pyarrow as pa

    return pa.field(name, pa.decimal256(76, 0), metadata={SQL: b"numeric"})


def _all_match(values: Any, pattern: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _casts(values: Any, type_: pa.DataType) -> bool:
    import pyarrow as pa

    try:
        values.cast(type_)
    except pa.ArrowInvalid:
        return False
    return True


def field_sql(field: pa.Field) -> str:
    """Name the PostgreSQL type of a field."""
    given = (field.metadata or {}).get(SQL)
    return given.decode() if given else sql_type(field.type)


def union(schemas: Iterable[tuple[str, pa.Schema]], *, given: Collection[str] = ()) -> pa.Schema:
    """Find the columns that hold every file's rows: by name, each wide enough for all.

    Args:
        schemas: File names (for messages) and their columns.
        given: Columns whose type is given by the user: there any types go together.

    Returns:
        Columns in order of first appearance; a column that a file lacks is nullable.

    Raises:
        SchemaConflict: Two files' types have no common one.
    """
    import pyarrow as pa

    merged: dict[str, pa.Field] = {}
    first_file: dict[str, str] = {}
    counts: dict[str, int] = {}
    files = 0
    for file, schema in schemas:
        files += 1
        for field in schema:
            counts[field.name] = counts.get(field.name, 0) + 1
            have = merged.get(field.name)
            if have is not None and field.name in given:
                merged[field.name] = have.with_nullable(have.nullable or field.nullable)
            else:
                merged[field.name] = field if have is None else _wider(have, field, (first_file[field.name], file))
            first_file.setdefault(field.name, file)
    return pa.schema([field.with_nullable(field.nullable or counts[name] < files) for name, field in merged.items()])


def _wider(one: pa.Field, other: pa.Field, files: Sequence[str]) -> pa.Field:
    import pyarrow as pa

    nullable = one.nullable or other.nullable
    if one.type == other.type:
        named = one if SQL in (one.metadata or {}) else other
        return named.with_nullable(nullable)
    if pa.types.is_null(one.type) or pa.types.is_null(other.type):
        return (other if pa.types.is_null(one.type) else one).with_nullable(nullable)
    if SQL in (one.metadata or {}) or SQL in (other.metadata or {}):
        found = _wider_named(one, other)
    else:
        type_ = _wider_type(_plain(one.type), _plain(other.type))
        found = None if type_ is None else pa.field(one.name, type_)
    if found is None:
        reason = f"{one.type} in {files[0]}, {other.type} in {files[1]}; choose one by `columns: {{{one.name}: text}}`"
        raise SchemaConflict(one.name, reason)
    return found.with_nullable(nullable)


def _plain(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _wider_named(one: pa.Field, other: pa.Field) -> pa.Field | None:
    import pyarrow as pa

    kinds = {field_sql(one), field_sql(other)}
    if kinds <= {"numeric", "bigint", "double precision"}:
        return numeric(one.name)
    return pa.field(one.name, pa.string()) if pa.string() in (one.type, other.type) else None


def _wider_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:  # noqa: PLR0911 - a table in code
    import pyarrow as pa

    text = (pa.string(), pa.large_string(), pa.string_view())
    if one in text and other in text:
        return pa.string()
    if one in text or other in text:
        return pa.string() if _is_spelled(one, text) and _is_spelled(other, text) else None
    if pa.types.is_date(one) and pa.types.is_timestamp(other) and other.tz is None:
        return other
    if pa.types.is_date(other) and pa.types.is_timestamp(one) and one.tz is None:
        return one
    if pa.types.is_boolean(one) or pa.types.is_boolean(other):
        return None
    try:
        schemas = [pa.schema([("c", each)]) for each in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _is_spelled(type_: pa.DataType, text: tuple[Any, ...]) -> bool:
    """Tell whether every value of the type has one plain spelling as text."""
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp)
    return type_ in text or any(kind(type_) for kind in kinds)
