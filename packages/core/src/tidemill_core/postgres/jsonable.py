"""Nested Arrow values as JSON text, exact: decimals keep their digits, NaN becomes a string as in to_json."""

from __future__ import annotations

import base64
import math
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def json_texts(column: pa.Array) -> list[bytes | None]:
    """Write every value of a column as JSON, nulls as None.

    Decimals become JSON numbers with all their digits, bytes base64 text, times and
    dates ISO 8601 text, durations ISO 8601 too, a map an object (keys as text).

    Raises:
        ValueError: A map has the same key twice.
    """
    import orjson

    return [None if value is None else orjson.dumps(_json(value, column.type)) for value in _pylist(column)]


def _pylist(column: pa.Array) -> list[Any]:

    plain = _without_nanoseconds(column.type)
    return (column if plain == column.type else column.cast(plain)).to_pylist()  # type: ignore[no-any-return]


def _without_nanoseconds(type_: pa.DataType) -> pa.DataType:  # noqa: PLR0911 - a table in code
    import pyarrow as pa
    import pyarrow.types as kind

    if kind.is_timestamp(type_) and type_.unit == "ns":
        return pa.timestamp("us", type_.tz)
    if kind.is_time64(type_):
        return pa.time64("us")
    if kind.is_duration(type_):
        return pa.duration("us")
    if kind.is_struct(type_):
        return pa.struct([field.with_type(_without_nanoseconds(field.type)) for field in type_])
    if kind.is_map(type_):
        return pa.map_(_without_nanoseconds(type_.key_type), _without_nanoseconds(type_.item_type))
    if kind.is_list(type_) or kind.is_fixed_size_list(type_):
        return pa.list_(type_.value_field.with_type(_without_nanoseconds(type_.value_type)))
    if kind.is_large_list(type_):
        return pa.large_list(type_.value_field.with_type(_without_nanoseconds(type_.value_type)))
    return _without_nanoseconds(type_.value_type) if kind.is_dictionary(type_) else type_


def _json(value: Any, type_: pa.DataType) -> Any:
    import pyarrow.types as kind

    if value is None:
        return None
    if kind.is_struct(type_):
        return {field.name: _json(value[field.name], field.type) for field in type_}
    if kind.is_map(type_):
        pairs = [(_key(key, type_.key_type), _json(item, type_.item_type)) for key, item in value]
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a map with the same key twice cannot become a JSON object")
        return dict(pairs)
    if isinstance(value, list):
        return [_json(each, type_.value_type) for each in value]
    return _scalar(value)


def _key(value: Any, type_: pa.DataType) -> str:
    plain = _json(value, type_)
    if isinstance(plain, str):
        return plain
    import orjson

    return orjson.dumps(plain).decode()


def _scalar(value: Any) -> Any:
    import orjson

    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        micros = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
        sign, whole, rest = "-" if micros < 0 else "", *divmod(abs(micros), 1_000_000)
        return f"{sign}PT{whole}" + (f".{rest:06d}" if rest else "") + "S"
    return value
