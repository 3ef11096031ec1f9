"""The source files, their truth, and the events made of them."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from tidemill_deploy.events import PARTITIONS, bad_event, flight_events
from tidemill_deploy.source import rows
from tidemill_deploy.truth import truth


@pytest.fixture(scope="module")
def events():
    return list(flight_events())


def test_the_truth_is_what_the_published_data_set_says() -> None:
    counted = truth()

    assert (336_776, 8_255, 26_115, 3_322, 16, 1_458) == (
        counted.flights,
        counted.cancelled,
        counted.weather_rows,
        counted.planes,
        counted.airlines,
        counted.airports,
    )


def test_every_flight_becomes_one_event_with_the_values_of_its_row(events) -> None:
    good = [json.loads(each.value) for each in events if not each.is_bad]

    assert Counter(_key(row) for row in rows("flights")) == Counter(_key(each) for each in good)
    assert truth().dep_delay_sum == sum(each["dep_delay"] for each in good if each["dep_time"] is not None)


def test_the_events_of_a_partition_are_in_order_of_scheduled_hour_and_hold_whole_origins(events) -> None:
    hours: dict[int, list[str]] = {}
    origins: dict[int, set[str]] = {}
    for each in events:
        if not each.is_bad:
            value = json.loads(each.value)
            hours.setdefault(each.partition, []).append(value["time_hour"])
            origins.setdefault(each.partition, set()).add(value["origin"])

    assert all(found == sorted(found) for found in hours.values())
    assert all(len(found) == 1 for found in origins.values())
    assert max(origins) < PARTITIONS


def test_the_bad_events_are_as_many_as_the_truth_says_and_not_one_is_a_flight(events) -> None:
    bad = [each for each in events if each.is_bad]

    assert truth().bad_events == len(bad)
    assert not any(_is_flight(each.value) for each in bad)


def test_the_five_ways_to_spoil_an_event_all_occur(events) -> None:
    good = next(each.value for each in events)

    assert 5 == len({bad_event(number, good) for number in range(5)})
    assert not any(_is_flight(bad_event(number, good)) for number in range(5))
    assert _is_flight(good)


def test_the_sequence_of_events_is_the_same_every_time(events) -> None:
    assert events == list(flight_events())


def _key(row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"))


def _is_flight(value: bytes) -> bool:
    try:
        flight = json.loads(value)
    except ValueError:
        return False
    return isinstance(flight, dict) and isinstance(flight.get("flight"), int) and "origin" in flight


def test_the_truth_is_counted_without_any_package_of_ours_or_any_reader_of_tables() -> None:
    """The negative control is the import of a module that the job does use."""

    def loaded(module: str) -> set[str]:
        # The package itself is a namespace of lazy names; its modules are what counts.
        code = f"import sys; import {module}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        ours = {name for name in done.stdout.split() if name.startswith("tidemill")}
        return (ours | {"polars", "pyarrow", "pandas", "dagster"} & set(done.stdout.split())) - {"tidemill_deploy"}

    assert loaded("tidemill_deploy.truth") == {"tidemill_deploy.truth"}
    assert loaded("tidemill_deploy.tasks") > {"tidemill_deploy.events", "tidemill_stream", "dagster"}
