"""Blocking checks that compare every table of the main job with the independently counted truth."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from tidemill_core.defs import PostgresResource

from tidemill_deploy.truth import Truth, truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One statement about a table: what a query must answer, and which truth says so."""

    asset: tuple[str, ...]
    name: str
    sql: str
    expected: str
    """Name of the field of `Truth`."""


EXPECTATIONS: Sequence[Expectation] = (
    Expectation(asset=("raw", "weather"), name="rows", sql="select count(*) from raw.weather", expected="weather_rows"),
    Expectation(
        asset=("raw", "weather"),
        name="temperature_sum",
        sql="select sum(temp)::float8 from raw.weather",
        expected="weather_temp_sum",
    ),
    Expectation(
        asset=("raw", "weather"),
        name="distinct_hours",
        sql="select count(*) from (select distinct origin, time_hour from raw.weather) as hours",
        expected="weather_rows",
    ),
    Expectation(
        asset=("events", "flights"), name="rows", sql="select count(*) from events.flights", expected="departed"
    ),
    Expectation(
        asset=("events", "flights"),
        name="delay_sum",
        sql="select sum(dep_delay)::int8 from events.flights",
        expected="dep_delay_sum",
    ),
    Expectation(
        asset=("events", "departures_hourly"),
        name="windows",
        sql="select count(*) from events.departures_hourly",
        expected="windows",
    ),
    Expectation(
        asset=("events", "departures_hourly"),
        name="departures",
        sql="select sum(departures)::int8 from events.departures_hourly",
        expected="departed",
    ),
    Expectation(
        asset=("events", "departures_hourly"),
        name="busiest",
        sql="select max(departures)::int8 from events.departures_hourly",
        expected="busiest_window",
    ),
    Expectation(
        asset=("events", "departures_hourly"),
        name="delay_sum",
        sql="select round(sum(departures * dep_delay_mean))::int8 from events.departures_hourly",
        expected="dep_delay_sum",
    ),
    Expectation(
        asset=("events", "dead_letters"),
        name="rows",
        sql="select count(*) from events.dead_letters",
        expected="bad_events",
    ),
    *(
        Expectation(
            asset=("warehouse", table),
            name="rows",
            sql=f"select count(*) from warehouse.{table}",  # noqa: S608 - the four names below
            expected=expected,
        )
        for table, expected in {
            "planes": "planes",
            "airlines": "airlines",
            "airports": "airports",
            "flights": "departed",
        }.items()
    ),
    Expectation(
        asset=("warehouse", "flights"),
        name="delay_sum",
        sql="select sum(dep_delay)::int8 from warehouse.flights",
        expected="dep_delay_sum",
    ),
    Expectation(
        asset=("mart", "delay_by_carrier"),
        name="departures",
        sql="select sum(departures)::int8 from mart.delay_by_carrier",
        expected="departed",
    ),
    Expectation(
        asset=("warehouse", "delay_by_weather"),
        name="departures",
        sql="select sum(departures)::int8 from warehouse.delay_by_weather",
        expected="matched_departures",
    ),
)


def agree(expected: float, found: float | None) -> bool:
    """Compare with a relative tolerance for floats, which are summed in another order."""
    if found is None:
        return False
    return found == expected or abs(found - expected) <= 1e-9 * abs(expected)


def truth_checks() -> Iterator[dg.AssetChecksDefinition]:
    """Build one blocking check for each expectation."""
    for expectation in EXPECTATIONS:
        yield _check(expectation)


def _check(expectation: Expectation) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(expectation.asset),
        name=f"truth_{expectation.name}",
        description=f"`{expectation.sql}` equals what the source files say ({expectation.expected}).",
        blocking=True,
    )
    def check(postgres: PostgresResource) -> dg.AssetCheckResult:
        with postgres.connect() as connection:
            row = connection.execute(expectation.sql.encode()).fetchone()
        found = None if row is None else row[0]
        expected = getattr(truth(), expectation.expected)
        return dg.AssetCheckResult(
            passed=agree(expected, found), metadata={"expected": expected, "found": json.dumps(found)}
        )

    return check


def compare_all(query: Any) -> list[tuple[str, object, object]]:
    """Ask every expectation through `query(sql) -> value`; return those that differ, for tests and scripts."""
    counted: Truth = truth()
    differing = []
    for each in EXPECTATIONS:
        found = query(each.sql)
        if not agree(getattr(counted, each.expected), found):
            name = f"{'/'.join(each.asset)}.{each.name}"
            differing.append((name, getattr(counted, each.expected), found))
    return differing
