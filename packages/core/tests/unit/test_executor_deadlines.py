"""When steps are late, made to stop and left behind: by hand, and against a reading of the whole history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.defs.executor.deadlines import Deadlines, Due


def due(deadlines: Deadlines, now: float) -> dict[str, Due]:
    return dict(deadlines.due(now))


@pytest.fixture
def deadlines() -> Deadlines:
    made = Deadlines()
    made.begin("slow", now=0, timeout_s=10)
    made.begin("free", now=0, timeout_s=None)
    return made


def test_a_step_is_late_after_its_timeout_and_not_at_it(deadlines: Deadlines):
    assert {} == due(deadlines, 10)
    assert {"slow": Due.ASK} == due(deadlines, 10.5)


def test_a_step_without_a_timeout_is_never_late(deadlines: Deadlines):
    assert "free" not in due(deadlines, 1e9)


def test_lateness_is_told_until_the_step_is_asked(deadlines: Deadlines):
    assert {"slow": Due.ASK} == due(deadlines, 11) == due(deadlines, 12)
    deadlines.ask("slow", now=12, patience_s=5, leave_s=20)
    assert {} == due(deadlines, 12)


def test_an_exception_is_due_at_the_end_of_its_patience(deadlines: Deadlines):
    deadlines.ask("slow", now=12, patience_s=5, leave_s=20)
    assert {} == due(deadlines, 16.9)
    assert {"slow": Due.RAISE} == due(deadlines, 17)


def test_an_exception_that_could_not_be_raised_stays_due(deadlines: Deadlines):
    deadlines.ask("slow", now=12, patience_s=0, leave_s=20)
    assert {"slow": Due.RAISE} == due(deadlines, 12) == due(deadlines, 13)
    deadlines.raised("slow")
    assert {} == due(deadlines, 14)


@pytest.mark.parametrize("is_raised", [False, True])
def test_a_step_that_does_not_stop_is_left_behind(deadlines: Deadlines, *, is_raised: bool):
    deadlines.ask("slow", now=12, patience_s=0, leave_s=20)
    if is_raised:
        deadlines.raised("slow")
    assert {"slow": Due.LEAVE} == due(deadlines, 32.1)


def test_an_interrupt_does_not_lengthen_the_life_of_a_late_step(deadlines: Deadlines):
    deadlines.ask("slow", now=12, patience_s=0, leave_s=5)
    is_first = deadlines.ask("slow", now=13, patience_s=5, leave_s=30)
    assert not is_first
    assert {"slow": Due.LEAVE} == due(deadlines, 17.1)


def test_a_second_interrupt_leaves_a_step_at_once(deadlines: Deadlines):
    assert deadlines.ask("free", now=1, patience_s=5, leave_s=30)
    assert not deadlines.ask("free", now=2, patience_s=0, leave_s=0)
    assert {"free": Due.LEAVE} == due(deadlines, 2.1)


def test_a_step_that_ended_is_due_for_nothing(deadlines: Deadlines):
    deadlines.end("slow")
    deadlines.end("never begun")
    assert {} == due(deadlines, 99)


def test_a_next_try_begins_with_a_whole_timeout(deadlines: Deadlines):
    deadlines.ask("slow", now=12, patience_s=0, leave_s=1)
    deadlines.end("slow")
    deadlines.begin("slow", now=20, timeout_s=10)
    assert {} == due(deadlines, 29)
    assert {"slow": Due.ASK} == due(deadlines, 30.5)


def test_nothing_is_ahead_of_steps_without_deadlines():
    deadlines = Deadlines()
    assert deadlines.next_at() is None
    deadlines.begin("free", now=0, timeout_s=None)
    assert deadlines.next_at() is None


STEPS = st.sampled_from("abc")
EVENTS = st.one_of(
    st.tuples(st.just("begin"), STEPS, st.none() | st.integers(1, 6)),
    st.tuples(st.just("end"), STEPS, st.none()),
    st.tuples(st.just("ask"), STEPS, st.tuples(st.integers(0, 4), st.integers(0, 8))),
    st.tuples(st.just("raised"), STEPS, st.none()),
)


class History:
    """The oracle: everything that was said of a step since it began, read anew for each question."""

    def __init__(self) -> None:
        self.events: dict[str, list[tuple[int, str, object]]] = {}

    def note(self, now: int, what: str, key: str, extra: object) -> None:
        if what == "begin":
            self.events[key] = []
        elif what == "end":
            self.events.pop(key, None)
            return
        self.events[key].append((now, what, extra))

    def due(self, now: int) -> dict[str, Due]:
        return {key: what for key in self.events if (what := self._one(key, now)) is not None}

    def _one(self, key: str, now: int) -> Due | None:
        began, _, timeout_s = self.events[key][0]
        asked = [(at, extra) for at, what, extra in self.events[key] if what == "ask"]
        is_raised = any(what == "raised" for _, what, _ in self.events[key])
        if not asked:
            return Due.ASK if timeout_s is not None and now - began > timeout_s else None
        if any(now > at + leave_s for at, (_, leave_s) in asked):
            return Due.LEAVE
        first_at, (patience_s, _) = asked[0]
        return Due.RAISE if not is_raised and now >= first_at + patience_s else None


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=40))
def test_what_is_due_follows_from_the_history(story: list):
    deadlines, history, now = Deadlines(), History(), 0
    for pause, (what, key, extra) in story:
        now += pause
        if what != "begin" and key not in history.events:
            continue
        if what == "begin":
            deadlines.begin(key, now=now, timeout_s=extra)
        elif what == "end":
            deadlines.end(key)
        elif what == "ask":
            deadlines.ask(key, now=now, patience_s=extra[0], leave_s=extra[1])
        else:
            deadlines.raised(key)
        history.note(now, what, key, extra)
        for later in range(8):
            assert history.due(now + later) == due(deadlines, now + later)


@given(st.lists(st.tuples(st.integers(0, 3), EVENTS), max_size=30))
def test_nothing_becomes_due_before_the_next_moment(story: list):
    """A loop that sleeps until `next_at` misses nothing: until then nothing new is due."""
    deadlines, now = Deadlines(), 0
    begun: set[str] = set()
    for pause, (what, key, extra) in story:
        now += pause
        if what == "begin":
            begun.add(key)
            deadlines.begin(key, now=now, timeout_s=extra)
        elif key in begun and what == "ask":
            deadlines.ask(key, now=now, patience_s=extra[0], leave_s=extra[1])
        elif key in begun and what == "end":
            begun.discard(key)
            deadlines.end(key)
    next_at = deadlines.next_at()
    until = now + 20 if next_at is None else next_at - 0.5
    moment = float(now)
    known = due(deadlines, now)
    while moment < until:
        assert known == due(deadlines, moment)
        moment += 0.5
