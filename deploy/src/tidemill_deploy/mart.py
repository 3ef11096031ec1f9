"""Two small marts in polars: does the weather delay departures, and whose flights are late?

The functions are plain: lazy frames in, a lazy frame out. Dagster, storage and lineage
are added where they are used (`dags/nyc_flights.yaml`).
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

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
    """Draw `delay_by_weather` as bars; return Markdown with the PNG inside it."""
    from matplotlib.figure import Figure

    origins = delays["origin"].unique().sort().to_list()
    kinds = delays["weather"].unique().sort().to_list()
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(origins)
    for number, origin in enumerate(origins):
        of_origin = dict(delays.filter(origin=origin).select("weather", "mean_delay_min").iter_rows())
        places = [index + number * width for index in range(len(kinds))]
        axes.bar(places, [of_origin.get(kind, 0.0) for kind in kinds], width, label=origin)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(kinds))], kinds)
    axes.set_ylabel("mean departure delay, minutes")
    axes.legend(title="origin", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return f"![delay by weather](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
