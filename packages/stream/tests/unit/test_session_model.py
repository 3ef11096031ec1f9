"""Session windows against a model that keeps nothing but the records and looks at all of them every time."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tidemill_stream.windows.aggregates import make_reducer
from tidemill_stream.windows.windows import SessionWindows

GAP = 5
KEYS = [("a",), ("b",), (None,)]
Closed = tuple[int, int, tuple[Any, ...], int, int]
Record = tuple[int, int]
"""Time and value."""


@dataclass
class Model:
    """The definition: records of a key whose times are at most a gap apart are one session.

    A session is over when the watermark, the largest time seen, is more than gap and grace after its last
    record. A record that belongs to no session which is not over, and would make one that is, is late.
    """

    grace: int
    watermark: int | None = None
    open: dict[tuple[Any, ...], list[list[Record]]] = field(default_factory=dict)

    def is_over(self, session: list[Record]) -> bool:
        assert self.watermark is not None
        return max(time for time, _ in session) < self.watermark - GAP - self.grace

    def add(self, time: int, key: tuple[Any, ...], value: int) -> bool:
        self.watermark = time if self.watermark is None else max(self.watermark, time)
        sessions = self.open.get(key, [])
        going = [each for each in sessions if not self.is_over(each)]
        over = [each for each in sessions if self.is_over(each)]
        near = [each for each in going if any(abs(time - other) <= GAP for other, _ in each) or covers(each, time)]
        if not near and self.is_over([(time, value)]):
            return False
        joined = [record for each in near for record in each] + [(time, value)]
        self.open[key] = over + [each for each in going if each not in near] + [joined]
        return True

    def take(self) -> list[Closed]:
        if self.watermark is None:
            return []
        return self._remove(self.is_over)

    def flush(self) -> list[Closed]:
        times = [time for sessions in self.open.values() for each in sessions for time, _ in each]
        if times and self.watermark is not None:
            self.watermark = max(self.watermark, max(times) + GAP + self.grace + 1)
        return self._remove(lambda _: True)

    def _remove(self, is_taken) -> list[Closed]:
        found: list[Closed] = []
        for key, sessions in list(self.open.items()):
            found += [closed(key, each) for each in sessions if is_taken(each)]
            self.open[key] = [each for each in sessions if not is_taken(each)]
            if not self.open[key]:
                del self.open[key]
        return sorted(found, key=lambda each: (each[0], each[1], each[2][0] is None, str(each[2][0])))


def covers(session: list[Record], time: int) -> bool:
    times = [each for each, _ in session]
    return min(times) <= time <= max(times)


def closed(key: tuple[Any, ...], session: list[Record]) -> Closed:
    times = [time for time, _ in session]
    return min(times), max(times) + GAP, key, len(session), sum(value for _, value in session)


def make(grace: int) -> SessionWindows:
    return SessionWindows(make_reducer([("count", None), ("sum", "v")]), gap_us=GAP, grace_us=grace)


def told(windows: list[Any]) -> list[Closed]:
    return [(each.start_us, each.end_us, each.key, *each.values) for each in windows]


ADD = st.tuples(st.just("add"), st.integers(0, 80), st.sampled_from(KEYS), st.integers(-3, 9))
ACTIONS = st.lists(ADD | ADD | ADD | ADD | st.sampled_from([("take",), ("flush",), ("restart",)]), max_size=60)


@settings(max_examples=600)
@given(actions=ACTIONS, grace=st.sampled_from([0, 1, 7, 30]))
# A late record that bridges a session that is over and one that goes on.
@example(
    actions=[("add", 0, ("a",), 1), ("add", 40, ("b",), 1), ("add", 10, ("a",), 1), ("add", 5, ("a",), 1), ("take",)],
    grace=30,
)
@example(
    actions=[("add", 50, ("a",), 1), ("flush",), ("add", 55, ("a",), 2), ("add", 57, ("a",), 3), ("take",)], grace=0
)
# A long session that began before a short one, and ends after it.
@example(
    actions=[
        *(("add", time, ("b",), 1) for time in (0, 4, 8, 12)),
        ("add", 5, ("a",), 1),
        ("add", 80, ("a",), 1),
        ("take",),
    ],
    grace=30,
)
def test_sessions_are_what_the_definition_says_however_they_are_taken_flushed_and_restarted(
    actions: list[tuple[Any, ...]], grace: int
) -> None:
    windows, model = make(grace), Model(grace)
    for action in actions:
        if action[0] == "add":
            _, time, key, value = action
            assert windows.add(time, key, SimpleNamespace(f_v=value)) is model.add(time, key, value), action
        elif action[0] == "take":
            assert told(windows.take_closed()) == model.take()
        elif action[0] == "flush":
            # Sessions that were over already may leave in two parts; a flush takes all that is left.
            assert told(windows.flush()) == model.flush()
        else:
            state, watermark = windows.dump(), windows.watermark_us
            windows = make(grace)
            windows.restore(state)
            windows.watermark_us = watermark
        assert model.watermark == windows.watermark_us
        assert sum(map(len, model.open.values())) == len(windows)
    windows.flush()
    assert [] == windows.dump()
    assert {} == windows._open  # a key without sessions is forgotten
