"""Values in PostgreSQL's binary wire format, for the types the fast encoder does not know.

The fast encoder writes a binary Arrow column as it stands, so a column of wire
values may be of any type. Formats: the ``*_recv`` functions of PostgreSQL's sources.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NAN, PLUS_INFINITY, MINUS_INFINITY, NEGATIVE = 0xC000, 0xD000, 0xF000, 0x4000
_SPECIAL = {"NaN": NAN, "Infinity": PLUS_INFINITY, "-Infinity": MINUS_INFINITY}
_MAX_DIGITS_BEFORE, _MAX_DIGITS_AFTER = 131_072, 16_383
_STRUCTS = {"int16": ">h", "int32": ">i", "int64": ">q", "float": ">f", "double": ">d", "bool": ">?"}


def numeric_wire(value: Decimal) -> bytes:
    """Write one decimal exactly, NaN and infinities too (numeric_recv).

    Raises:
        ValueError: It has more digits than a PostgreSQL numeric holds.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        special = "NaN" if value.is_nan() else str(value)
        return struct.pack(">hhHh", 0, 0, _SPECIAL[special], 0)
    if max(0, len(digits) + exponent) > _MAX_DIGITS_BEFORE or -exponent > _MAX_DIGITS_AFTER:
        raise ValueError(f"a number with exponent {exponent} is outside PostgreSQL's numeric")
    places = max(0, -exponent)
    text = "".join(map(str, digits)) + "0" * max(0, exponent)
    whole, fraction = (text[:-places].rjust(1, "0"), text[-places:].rjust(places, "0")) if places else (text, "")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole) + len(fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    weight = weight if groups else 0
    flag = NEGATIVE if sign and groups else 0
    # numeric_recv reads the count as uint16: the longest numbers have more than 32,767 groups.
    return struct.pack(f">HhHh{len(groups)}h", len(groups), weight, flag, places, *groups)


def interval_wire(months: int, days: int, microseconds: int) -> bytes:
    """Write one interval (interval_recv)."""
    return struct.pack(">qii", microseconds, days, months)


def array_wire(elements: Sequence[bytes | None], oid: int) -> bytes:
    """Write one array of one dimension (array_recv); `oid` is the element type's."""
    if not elements:
        return struct.pack(">iiI", 0, 0, oid)
    head = struct.pack(">iiIii", 1, int(None in elements), oid, len(elements), 1)
    parts = [b"\xff\xff\xff\xff" if each is None else struct.pack(">i", len(each)) + each for each in elements]
    return head + b"".join(parts)


def wire_values(column: pa.Array) -> list[bytes | None]:
    """Turn a column that the fast encoder could take into its wire values."""
    write = _writer(column.type)
    return [None if value is None else write(value) for value in _values(column)]


def _values(column: pa.Array) -> list[Any]:
    if str(column.type) == "duration[us]":
        import pyarrow as pa

        return column.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]


def _writer(type_: pa.DataType) -> Callable[[Any], bytes]:
    import pyarrow.types as kind

    name = str(type_)
    if name in _STRUCTS:
        return struct.Struct(_STRUCTS[name]).pack
    if kind.is_string(type_) or kind.is_large_string(type_):
        return str.encode
    if kind.is_decimal(type_):
        return numeric_wire
    if name == "duration[us]":
        return lambda microseconds: interval_wire(0, 0, microseconds)
    return bytes
