"""What every materialization tells Dagster: rows, table, columns, bytes, seconds, under Dagster's own keys."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import dagster as dg

PACKAGE_TAG = "tidemill/package"
"""On every asset of a component: which package makes it."""
_NO_WORD = re.compile(r"\W", re.ASCII)
_MAKERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], dg.MetadataValue[Any]]], ...] = (
    (dg.TableSchema, dg.MetadataValue.table_schema),
    (bool, dg.MetadataValue.bool),
    (int, dg.MetadataValue.int),
    (float, dg.MetadataValue.float),
    (PurePath, lambda path: dg.MetadataValue.path(str(path))),
    (Mapping, lambda mapping: dg.MetadataValue.json(dict(mapping))),
    ((list, tuple), lambda values: dg.MetadataValue.json(list(values))),
)

Columns = Any
"""A pyarrow schema, a polars schema, ``[(name, type), ...]`` or ``[(name, type, is_nullable), ...]``."""


def layer(key: dg.AssetKey) -> str | None:
    """Name the group of an asset: the layer of its data, which its key begins with; None for a key of one part."""
    return _NO_WORD.sub("_", key.path[0]) if len(key.path) > 1 else None


def materialization(
    *,
    rows: int | None = None,
    table: str | None = None,
    schema: Columns | None = None,
    bytes: int | None = None,  # noqa: A002  # the metadata key of that name
    seconds: float | None = None,
    partition_rows: int | None = None,
    did_work: bool | None = None,
    **facts: Any,
) -> dict[str, dg.MetadataValue[Any]]:
    """Build the metadata of a materialization.

    Args:
        rows: Rows of the whole asset (``dagster/row_count``).
        table: ``database.schema.table`` (``dagster/table_name``).
        schema: Columns (``dagster/column_schema``).
        bytes: Bytes written.
        seconds: Time it took.
        partition_rows: Rows of this partition (``dagster/partition_row_count``).
        did_work: False when everything was there already and nothing was written.
        facts: Anything else; None is left out, mappings and lists become JSON.
    """
    values: dict[str, Any] = {
        "dagster/row_count": rows,
        "dagster/partition_row_count": partition_rows,
        "dagster/table_name": table,
        "dagster/column_schema": None if schema is None else column_schema(schema),
        "bytes": bytes,
        "seconds": None if seconds is None else round(seconds, 3),
        "did_work": did_work,
        **facts,
    }
    return {name: _value(value) for name, value in values.items() if value is not None}


def column_schema(schema: Columns) -> dg.TableSchema:
    """Describe columns for Dagster's UI; a column that cannot be null says so."""
    return dg.TableSchema(columns=[_column(*column) for column in _columns(schema)])


def _columns(schema: Columns) -> Iterable[tuple[str, str, bool]]:
    if isinstance(schema, Mapping):
        return [(name, str(kind), True) for name, kind in schema.items()]
    if hasattr(schema, "names") and hasattr(schema, "field"):
        return [(field.name, str(field.type), field.nullable) for field in schema]
    return [(name, str(kind), all(rest)) for name, kind, *rest in schema]


def _column(name: str, kind: str, is_nullable: bool) -> dg.TableColumn:  # noqa: FBT001
    constraints = None if is_nullable else dg.TableColumnConstraints(nullable=False)
    return dg.TableColumn(name=name, type=kind, constraints=constraints)


def _value(value: Any) -> dg.MetadataValue[Any]:
    if isinstance(value, dg.MetadataValue):
        return value
    for kind, make in _MAKERS:
        if isinstance(value, kind):
            return make(value)
    text = str(value)
    is_link = text.startswith(("http://", "https://")) and " " not in text
    return dg.MetadataValue.url(text) if is_link else dg.MetadataValue.text(text)
