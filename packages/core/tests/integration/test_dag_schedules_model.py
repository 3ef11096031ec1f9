"""Times of schedules against a clock that is looked at every minute, and what is made up for after a pause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tidemill_core.dag import DagSpec
from tidemill_core.dag.cron import check_cron
from tidemill_core.dag.spec import ScheduleSpec
from tidemill_core.defs.dag import schedules
from tidemill_core.defs.dag.schedules import CATCH_UP_RUNS, TICK_TAG, times_after

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LIMITS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


@dataclass(frozen=True)
class Field:
    """One field of a cron line, as text and as the set of values that it names; None stands for ``*``."""

    text: str
    values: frozenset[int] | None


def fields(name: str) -> st.SearchStrategy[Field]:
    low, high = LIMITS[name]
    number = st.integers(low, high)

    def span(pair: tuple[int, int]) -> Field:
        first, last = sorted(pair)
        return Field(f"{first}-{last}", frozenset(range(first, last + 1)))

    def stepped(step: int) -> Field:
        return Field(f"*/{step}", frozenset(range(low, high + 1, step)))

    def listed(values: list[int]) -> Field:
        return Field(",".join(map(str, values)), frozenset(values))

    choices = [
        st.just(Field("*", None)),
        number.map(lambda value: Field(str(value), frozenset([value]))),
        # Dagster's croniter takes `2-2` of weekdays for the whole week, from Tuesday to Tuesday.
        st.tuples(number, number).filter(lambda pair: pair[0] != pair[1]).map(span),
        st.integers(2, max(2, (high - low) // 2)).map(stepped),
        st.lists(number, min_size=2, max_size=3, unique=True).map(listed),
    ]
    if name == "weekday":
        choices.append(number.map(lambda value: Field(DAYS[value], frozenset([value]))))
    return st.one_of(choices)


def is_ever(line: tuple[Field, ...]) -> bool:
    """Whether some day of some month is named: the 31st of February is none."""
    try:
        check_cron(text_of(line))
    except ValueError:
        return False
    return True


def text_of(line: tuple[Field, ...]) -> str:
    return " ".join(each.text for each in line)


LINES = st.tuples(*(fields(name) for name in LIMITS)).filter(is_ever)


def fires(line: tuple[Field, ...], time: datetime) -> bool:
    """Read the line by the scheduler's rule: of day and weekday, if neither is `*`, one is enough.

    (Of `*/2` some crons say that it is a star here; Dagster's croniter does not.)
    """
    minute, hour, day, month, weekday = line
    found = {"day": time.day, "weekday": (time.weekday() + 1) % 7}

    def has(each: Field, value: int) -> bool:
        return each.values is None or value in each.values

    if not (has(minute, time.minute) and has(hour, time.hour) and has(month, time.month)):
        return False
    if day.values is None or weekday.values is None:
        return has(day, found["day"]) and has(weekday, found["weekday"])
    return has(day, found["day"]) or has(weekday, found["weekday"])


def by_the_clock(lines: list[tuple[Field, ...]], start: datetime, days: int) -> list[datetime]:
    """Look at every minute after `start`."""
    minutes = (start + timedelta(minutes=number) for number in range(1, days * 24 * 60))
    return [time for time in minutes if any(fires(line, time) for line in lines)]


@settings(deadline=None, max_examples=40, phases=[Phase.generate])
@given(lines=st.lists(LINES, min_size=1, max_size=2, unique_by=text_of), start=st.integers(0, 500_000))
def test_times_are_those_of_a_clock_that_is_looked_at_every_minute(lines: list, start: int) -> None:
    began = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    expected = by_the_clock(lines, began, days=6)
    wanted = ScheduleSpec(cron=text_of(lines[0]) if len(lines) == 1 else tuple(map(text_of, lines)))
    found: list[datetime] = []
    end = began + timedelta(days=6) - timedelta(minutes=1)

    for time in times_after(wanted, began):
        if time > end:
            break
        found.append(time)

    assert expected == found, wanted.cron


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        # 02:30 is not there when clocks are set forward, and there twice when they are set back.
        ("Europe/Berlin", (2024, 3, 31), 1),
        ("Europe/Berlin", (2024, 10, 27), 1),
        ("Europe/Berlin", (2024, 6, 1), 1),
        ("America/New_York", (2024, 11, 3), 1),
    ],
)
def test_a_daily_time_comes_once_a_day_whatever_clocks_do(zone: str, day: tuple[int, int, int], hours: int) -> None:
    start = datetime(*day, tzinfo=ZoneInfo(zone)) - timedelta(minutes=1)
    wanted = ScheduleSpec(cron="30 1 * * *", timezone=zone)
    end = start + timedelta(days=1)

    found = list(take_until(wanted, start, end))

    assert hours == len(found)


def take_until(wanted: ScheduleSpec, start: datetime, end: datetime) -> Iterator[datetime]:
    for time in times_after(wanted, start):
        if time > end:
            return
        yield time


class Runs:
    """Stands for an instance: gives the newest run that a schedule started."""

    def __init__(self, last: datetime | None) -> None:
        self.last = last

    def get_runs(self, _filter: Any, limit: int) -> list[Any]:
        assert limit == 1
        return [] if self.last is None else [SimpleNamespace(tags={TICK_TAG: self.last.isoformat()})]


SPEC = DagSpec.model_validate({"name": "d", "tasks": [{"name": "a", "run": "true"}]})


@settings(deadline=None, max_examples=40, phases=[Phase.generate])
@given(line=LINES, pause=st.integers(1, 4 * 24 * 60), start=st.integers(0, 500_000))
def test_what_is_made_up_for_are_the_newest_missed_times(line: tuple, pause: int, start: int) -> None:
    wanted = ScheduleSpec(cron=text_of(line), catch_up=True)
    last = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    now = last + timedelta(minutes=pause)
    missed = [time for time in by_the_clock([line], last, days=4) if time <= now]

    found = schedules._missed(Runs(last), SPEC, wanted, now)

    assert (missed[-CATCH_UP_RUNS:] or [now]) == list(found)


def test_nothing_is_made_up_for_before_the_first_run() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    wanted = ScheduleSpec(cron="* * * * *", catch_up=True)

    assert [now] == list(schedules._missed(Runs(None), SPEC, wanted, now))
