"""The marts, on rows small enough to count by hand."""

import base64
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from tidemill_deploy.mart import delay_by_carrier, delay_by_weather, plot

HOURS = [datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in range(5)]


def weather(**columns) -> pl.LazyFrame:
    base = {
        "origin": ["EWR"] * 5,
        "time_hour": HOURS,
        "temp": [50.0, 50.0, 30.0, 50.0, None],
        "wind_speed": [5.0, 5.0, 25.0, 25.0, None],
        "precip": [0.2, 0.0, 0.0, 0.0, None],
        "visib": [1.0, 1.0, 10.0, 10.0, None],
    }
    return pl.LazyFrame(base | columns)


def departures(origin: str = "EWR") -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "origin": [origin] * 5,
            "window_start": HOURS,
            "departures": [1, 2, 3, 4, 5],
            "dep_delay_sum": [10, 10, 30, 40, 5],
        }
    )


def test_each_hour_is_of_one_kind_and_rain_comes_before_fog_frost_and_wind() -> None:
    found = delay_by_weather(weather(), departures()).collect()

    assert {"rain": 1, "low visibility": 2, "freezing": 3, "windy": 4, "fair": 5} == dict(
        found.select("weather", "departures").iter_rows()
    )


def test_the_mean_is_weighted_by_departures() -> None:
    found = delay_by_weather(weather(precip=[0.2, 0.2, 0.0, 0.0, None]), departures()).collect()

    assert pytest.approx(20 / 3) == found.filter(weather="rain")["mean_delay_min"].item()
    assert 2 == found.filter(weather="rain")["hours"].item()


def test_hours_without_weather_are_left_out() -> None:
    assert 0 == delay_by_weather(weather(), departures(origin="JFK")).collect().height


def test_flights_of_an_unknown_carrier_are_kept_without_a_name() -> None:
    flights = pl.LazyFrame({"carrier": ["UA", "UA", "ZZ"], "dep_delay": [10, 20, 60]})
    airlines = pl.LazyFrame({"carrier": ["UA"], "name": ["United"]})

    found = delay_by_carrier(flights, airlines).collect()

    assert [("ZZ", None, 1, 60.0), ("UA", "United", 2, 15.0)] == found.rows()


def test_the_plot_is_a_drawing_with_a_bar_per_origin_and_weather() -> None:
    delays = delay_by_weather(weather(), departures()).collect()

    found = plot(delays)

    head, _, encoded = found.removesuffix(")").partition("base64,")
    drawing = ET.fromstring(base64.b64decode(encoded))  # it is well-formed
    bars = [each for each in drawing.iter("{http://www.w3.org/2000/svg}rect") if float(each.get("y") or 0) > 8]
    assert head == "![delay by weather](data:image/svg+xml;"
    assert len(bars) == delays.height
