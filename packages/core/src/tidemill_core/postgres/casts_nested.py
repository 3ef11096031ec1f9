"""Lists to arrays; structs, maps and nested lists to JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kind

from tidemill_core.postgres._caster import Caster, checked_text, is_bytes, is_text, refuse

if TYPE_CHECKING:
    from tidemill_core.postgres.policy import Policy
    from tidemill_core.postgres.types import ColumnType

_DIRECT = frozenset({"int2", "int4", "int8", "float4", "float8", "bool", "text", "bytea"})
"""Element types whose OID the fast encoder writes right by itself."""


def to_array(column: pa.Array, target: ColumnType, policy: Policy, cast_to: Caster) -> pa.Array:
    """Cast lists of scalars to an array of the target's element type, each element by `cast_to`.

    Raises:
        ValueError: An element has no exact form; the whole list is refused.
    """
    element = target.element
    if element is None or not is_list(column.type):
        raise refuse(column, target)
    if is_list(column.type.value_type):
        raise refuse(column, target, "nested lists load as jsonb")
    column = _compact(column)
    values = cast_to(column.values, element, policy)
    if element.base in _DIRECT and not kind.is_null(column.type.value_type):
        return pa.LargeListArray.from_arrays(column.offsets, values, mask=column.is_null())
    return _array_bytes(column, values, element)


def _array_bytes(column: pa.Array, values: pa.Array, element: ColumnType) -> pa.Array:
    from tidemill_core.postgres.wire import array_wire, wire_values

    wires, ends = wire_values(values), column.offsets.to_pylist()
    rows = [
        None if missing else array_wire(wires[ends[at] : ends[at + 1]], element.oid)
        for at, missing in enumerate(column.is_null().to_pylist())
    ]
    return pa.array(rows, pa.binary())


def is_list(type_: pa.DataType) -> bool:
    """Tell whether an Arrow type is a list of any layout."""
    tests = (kind.is_list, kind.is_large_list, kind.is_fixed_size_list, kind.is_list_view, kind.is_large_list_view)
    return any(test(type_) for test in tests)


def _compact(column: pa.Array) -> pa.Array:
    """Rewrite a list column as large lists whose offsets start at 0 and hide no values."""
    field = column.type.value_field
    if not kind.is_large_list(column.type):
        column = column.cast(pa.large_list(field))
    if column.offset or len(column.values) != len(pc.list_flatten(column)):
        column = column.take(pa.array(range(len(column)), pa.int64()))
    return column


def json_column(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Write values as JSON text (bytes); text is taken to be JSON already."""
    from tidemill_core.postgres.jsonable import json_texts

    if is_text(column.type):
        return checked_text(column, target, policy)
    if is_bytes(column.type):
        raise refuse(column, target)
    return pa.array(json_texts(column), pa.large_binary())


def to_json(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Write a json column: its text."""
    return json_column(column, target, policy).cast(pa.large_string())


def to_jsonb(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Write a jsonb column: version byte 1 and the text (jsonb_recv)."""
    text = json_column(column, target, policy).cast(pa.large_binary())
    return pc.binary_join_element_wise(pa.scalar(b"\x01", pa.large_binary()), text, pa.scalar(b"", pa.large_binary()))


JSON_CASTS: dict[str, Caster] = {"json": to_json, "jsonb": to_jsonb}
