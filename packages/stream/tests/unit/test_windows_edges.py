"""Windows at their edges: the order of results, restores, flushes and the last moment of a session."""

import pytest
from tidemill_stream.windows.aggregates import make_reducer
from tidemill_stream.windows.windows import FixedWindows, SessionWindows


class Record:
    def __init__(self, v):
        self.f_v = v


def fixed(**given):
    return FixedWindows(make_reducer([("count", None)]), **{"size_us": 10, "hop_us": 10, **given})


def session(aggs=(("count", None),), **given):
    return SessionWindows(make_reducer(list(aggs)), **{"gap_us": 5, **given})


def places(closed):
    return [(each.start_us, each.key) for each in closed]


# A null comes after every value, and values of another kind after one kind's, in one order for ever.
KEYS = [("b",), (2,), (None,), ("a",), (1,), (1.5,)]
ORDERED = [(1.5,), (1,), (2,), ("a",), ("b",), (None,)]


@pytest.mark.parametrize("make", [fixed, session])
@pytest.mark.parametrize("keys", [KEYS, KEYS[::-1]], ids=["one way", "the other way"])
def test_closed_windows_come_by_start_and_then_by_key_whatever_came_first(make, keys):
    windows = make()
    for start in (0, 20):
        for key in keys:
            windows.add(start, key, Record(1))

    assert [(start, key) for start in (0, 20) for key in ORDERED] == places(windows.flush())
    assert 0 == len(windows)


def test_keys_of_two_parts_are_ordered_part_by_part():
    windows = fixed()
    for key in [("b", None), ("a", 2), ("a", None), ("a", 1)]:
        windows.add(0, key, Record(1))

    assert [("a", 1), ("a", 2), ("a", None), ("b", None)] == [each.key for each in windows.flush()]


def test_fixed_windows_are_taken_by_start_though_a_later_one_was_opened_first():
    windows = fixed(grace_us=100)
    for time in (30, 10, 20):
        windows.add(time, ("a",), Record(1))

    assert [(10, ("a",)), (20, ("a",)), (30, ("a",))] == places(windows.flush())


def test_the_number_of_open_windows_is_counted():
    tumbling, hopping, sessions = fixed(), fixed(hop_us=5), session()
    for windows in (tumbling, hopping, sessions):
        windows.add(7, ("a",), Record(1))
        windows.add(7, ("b",), Record(1))

    assert (2, 4, 2) == (len(tumbling), len(hopping), len(sessions))


@pytest.mark.parametrize(("windows", "state"), [(fixed(), [0, ["a"], [1]]), (session(), [0, 0, ["a"], [1]])])
def test_a_restore_takes_the_place_of_what_was_open(windows, state):
    windows.add(100, ("gone",), Record(1))

    windows.restore([state])

    assert [("a",)] == [each.key for each in windows.flush()]


@pytest.mark.parametrize(("make", "state", "beyond"), [(fixed, [0, ["a"], [1]], 10), (session, [0, 0, ["a"], [1]], 6)])
def test_a_flush_moves_the_watermark_past_what_it_closed_and_never_back(make, state, beyond):
    fresh, ahead = make(), make()
    for windows in (fresh, ahead):
        windows.restore([state])
    ahead.watermark_us = 1_000

    fresh.flush()
    ahead.flush()

    assert (beyond, 1_000) == (fresh.watermark_us, ahead.watermark_us)


def test_without_grace_a_session_is_open_until_its_gap_has_passed_and_not_a_moment_longer():
    windows = session()
    windows.add(0, ("a",), Record(1))

    windows.add(5, ("b",), Record(1))
    assert [] == windows.take_closed()
    assert windows.add(-5, ("a",), Record(1)) is True

    windows.add(6, ("b",), Record(1))
    assert [(-5, ("a",))] == places(windows.take_closed())


def test_a_session_at_its_last_moment_still_takes_a_record_before_the_watermark():
    windows = session()
    windows.add(0, ("a",), Record(1))
    windows.add(5, ("b",), Record(1))

    # 0 is the earliest moment that is open; a record of -3 alone would be late, with the session at 0 it is not.
    assert windows.add(-3, ("a",), Record(1)) is True
    assert windows.add(-3, ("c",), Record(1)) is False
    assert [2] == [each.values[0] for each in windows.flush() if each.key == ("a",)]


def test_sums_of_joined_sessions_are_added_oldest_first_whatever_came_first():
    results = []
    for order in ([0, 10, 20], [20, 10, 0], [10, 20, 0]):
        windows = session([("sum", "v")], gap_us=9, grace_us=100)
        values = {0: 1e16, 10: 1.0, 20: -1e16}
        for time in order:
            windows.add(time, ("a",), Record(values[time]))
        windows.add(19 - 4, ("a",), Record(0.0))
        windows.add(5, ("a",), Record(0.0))
        results.append([each.values for each in windows.flush()])

    assert results[0] == results[1] == results[2]
