"""What each field type is: how an upstream value, a text in a query and a column become one another.

One canonical Python value per type goes everywhere: str, int, float, bool, an aware
UTC datetime, a date, or JSON text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from tidemill_ingest_api.records import exact

INT32 = 2**31
INT64 = 2**63
_SHOWN = 60
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One field type."""

    name: str
    sqlite: str
    postgres: str
    arrow: str
    schema: Mapping[str, Any]
    convert: Callable[[Any], Any]
    """Upstream value to canonical value; raises ValueError or TypeError."""
    parse: Callable[[str], Any]
    """Text of a query to canonical value; raises ValueError."""

    @property
    def is_text(self) -> bool:
        """Whether patterns may be matched against it."""
        return self.name == "string"


def _string(value: Any) -> str:
    if value.__class__ is str:
        text: str = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int | float):
        text = str(value)
    else:
        raise TypeError(f"a {_name(value)} is not text")
    if "\x00" in text:
        raise ValueError("text holds a NUL character, which PostgreSQL cannot store")
    return text


def _integer(bound: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if value.__class__ is not int:
            if isinstance(value, float) and abs(value) >= INT64:
                # The parser gives integers beyond 64 bits as floats: their digits are lost, so none are shown.
                raise ValueError(f"a number beyond 64 bits does not fit {bound.bit_length()} bits")
            if isinstance(value, str):
                value = _read(int, value, "an integer")
            elif isinstance(value, float) and value.is_integer():
                value = int(value)
            else:
                raise TypeError(f"a {_name(value)} is not an integer")
        if not -bound <= value < bound:
            raise ValueError(f"{value} does not fit {bound.bit_length()} bits")
        return int(value)

    return convert


def _float(value: Any) -> float:
    if value.__class__ is not float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError(f"a {_name(value)} is not a number")
        value = _read(float, value, "a number")
    if not math.isfinite(value):
        raise ValueError("NaN and infinity have no place in JSON")
    return float(value)


def _bool(value: Any) -> bool:
    if value.__class__ is bool:
        return bool(value)
    if value in {"true", "false"}:
        return bool(value == "true")
    raise TypeError(f"a {_name(value)} is not a boolean; use a number or string type")


def _timestamp(value: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError(f"a {_name(value)} is not a timestamp text; use epoch_s or epoch_ms for numbers")
    moment = _read(datetime.fromisoformat, value, "an ISO 8601 timestamp")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _epoch(unit: int) -> Callable[[Any], datetime]:
    def convert(value: Any) -> datetime:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError(f"a {_name(value)} is not a number")
        seconds = _read(float, value, "a number") / unit
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(f"{value} is no time") from error

    return convert


def _date(value: Any) -> date:
    if not isinstance(value, str):
        raise TypeError(f"a {_name(value)} is not a date")
    return _read(date.fromisoformat, value[:10], "a date (YYYY-MM-DD)")


def _json(value: Any) -> str:
    text = exact.dumps(value).decode()
    if "\\u0000" in text and without_nul(value) != value:
        raise ValueError("text inside holds a NUL character, which PostgreSQL cannot store")
    return text


def without_nul(value: Any) -> Any:
    """Copy a JSON value, its texts and keys without NUL characters."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(each) for key, each in value.items()}
    return value


def _read(parse: Callable[[Any], T], value: Any, what: str) -> T:
    """Parse, and say in the reader's words what was expected."""
    try:
        return parse(value)
    except (ValueError, OverflowError):
        shown = str(value)
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
        raise ValueError(f"{shown!r} is not {what}") from None


def _name(value: Any) -> str:
    return {"dict": "JSON object", "list": "JSON list", "bool": "boolean", "str": "text"}.get(
        type(value).__name__, type(value).__name__
    )


def _kind(name: str, types: tuple[str, str, str], schema: dict[str, Any], convert: Any, parse: Any = None) -> Kind:
    sqlite, postgres, arrow = types
    return Kind(
        name=name,
        sqlite=sqlite,
        postgres=postgres,
        arrow=arrow,
        schema=schema,
        convert=convert,
        parse=parse or convert,
    )


_MOMENT = ("TEXT", "timestamptz", "timestamp")
_MOMENT_SCHEMA = {"type": "string", "format": "date-time"}
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("string", ("TEXT", 'text COLLATE "C"', "string"), {"type": "string"}, _string),
        _kind("int32", ("BIGINT", "integer", "int32"), {"type": "integer", "format": "int32"}, _integer(INT32)),
        _kind("int64", ("BIGINT", "bigint", "int64"), {"type": "integer", "format": "int64"}, _integer(INT64)),
        _kind("float64", ("REAL", "double precision", "float64"), {"type": "number", "format": "double"}, _float),
        _kind("bool", ("BOOLEAN", "boolean", "bool"), {"type": "boolean"}, _bool),
        _kind("timestamp", _MOMENT, _MOMENT_SCHEMA, _timestamp),
        _kind("epoch_s", _MOMENT, _MOMENT_SCHEMA, _epoch(1), _timestamp),
        _kind("epoch_ms", _MOMENT, _MOMENT_SCHEMA, _epoch(1000), _timestamp),
        _kind("date", ("TEXT", "date", "date"), {"type": "string", "format": "date"}, _date),
        _kind("json", ("TEXT", "jsonb", "json"), {}, _json),
    )
}
"""Every field type by name."""
