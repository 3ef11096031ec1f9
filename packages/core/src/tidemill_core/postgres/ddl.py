"""Choose PostgreSQL columns for an Arrow schema, and write the statement that makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill_core.errors import ConfigError
from tidemill_core.postgres.identifiers import TableName, quote

if TYPE_CHECKING:
    import pyarrow as pa

_TYPE = re.compile(
    r"[A-Za-z_][\w$]*(?:[ .][A-Za-z_][\w$]*)*(?:\(\d+(?:, ?-?\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
)
_SIMPLE = {
    "bool": "boolean",
    "int8": "smallint",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "uint8": "smallint",
    "uint16": "integer",
    "uint32": "bigint",
    "uint64": "numeric(20,0)",
    "halffloat": "real",
    "float": "real",
    "double": "double precision",
    "null": "text",
    "month_day_nano_interval": "interval",
}


def sql_type(type_: pa.DataType) -> str:  # noqa: PLR0911 - a table in code
    """Name the PostgreSQL type that holds every value of an Arrow type exactly.

    Lists of scalars become arrays; structs, maps and nested lists become jsonb; a
    column of nothing but nulls becomes text. Nanoseconds meet the writer's policy.
    """
    import pyarrow.types as kind

    if isinstance(type_, _extension()):
        known = {"arrow.uuid": "uuid", "arrow.json": "json"}.get(type_.extension_name)
        return known or sql_type(type_.storage_type)
    if str(type_) in _SIMPLE:
        return _SIMPLE[str(type_)]
    if kind.is_dictionary(type_) or kind.is_run_end_encoded(type_):
        return sql_type(type_.value_type)
    if kind.is_decimal(type_):
        return _numeric(type_.precision, type_.scale)
    if kind.is_list(type_) or kind.is_large_list(type_) or kind.is_fixed_size_list(type_) or kind.is_list_view(type_):
        inner = sql_type(type_.value_type)
        return "jsonb" if inner.endswith("[]") or inner in ("json", "jsonb") else f"{inner}[]"
    if kind.is_timestamp(type_):
        return "timestamptz" if type_.tz else "timestamp"
    return _plain(type_)


def _plain(type_: pa.DataType) -> str:
    import pyarrow.types as kind

    tests = (
        (("is_string", "is_large_string", "is_string_view"), "text"),
        (("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary"), "bytea"),
        (("is_date",), "date"),
        (("is_time",), "time"),
        (("is_duration",), "interval"),
        (("is_struct", "is_map", "is_nested"), "jsonb"),
    )
    for names, text in tests:
        if any(getattr(kind, name)(type_) for name in names):
            return text
    raise ConfigError(f"no PostgreSQL type is known for Arrow {type_}; choose one by a column override")


def _numeric(precision: int, scale: int) -> str:
    if scale < 0:
        return f"numeric({precision - scale},0)"
    return f"numeric({max(precision, scale)},{scale})"


def _extension() -> Any:
    import pyarrow as pa

    return pa.BaseExtensionType


def columns_for(schema: pa.Schema, types: Mapping[str, str] | None = None) -> dict[str, str]:
    """Choose a SQL type for every field of a schema.

    Args:
        schema: Field names become column names.
        types: Types by column that win over the chosen ones.

    Raises:
        ConfigError: A name cannot be a column, occurs twice, or an override is unknown or no type.
    """
    overrides = dict(types or {})
    columns: dict[str, str] = {}
    for field in schema:
        if field.name in columns:
            raise ConfigError(f"column {field.name!r} occurs twice; rename one")
        chosen = overrides.pop(field.name, None)
        columns[field.name] = check_type(chosen) if chosen else sql_type(field.type)
    if overrides:
        raise ConfigError(f"types are given for columns that are not there: {', '.join(sorted(overrides))}")
    return columns


def check_type(text: str) -> str:
    """Return a type of the user's if it is nothing but a type.

    Raises:
        ConfigError: It holds anything else.
    """
    if not _TYPE.fullmatch(text.strip()):
        raise ConfigError(f"{text!r} is no PostgreSQL type; write one such as numeric(18,2) or text[]")
    return text.strip()


def ddl_for(
    table: TableName | str,
    schema: pa.Schema,
    primary_key: Sequence[str] = (),
    *,
    types: Mapping[str, str] | None = None,
    if_not_exists: bool = False,
) -> str:
    """Write ``CREATE TABLE`` for an Arrow schema.

    Fields that are not nullable, and key columns, become ``NOT NULL``.

    Raises:
        ConfigError: A name or type cannot be used, or a key column is not in the schema.
    """
    columns = columns_for(schema, types)
    missing = [name for name in primary_key if name not in columns]
    if missing:
        raise ConfigError(f"key column {missing[0]!r} is not among the columns: {', '.join(columns)}")
    if not columns:
        raise ConfigError(f"table {table} would have no columns")
    lines = []
    for field in schema:
        required = field.name in primary_key or not field.nullable
        lines.append(f"    {quote(field.name)} {columns[field.name]}{' NOT NULL' if required else ''}")
    if primary_key:
        lines.append(f"    PRIMARY KEY ({', '.join(map(quote, primary_key))})")
    exists = "IF NOT EXISTS " if if_not_exists else ""
    return f"CREATE TABLE {exists}{TableName.parse(table).quoted} (\n" + ",\n".join(lines) + "\n)"
