"""Event times as whole microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = -62_135_596_800_000_000  # 0001-01-01
_LAST = 253_402_300_799_999_999  # 9999-12-31
_CACHED = 65_536
_UNITS = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}

TimeParser = Callable[[Any], int | None]
"""From a JSON value to microseconds, or None when it is not a time."""


def time_parser(format: str) -> TimeParser:  # noqa: A002 - the field's own name
    """Choose the parser for a time format.

    Times repeat a lot in a stream, so text that was parsed is remembered.
    """
    return _iso_parser() if format == "iso8601" else _epoch_parser(_UNITS[format])


def _iso_parser() -> TimeParser:
    known: dict[str, int] = {}

    def parse(value: Any) -> int | None:
        found = known.get(value) if isinstance(value, str) else None
        if found is not None or not isinstance(value, str):
            return found
        try:
            at = datetime.fromisoformat(value)
            micros = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            return None
        if not _FIRST <= micros <= _LAST:
            return None
        if len(known) >= _CACHED:
            known.clear()
        known[value] = micros
        return micros

    return parse


def _epoch_parser(scale: int) -> TimeParser:
    def parse(value: Any) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not _FIRST <= value * scale <= _LAST:
            return None
        return value * scale if isinstance(value, int) else round(value * scale)

    return parse


def to_datetime(micros: int) -> datetime:
    """Convert microseconds since 1970 to an aware datetime."""
    return _EPOCH + timedelta(microseconds=micros)
