"""The greatest value of a stream's cursor field: kept as text, sent upstream with the lag taken off."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.records.kinds import KINDS


def stored_text(value: Any) -> str | None:
    """Write a canonical cursor value as it is kept."""
    if value is None:
        return None
    return value.isoformat() if isinstance(value, date) else str(value)


def greater(stream: StreamConfig, one: str | None, other: str | None) -> str | None:
    """Choose the later of two kept cursors."""
    if stream.cursor is None or one is None or other is None:
        return one if other is None else other
    return other if _value(stream, other) > _value(stream, one) else one


def request_text(stream: StreamConfig, kept: str | None) -> str | None:
    """Write what replaces ``{cursor}`` in parameters; None when there is nothing to start from."""
    if stream.cursor is None:
        return None
    if kept is None:
        return stream.cursor.start
    value, lag_s = _value(stream, kept), stream.cursor.lag_s
    kind = stream.fields[stream.cursor.field].type
    if kind in {"int32", "int64"}:
        return str(value - int(lag_s))
    if kind == "date":
        return str(value - timedelta(days=-(-int(lag_s) // 86400)))
    moment = value - timedelta(seconds=lag_s)
    if kind == "timestamp":
        return _iso(moment)
    return str(int(moment.timestamp() * (1000 if kind == "epoch_ms" else 1)))


def lag_s(stream: StreamConfig, kept: str | None, now: datetime) -> float | None:
    """Say how old the newest record is; None where the cursor is no point in time."""
    if stream.cursor is None or kept is None:
        return None
    value = _value(stream, kept)
    return (now - value).total_seconds() if isinstance(value, datetime) else None


def _value(stream: StreamConfig, text: str) -> Any:
    assert stream.cursor is not None
    return KINDS[stream.fields[stream.cursor.field].type].parse(text)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
