"""A pipeline of flights and its records, good and bad: what the suites run."""

# ruff: noqa: S311, PLR2004  # the same records for the same seed; shares are plain numbers

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["origin", "at"],
    "properties": {
        "origin": {"type": "string", "enum": ["EWR", "JFK", "LGA"]},
        "at": {"type": "string"},
        "delay": {"type": ["integer", "null"]},
        "flight": {"type": "integer"},
    },
}
WINDOW: dict[str, Any] = {
    "type": "tumbling",
    "size_s": 3600,
    "grace_s": 600,
    "time": {"field": "at"},
    "key": ["origin"],
    "aggs": {
        "departures": {"op": "count"},
        "mean_delay": {"op": "mean", "field": "delay"},
        "worst": {"op": "max", "field": "delay"},
    },
}
FLIGHTS: dict[str, Any] = {
    "name": "flights",
    "source": {"topics": "flights"},
    "schema": {"inline": SCHEMA},
    "where": "delay is not null",
    "window": WINDOW,
    "sinks": [{"type": "memory"}],
    "flush_on_drain": True,
}


def flight_records(count: int, *, seed: int = 1) -> list[bytes | None]:
    """Make values of the flights topic, the same for the same seed."""
    rng = random.Random(seed)
    return [_record(rng, number) for number in range(count)]


def counted(rows: Iterable[Mapping[str, Any]], *, without: tuple[str, ...] = ("timestamp",)) -> dict[Any, int]:
    """Turn rows into something that can be compared whatever their order; a duplicate stays visible by its count."""
    found: dict[Any, int] = {}
    for row in rows:
        key = tuple(sorted((name, repr(_plain(value))) for name, value in row.items() if name not in without))
        found[key] = found.get(key, 0) + 1
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _record(rng: random.Random, number: int) -> bytes | None:
    """Make one record: mostly good and about in order, some cancelled, late, or bad in one of seven ways."""
    at = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(seconds=number * 40 - rng.choice([0, 0, 0, 300, 9_000]))
    value = {
        "origin": rng.choice(["EWR", "JFK", "LGA"]),
        "at": at.isoformat(),
        "delay": rng.choice([None, *range(-10, 50)]),
        "flight": number,
    }
    good = orjson.dumps(value)
    if rng.random() > 0.03:
        return good
    return rng.choice(
        [
            None,
            b"",
            good[:-5],
            b"\xff" + good,
            good.replace(b'"origin"', b'"from"'),
            good.replace(b'"flight":', b'"flight":"x","was":'),
            good.replace(b'"at":"2', b'"at":"x'),
        ]
    )
