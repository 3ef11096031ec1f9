"""Dates, times, instants and intervals, to the integers PostgreSQL stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kind

from tidemill_core.postgres._caster import Caster, is_text, refuse

if TYPE_CHECKING:
    from tidemill_core.postgres.policy import Policy
    from tidemill_core.postgres.types import ColumnType

EPOCH_DAYS, EPOCH_US = 10_957, 946_684_800_000_000
"""PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01."""
_DAY_MS, _DAY_US, _NS = 86_400_000, 86_400_000_000, 1_000
_FIRST_DAY, _LAST_DAY = -2_451_545 + EPOCH_DAYS, 2_145_031_948 + EPOCH_DAYS  # 4714-11-24 BC, 5874897-12-31
_FIRST_US = -210_866_803_200_000_000 + EPOCH_US
_INT64_MAX = 2**63 - 1


def to_date(column: pa.Array, target: ColumnType, _policy: Policy) -> pa.Array:
    """Cast dates, whole-day instants and ISO text to days."""
    type_ = column.type
    if kind.is_date64(type_):
        millis = column.cast(pa.int64())
        days = _floor_divide(millis, _DAY_MS)
        if pc.all(pc.equal(pc.multiply(days, _DAY_MS), millis), min_count=0).as_py() is False:
            raise ValueError("the date64 is not a whole day")
        days = days.cast(pa.int32())
    elif kind.is_timestamp(type_) and type_.tz is None:
        day = column.cast(pa.date32(), safe=False)
        if pc.all(pc.equal(day.cast(type_), column), min_count=0).as_py() is False:
            raise ValueError("the instant is not a whole day")
        days = day.cast(pa.int32())
    elif kind.is_date32(type_) or is_text(type_):
        days = column.cast(pa.date32()).cast(pa.int32())
    else:
        raise refuse(column, target)
    _in_range(days, _FIRST_DAY, _LAST_DAY, "the date is outside 4714 BC to 5874897")
    return pc.subtract_checked(days, pa.scalar(EPOCH_DAYS, pa.int32()))


def to_time(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast times of day, and ISO text that spells one, to microseconds."""
    type_ = column.type
    if not kind.is_time(type_) and not is_text(type_):
        raise refuse(column, target)
    if is_text(type_):
        if pc.all(pc.match_substring_regex(column, r"^\d\d:\d\d(:|$)"), min_count=0).as_py() is False:
            raise ValueError("the text is no time of day (hh:mm or hh:mm:ss)")
        # Arrow reads instants from text, but no times: put a day before them.
        instants = pc.binary_join_element_wise(pa.scalar("1970-01-01", type_), column, pa.scalar("T", type_))
        micros = whole_microseconds(instants.cast(pa.timestamp("ns")).cast(pa.int64()), policy)
    elif kind.is_time64(type_) and type_.unit == "ns":
        micros = whole_microseconds(column.cast(pa.int64()), policy)
    else:
        micros = column.cast(pa.time64("us")).cast(pa.int64())
    _in_range(micros, 0, _DAY_US - 1, "the time is not before 24:00:00")
    return _limited_digits(micros, target, policy)


def to_timestamp(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast instants of the right kind (with or without zone) to microseconds since 2000."""
    column = _zoned(column, target, policy)
    type_ = column.type
    if type_.unit == "ns":
        micros = whole_microseconds(column.cast(pa.int64()), policy)
    else:
        micros = column.cast(pa.timestamp("us", type_.tz)).cast(pa.int64())
    _in_range(micros, _FIRST_US, _INT64_MAX - 1, "the instant is outside PostgreSQL's range (4714 BC to 294276)")
    return _limited_digits(pc.subtract_checked(micros, EPOCH_US), target, policy)


def _zoned(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Make the column have a zone exactly if the target has one."""
    wants = target.base == "timestamptz"
    if is_text(column.type):
        return _from_text(column, wants=wants, policy=policy)
    if kind.is_date(column.type) and not wants:
        return column.cast(pa.timestamp("s" if kind.is_date32(column.type) else "ms"))
    if not kind.is_timestamp(column.type):
        raise refuse(column, target)
    if (column.type.tz is not None) == wants:
        return column
    if policy.timezone is None:
        raise refuse(column, target, "say in which time zone local times are (`timezone`)")
    if wants:
        return pc.assume_timezone(column, policy.timezone)
    there = column.cast(pa.timestamp(column.type.unit, policy.timezone))
    return pc.local_timestamp(there)


def _from_text(column: pa.Array, *, wants: bool, policy: Policy) -> pa.Array:
    if not wants:
        return column.cast(pa.timestamp("ns" if policy.nanoseconds != "error" else "us"))
    try:
        return column.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        if policy.timezone is None:
            raise
        return pc.assume_timezone(column.cast(pa.timestamp("us")), policy.timezone)


def to_interval(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Cast durations to microseconds, calendar intervals to their three parts."""
    from tidemill_core.postgres.wire import interval_wire

    type_ = column.type
    if kind.is_interval(type_):
        parts = column.to_pylist()
        nanos = pa.array([None if each is None else each[2] for each in parts], pa.int64())
        micros = whole_microseconds(nanos, policy).to_pylist()
        rows = [None if p is None else interval_wire(p[0], p[1], us) for p, us in zip(parts, micros, strict=True)]
        return pa.array(rows, pa.binary())
    if not kind.is_duration(type_):
        raise refuse(column, target)
    if type_.unit == "ns":
        return whole_microseconds(column.cast(pa.int64()), policy).cast(pa.duration("us"))
    return column.cast(pa.duration("us"))


def whole_microseconds(nanos: pa.Array, policy: Policy) -> pa.Array:
    """Divide nanoseconds by a thousand: exactly, or as the policy says.

    Raises:
        ValueError: A value is no whole microsecond and the policy is ``error``.
    """
    micros = _floor_divide(nanos, _NS)
    rest = pc.subtract(nanos, pc.multiply(micros, _NS))
    if policy.nanoseconds == "error":
        if pc.all(pc.equal(rest, 0), min_count=0).as_py() is False:
            raise ValueError("the value has nanoseconds, PostgreSQL keeps microseconds (see `nanoseconds`)")
        return micros
    if policy.nanoseconds == "round":
        return pc.add(micros, pc.greater_equal(rest, _NS // 2).cast(pa.int64()))
    return micros


def _floor_divide(values: pa.Array, by: int) -> pa.Array:
    quotient = pc.divide(values, pa.scalar(by, values.type))
    rest = pc.subtract(values, pc.multiply(quotient, pa.scalar(by, values.type)))
    return pc.subtract(quotient, pc.less(rest, pa.scalar(0, values.type)).cast(values.type))


def _limited_digits(micros: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Refuse digits that timestamp(n) or time(n) would drop, unless digits may be rounded."""
    if target.sub_second_digits is None or policy.digits == "round":
        return micros
    unit = 10 ** (6 - target.sub_second_digits)
    kept = pc.multiply(_floor_divide(micros, unit), unit)
    if pc.all(pc.equal(kept, micros), min_count=0).as_py() is False:
        raise ValueError(f"the value has more sub-second digits than {target.type} keeps")
    return micros


def _in_range(values: pa.Array, low: int, high: int, reason: str) -> None:
    ends = pc.min_max(values)
    if ends["min"].as_py() is not None and (ends["min"].as_py() < low or ends["max"].as_py() > high):
        raise ValueError(reason)


TIME_CASTS: dict[str, Caster] = {
    "date": to_date,
    "time": to_time,
    "timestamp": to_timestamp,
    "timestamptz": to_timestamp,
    "interval": to_interval,
}
