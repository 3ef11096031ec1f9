"""One cast per PostgreSQL type family, each to the Arrow type whose wire bytes are that type's."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kind

from tidemill_core.postgres._caster import Caster, check_size, checked_text, is_bytes, is_text, refuse
from tidemill_core.postgres.casts_nested import JSON_CASTS, json_column, to_array
from tidemill_core.postgres.casts_time import TIME_CASTS
from tidemill_core.postgres.errors import ColumnRefused

if TYPE_CHECKING:
    from tidemill_core.postgres.policy import Policy
    from tidemill_core.postgres.types import ColumnType

_INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "oid": pa.uint32()}
_FLOATS = {"float4": pa.float32(), "float8": pa.float64()}


def cast_to(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast `column` to the Arrow type that encodes as `target`.

    Raises:
        ColumnRefused: There is no such cast.
        pa.ArrowInvalid, ValueError: A value has none.
    """
    column = plain(column)
    if not target.nullable and column.null_count:
        raise ValueError("a null in a NOT NULL column")
    if kind.is_null(column.type):
        return pa.nulls(len(column), pa.string())  # a null has no bytes: any encoder writes it
    if target.element is not None:
        return to_array(column, target, policy, cast_to)
    caster = _CASTS.get(target.base) or TIME_CASTS.get(target.base) or JSON_CASTS.get(target.base)
    if target.kind == "e":
        caster = to_text
    if caster is None:
        raise ColumnRefused(target.name, f"no binary encoding for {target.type}; load it as text and cast in SQL")
    return caster(column, target, policy)


def plain(column: pa.Array) -> pa.Array:  # noqa: PLR0911 - one return per layout
    """Decode dictionaries, runs, views and extension types to their plain values."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        return plain(column.storage)
    if kind.is_dictionary(column.type):
        return plain(column.dictionary_decode())
    if kind.is_run_end_encoded(column.type):
        return plain(pc.run_end_decode(column))
    if kind.is_string_view(column.type):
        return column.cast(pa.large_string())
    if kind.is_binary_view(column.type):
        return column.cast(pa.large_binary())
    if kind.is_decimal32(column.type) or kind.is_decimal64(column.type):
        return column.cast(pa.decimal128(column.type.precision, column.type.scale))
    return column


def to_integer(column: pa.Array, target: ColumnType, _policy: Policy) -> pa.Array:
    """Cast whole numbers in range, and text that spells one."""
    type_ = column.type
    if not (kind.is_integer(type_) or kind.is_floating(type_) or kind.is_decimal(type_) or is_text(type_)):
        raise refuse(column, target)
    if kind.is_decimal256(type_):
        column = column.cast(pa.decimal128(38, 0))
    wanted = _INTEGERS[target.base]
    return column.cast(wanted) if type_ != wanted else column


def to_float(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast numbers that a float holds exactly, and text that spells one."""
    wanted, type_ = _FLOATS[target.base], column.type
    if type_ == wanted:
        return column
    if kind.is_integer(type_) or kind.is_float16(type_) or is_text(type_):
        return column.cast(wanted)
    if kind.is_float64(type_) or kind.is_float32(type_):
        return _narrowed(column, wanted, policy)
    if not kind.is_decimal(type_):
        raise refuse(column, target)
    made = column.cast(wanted)
    if policy.digits == "error":
        back = made.cast(pa.float64()).cast(type_, safe=False)
        _require(pc.equal(back, column), f"the decimal has more digits than {target.type} keeps")
    return made


def _narrowed(column: pa.Array, wanted: pa.DataType, policy: Policy) -> pa.Array:
    made = column.cast(wanted)
    overflow = pc.and_(pc.is_inf(made), pc.invert(pc.is_inf(column)))
    _require(pc.invert(overflow), "the number is too large for real")
    if policy.digits == "error":
        same = pc.or_(pc.equal(made.cast(column.type), column), pc.is_nan(column))
        _require(same, "the double has more digits than real keeps")
    return made


def _require(holds: pa.Array, reason: str) -> None:
    if pc.all(holds, min_count=0).as_py() is False:
        raise ValueError(reason)


