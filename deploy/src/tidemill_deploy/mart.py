"""Two small marts in polars: does the weather delay departures, and whose flights are late?

The functions are plain: lazy frames in, a lazy frame out. Dagster, storage and lineage
are added where they are used (`dags/nyc_flights.yaml`).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import polars as pl

RAIN_IN = 0.01
"""Inches of rain in an hour from which it counts as rain."""
LOW_VISIBILITY_MILES = 3.0
WINDY_MPH = 20.0
FREEZING_F = 32.0


def delay_by_weather(weather: pl.LazyFrame, departures: pl.LazyFrame) -> pl.LazyFrame:
    """Average the departure delay per origin and kind of weather.

    Args:
        weather: One row an origin and hour: ``origin, time_hour, temp, wind_speed, precip, visib``.
        departures: One row an origin and hour: ``origin, window_start, departures, dep_delay_sum``.

    Returns:
        ``origin, weather, hours, departures, mean_delay_min``, ordered by the first two. Hours
        without a weather row are left out; a missing measurement counts as fair.
    """
    import polars as pl

    kind = (
        pl.when(pl.col("precip") >= RAIN_IN)
        .then(pl.lit("rain"))
        .when(pl.col("visib") < LOW_VISIBILITY_MILES)
        .then(pl.lit("low visibility"))
        .when(pl.col("temp") <= FREEZING_F)
        .then(pl.lit("freezing"))
        .when(pl.col("wind_speed") >= WINDY_MPH)
        .then(pl.lit("windy"))
        .otherwise(pl.lit("fair"))
        .alias("weather")
    )
    return (
        departures.join(weather, left_on=["origin", "window_start"], right_on=["origin", "time_hour"], how="inner")
        .with_columns(kind)
        .group_by("origin", "weather")
        .agg(
            pl.len().cast(pl.Int64).alias("hours"),
            pl.col("departures").sum(),
            (pl.col("dep_delay_sum").sum() / pl.col("departures").sum()).alias("mean_delay_min"),
        )
        .sort("origin", "weather")
    )


def delay_by_carrier(flights: pl.LazyFrame, airlines: pl.LazyFrame) -> pl.LazyFrame:
    """Average the departure delay per airline.

    Args:
        flights: One row a departed flight: ``carrier, dep_delay``.
        airlines: ``carrier, name``.

    Returns:
        ``carrier, name, departures, mean_delay_min``, the latest airline first.
    """
    import polars as pl

    return (
        flights.join(airlines, on="carrier", how="left")
        .group_by("carrier", "name")
        .agg(pl.len().cast(pl.Int64).alias("departures"), pl.col("dep_delay").mean().alias("mean_delay_min"))
        .sort("mean_delay_min", descending=True)
    )


def plot(delays: pl.DataFrame) -> str:
    """Draw `delay_by_weather` as bars; return Markdown with the drawing (SVG) inside it."""
    origins = delays["origin"].unique().sort().to_list()
    kinds = delays["weather"].unique().sort().to_list()
    minutes = {(origin, kind): mean for origin, kind, mean in delays.select(_BARS).iter_rows()}
    drawing = _svg(origins, kinds, minutes)
    return f"![delay by weather](data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()})"


_BARS = ("origin", "weather", "mean_delay_min")
_COLORS = ("#4878a8", "#e08a3c", "#5a9a68", "#b05a7a")
_WIDTH, _HEIGHT, _FLOOR = 800, 360, 310
"""Pixels; bars stand on the floor."""


def _svg(origins: list[str], kinds: list[str], minutes: dict[tuple[str, str], float]) -> str:
    """Draw a group of bars per kind, a bar per origin; each bar carries its number."""
    highest = max([*(value or 0.0 for value in minutes.values()), 1.0])
    group = (_WIDTH - 60) / max(1, len(kinds))
    bar = group * 0.8 / max(1, len(origins))
    parts = [_text(14, _HEIGHT - 8, "mean departure delay, minutes", anchor="start")]
    for at, kind in enumerate(kinds):
        left = 50 + at * group
        parts.append(_text(left + group * 0.4, _FLOOR + 18, kind))
        for number, origin in enumerate(origins):
            value = minutes.get((origin, kind)) or 0.0
            tall = max(0.0, value) / highest * (_FLOOR - 50)
            x, color = left + number * bar, _COLORS[number % len(_COLORS)]
            box = f'x="{x:.1f}" y="{_FLOOR - tall:.1f}" width="{bar * 0.94:.1f}" height="{tall:.1f}"'
            parts.append(f'<rect {box} fill="{color}"/>')
            parts.append(_text(x + bar / 2, _FLOOR - tall - 4, f"{value:.0f}"))
    for number, origin in enumerate(origins):
        color = _COLORS[number % len(_COLORS)]
        parts.append(f'<rect x="{60 + number * 80}" y="8" width="12" height="12" fill="{color}"/>')
        parts.append(_text(78 + number * 80, 19, origin, anchor="start"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} font-family="sans-serif" font-size="12">{ground}{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
