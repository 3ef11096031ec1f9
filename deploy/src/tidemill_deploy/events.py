"""The flights as JSON events, a few bad ones mixed in, published to Kafka exactly once.

Each partition's events are a fixed sequence, so what a killed publisher left behind is
a prefix of it: publishing again continues at the partition's high watermark.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from tidemill_deploy.source import MISSING, data_folder

TOPIC = "nyc.flights"
PARTITIONS = 4
BAD_EVERY = 10_000
"""After this many flights of a partition comes one event that must be refused."""
_ORIGINS = ("EWR", "JFK", "LGA")


@dataclass(frozen=True, slots=True)
class Event:
    """One message: its partition, key and value."""

    partition: int
    key: bytes
    value: bytes
    is_bad: bool = False


def encoded_flights() -> tuple[list[str], list[bytes]]:
    """Read every flight, by scheduled departure; return its origin and its JSON (missing values are null)."""
    import polars as pl

    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive:
        frame = pl.read_csv(archive.read("flights.csv"), null_values=MISSING, infer_schema_length=None)
    frame = frame.sort("time_hour", "sched_dep_time", "carrier", "flight")
    lines = io.BytesIO()
    frame.write_ndjson(lines)
    return frame["origin"].to_list(), lines.getvalue().splitlines()


def bad_event(number: int, good: bytes) -> bytes:
    """Spoil a good event in one of five ways, in turn."""
    return (
        lambda: good[: len(good) // 2],  # cut off
        lambda: good.replace(b'"origin":', b'"from":'),  # a required field is missing
        lambda: good.replace(b'"flight":', b'"flight":"no number","was":'),  # a wrong type
        lambda: b"\xff\xfe" + good,  # not UTF-8
        lambda: b"[1,2,3]",  # not an object
    )[number % 5]()


def flight_events() -> Iterator[Event]:
    """Yield every event in order of scheduled departure; a partition holds whole origins."""
    sent = [0] * PARTITIONS
    bad = 0
    for origin, value in zip(*encoded_flights(), strict=True):
        partition = _ORIGINS.index(origin)
        key = origin.encode()
        yield Event(partition, key, value)
        sent[partition] += 1
        if sent[partition] % BAD_EVERY == 0:
            yield Event(partition, key, bad_event(bad, value), is_bad=True)
            bad += 1
