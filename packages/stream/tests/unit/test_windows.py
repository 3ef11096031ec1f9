"""Windows: the same results however the stream is cut, and equal to a plain model."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from tidemill_stream.windows.aggregates import make_reducer
from tidemill_stream.windows.windows import FixedWindows, SessionWindows

AGGS = [("count", None), ("sum", "v"), ("mean", "v"), ("min", "v"), ("max", "v"), ("count", "v")]


def windows(kind, *, grace=0):
    reducer = make_reducer(AGGS)
    if kind == "session":
        return SessionWindows(reducer, gap_us=5, grace_us=grace)
    if kind == "hopping":
        return FixedWindows(reducer, size_us=10, hop_us=4, grace_us=grace)
    return FixedWindows(reducer, size_us=10, hop_us=10, grace_us=grace, offset_us=3)


def value(v):
    return SimpleNamespace(f_v=v)


events = st.lists(
    st.tuples(st.integers(-60, 60), st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(-9, 9))),
    max_size=60,
)
kinds = st.sampled_from(["tumbling", "hopping", "session"])


def run(kind, stream, cuts, *, grace, restart):
    """Feed a stream, taking closed windows (and restarting from a dump) at each cut."""
    state, closed, late = windows(kind, grace=grace), [], []
    for index, (time, key, v) in enumerate(stream):
        late.append(not state.add(time, (key,), value(v)))
        if index in cuts:
            closed += state.take_closed()
            if restart:
                dump, mark = state.dump(), state.watermark_us
                state = windows(kind, grace=grace)
                state.restore(dump)
                state.watermark_us = mark
    closed += state.flush()
    return sorted(closed, key=repr), late


@given(kind=kinds, stream=events, cuts=st.sets(st.integers(0, 60)), grace=st.integers(0, 20))
def test_results_do_not_depend_on_batch_cuts_or_restarts(kind, stream, cuts, grace):
    whole = run(kind, stream, set(), grace=grace, restart=False)

    assert run(kind, stream, cuts, grace=grace, restart=False) == whole
    assert run(kind, stream, cuts, grace=grace, restart=True) == whole


@given(stream=events, hop=st.sampled_from([4, 10]))
def test_fixed_windows_equal_a_model(stream, hop):
    size, model, mark = 10, {}, None
    state = FixedWindows(make_reducer(AGGS), size_us=size, hop_us=hop)

    for time, key, v in stream:
        state.add(time, (key,), value(v))
        for start in range(-100, 100):
            if start % hop == 0 and start <= time < start + size and (mark is None or start + size > mark):
                model.setdefault((start, key), []).append(v)
        mark = time if mark is None else max(mark, time)

    found = {(w.start_us, w.key[0]): w for w in [*state.take_closed(), *state.flush()]}
    assert set(found) == set(model)
    for place, values in model.items():
        known = [v for v in values if v is not None]
        count, total, mean, low, high, counted = found[place].values
        assert (count, counted) == (len(values), len(known))
        assert (total, low, high) == ((sum(known), min(known), max(known)) if known else (None, None, None))
        assert mean == (sum(known) / len(known) if known else None)


@given(times=st.lists(st.integers(-60, 60), min_size=1, max_size=40))
def test_sessions_without_late_records_equal_a_model(times):
    state = SessionWindows(make_reducer(AGGS), gap_us=5, grace_us=1_000)

    for time in times:
        assert state.add(time, ("k",), value(1))

    model = []
    for time in sorted(times):
        if model and time <= model[-1][-1] + 5:
            model[-1].append(time)
        else:
            model.append([time])
    assert [(w.start_us, w.end_us, w.values[0]) for w in state.flush()] == [(s[0], s[-1] + 5, len(s)) for s in model]


def test_a_record_can_join_two_sessions():
    state = SessionWindows(make_reducer(AGGS), gap_us=5, grace_us=100)
    for time in (0, 8):
        state.add(time, ("k",), value(time))
    assert len(state) == 2

    state.add(4, ("k",), value(4))

    assert len(state) == 1
    (window,) = state.flush()
    assert (window.start_us, window.end_us, window.values[:2]) == (0, 13, (3, 12))


def test_an_event_at_the_end_belongs_to_the_next_window():
    state = FixedWindows(make_reducer(AGGS), size_us=10, hop_us=10)

    state.add(9, (), value(1))
    state.add(10, (), value(1))

    assert [(w.start_us, w.values[0]) for w in state.flush()] == [(0, 1), (10, 1)]


def test_times_before_1970_fall_into_the_right_window():
    state = FixedWindows(make_reducer(AGGS), size_us=10, hop_us=10)

    state.add(-1, (), value(1))
    state.add(-10, (), value(1))

    assert [(w.start_us, w.values[0]) for w in state.flush()] == [(-10, 2)]


def test_a_late_record_is_told_and_changes_nothing():
    state = FixedWindows(make_reducer(AGGS), size_us=10, hop_us=10, grace_us=5)

    assert state.add(0, (), value(1))
    assert state.add(14, (), value(1))
    assert state.add(3, (), value(1))  # within the grace
    assert state.add(15, (), value(1))
    assert not state.add(4, (), value(1))

    assert [(w.start_us, w.values[0]) for w in state.take_closed()] == [(0, 2)]


def test_a_record_of_a_flushed_window_is_late():
    state = FixedWindows(make_reducer(AGGS), size_us=10, hop_us=10)
    state.add(3, (), value(1))
    state.flush()

    assert not state.add(4, (), value(1))
    assert state.add(11, (), value(1))
    assert [w.start_us for w in state.flush()] == [10]


@given(grace=st.integers(0, 20), offset=st.integers(-9, 9), time=st.integers(-40, 40), later=st.integers(-60, 60))
def test_a_flush_leaves_no_window_that_a_later_record_could_open_again(grace, offset, time, later):
    state = FixedWindows(make_reducer(AGGS), size_us=10, hop_us=10, grace_us=grace, offset_us=offset)
    state.add(time, ("a",), value(1))

    (flushed,) = state.flush()
    is_counted = state.add(later, ("a",), value(2))
    again = state.flush()

    assert (flushed.start_us - offset) % 10 == 0
    assert flushed.start_us <= time < flushed.end_us == flushed.start_us + 10
    assert is_counted is (later >= flushed.end_us)
    assert [each.start_us for each in again] == [later - (later - offset) % 10 for _ in range(is_counted)]