def to_numeric(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast every number exactly; NaN and infinities are kept."""
    type_ = column.type
    if kind.is_integer(type_):
        column = column if kind.is_uint64(type_) and target.scale is None else column.cast(pa.decimal128(20, 0))
    elif kind.is_decimal256(type_):
        if not _fits_128(column):
            return _numeric_bytes(column, target, policy)
        column = column.cast(pa.decimal128(38, type_.scale))
    elif kind.is_floating(type_) or is_text(type_):
        return _numeric_bytes(column, target, policy)
    elif not kind.is_decimal128(type_):
        raise refuse(column, target)
    return column if target.scale is None else _fitted(column, target, policy)


def _fits_128(column: pa.Array) -> bool:
    try:
        column.cast(pa.decimal128(38, column.type.scale))
    except pa.ArrowInvalid:
        return False
    return True


def _fitted(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    precision, scale = target.precision or 0, target.scale or 0
    have = column.type
    if have.scale <= scale and have.precision - have.scale <= precision - scale:
        return column  # every value of the source type fits
    if precision > 38 or scale < 0 or scale > precision:  # noqa: PLR2004 - decimal128's digits
        return _numeric_bytes(column, target, policy)
    if have.scale > scale and policy.digits == "round":
        column = pc.round(column, ndigits=scale, round_mode="half_towards_infinity")
    try:
        return column.cast(pa.decimal128(precision, scale))
    except pa.ArrowInvalid as error:
        raise ValueError(f"the number does not fit {target.type} exactly: {error}") from error


def _numeric_bytes(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    from tidemill_core.postgres.wire import numeric_wire

    fit = _decimal_fit(target, policy)
    if kind.is_floating(column.type):
        texts = [None if value is None else repr(value) for value in column.cast(pa.float64()).to_pylist()]
        values = [None if text is None else Decimal(text) for text in texts]
    elif is_text(column.type):
        values = [None if text is None else Decimal(text.strip()) for text in column.to_pylist()]
    else:
        values = column.to_pylist()
    return pa.array([None if value is None else numeric_wire(fit(value)) for value in values], pa.binary())


def _decimal_fit(target: ColumnType, policy: Policy) -> Callable[[Decimal], Decimal]:

    exact = Context(prec=2000)

    def fit(value: Decimal) -> Decimal:
        if target.scale is None or target.precision is None or value.is_nan():
            return value
        if value.is_infinite():
            raise ValueError(f"an infinity does not fit {target.type}")
        made = value.quantize(Decimal(1).scaleb(-target.scale), rounding=ROUND_HALF_UP, context=exact)
        if made != value and policy.digits == "error":
            raise ValueError(f"{value} has more digits than {target.type} keeps")
        if made.copy_abs() >= Decimal(1).scaleb(target.precision - target.scale):  # abs() rounds to 28 digits
            raise ValueError(f"{value} is too large for {target.type}")
        return made if target.scale >= 0 else made.quantize(Decimal(1), context=exact)

    return fit


def to_boolean(column: pa.Array, target: ColumnType, _policy: Policy) -> pa.Array:
    """Pass booleans, and text that spells one."""
    if not kind.is_boolean(column.type) and not is_text(column.type):
        raise refuse(column, target)
    return column.cast(pa.bool_())


def to_text(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Write values as text: checked for UTF-8, NUL and length."""
    type_ = column.type
    if kind.is_nested(type_):
        column = json_column(column, target, policy).cast(pa.large_string())
    elif is_bytes(type_):
        column = column.cast(pa.large_binary()).cast(pa.large_string())
    elif not is_text(type_):
        if kind.is_duration(type_) or kind.is_interval(type_):
            raise refuse(column, target, "use an interval column")
        column = column.cast(pa.string())
    return checked_text(column, target, policy)


def to_bytea(column: pa.Array, target: ColumnType, _policy: Policy) -> pa.Array:
    """Pass bytes; text is refused, for its encoding would be a guess."""
    if not is_bytes(column.type):
        raise refuse(column, target)
    check_size(column)
    return column


def to_uuid(column: pa.Array, target: ColumnType, _policy: Policy) -> pa.Array:
    """Cast sixteen bytes, or text that spells a UUID."""
    from uuid import UUID

    if is_text(column.type):
        values = [None if text is None else UUID(text).bytes for text in column.to_pylist()]
        return pa.array(values, pa.binary(16))
    if not is_bytes(column.type):
        raise refuse(column, target)
    return column.cast(pa.binary(16)) if column.type != pa.binary(16) else column


_CASTS: dict[str, Caster] = {
    **dict.fromkeys(("int2", "int4", "int8"), to_integer),
    **dict.fromkeys(_FLOATS, to_float),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "citext", "xml"), to_text),
    "numeric": to_numeric,
    "bool": to_boolean,
    "bytea": to_bytea,
    "uuid": to_uuid,
}
