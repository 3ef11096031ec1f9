"""What the stream's tests share: a pipeline of flights, its records, and servers."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from tidemill_stream.config import PipelineConfig
from tidemill_stream.plan import Plan

SCHEMA = {
    "type": "object",
    "required": ["origin", "at"],
    "properties": {
        "origin": {"type": "string", "enum": ["EWR", "JFK", "LGA"]},
        "at": {"type": "string"},
        "delay": {"type": ["integer", "null"]},
        "flight": {"type": "integer"},
    },
}
WINDOW = {
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
FLIGHTS = {
    "name": "flights",
    "source": {"topics": "flights"},
    "schema": {"inline": SCHEMA},
    "where": "delay is not null",
    "window": WINDOW,
    "sinks": [{"type": "memory"}],
    "flush_on_drain": True,
}


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


@pytest.fixture(scope="session")
def make_plan():
    """Compile the flights pipeline with changes at its top level."""

    def make(**changes):
        return Plan(PipelineConfig.model_validate({**FLIGHTS, **changes}))

    return make


@pytest.fixture(scope="session")
def make_records():
    """Make values of the flights topic, the same for the same seed."""

    def make(count, *, seed=1):
        rng = random.Random(seed)
        return [_record(rng, number) for number in range(count)]

    return make


@pytest.fixture(scope="session")
def as_set():
    """Turn rows into a set that can be compared, whatever their order; duplicates stay visible by their count."""

    def convert(rows, *, without=("timestamp",)):
        counted = {}
        for row in rows:
            key = tuple(sorted((name, repr(_plain(value))) for name, value in row.items() if name not in without))
            counted[key] = counted.get(key, 0) + 1
        return counted

    return convert


def _plain(value):
    if isinstance(value, memoryview):
        return bytes(value)
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
