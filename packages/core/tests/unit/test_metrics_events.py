"""The start of a history is found by bisection; durations are remembered within a bound."""

from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st
from tidemill_core.defs.metrics.events import Moments, first_after, is_hidden
from tidemill_core.defs.metrics.families import Families


@example(numbers={2, 3}, since=3)
@given(numbers=st.sets(st.integers(1, 5000)), since=st.integers(-1, 6000))
def test_bisection_finds_the_first_event_after_a_moment_whatever_the_gaps(numbers: set[int], since: int) -> None:
    reads = 0

    def read_one(after: int) -> dict[int, SimpleNamespace]:
        nonlocal reads
        reads += 1
        later = [number for number in numbers if number > after]
        return {min(later): SimpleNamespace(timestamp=min(later))} if later else {}

    cursor = first_after(read_one, since)

    assert [n for n in sorted(numbers) if n > cursor] == [n for n in sorted(numbers) if n > since]
    assert reads <= 2 * 13 + 6


def test_an_end_without_a_beginning_has_no_duration() -> None:
    moments = Moments()
    moments.begin("run", "step", 10.0)

    first, second = moments.end("run", "step", 12.5), moments.end("run", "step", 13.0)

    assert (first, second) == (2.5, None)


def test_jobs_that_dagster_made_are_hidden() -> None:
    assert [is_hidden(name) for name in ("__ASSET_JOB", "", None, "nightly")] == [True, True, True, False]


def test_gauges_of_things_that_ended_are_removed() -> None:
    families = Families(max_series=2)
    families.pool_slots.at("a").set(1)
    families.pool_slots.at("b").set(1)

    families.pool_slots.keep([("b",)])
    families.pool_slots.at("c").set(1)

    samples = [sample.labels for family in families.pool_slots.family.collect() for sample in family.samples]
    assert samples == [{"pool": "b"}, {"pool": "c"}]
