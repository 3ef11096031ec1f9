"""The outbox: a place a sink, parts and wholes, and what is left after a process or a file is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tidemill_lineage.delivery.outbox import KEEP_S, Outbox, Sink
from tidemill_lineage.model import Dataset, Run

MERGING, ENDING = Sink(key="merging", wholes=False), Sink(key="ending", wholes=True)


def a_run(number: int = 0, *, run: str = "R", job: str = "j", state: str = "COMPLETE") -> Run:
    wrote = (Dataset(urn=f"t://{number}"),)
    return Run(id=run, job=job, state=state, started_at=number, ended_at=number + 0.5, writes=wrote)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "outbox.sqlite"


@pytest.fixture
def box(path: Path) -> Iterator[Outbox]:
    box = Outbox(path)
    yield box
    box.close()


def taken(box: Outbox, sink: Sink) -> list[Run]:
    parcels = box.next(sink.key)
    box.advance(sink.key, parcels)
    return [run for parcel in parcels for run in parcel.runs]


def test_a_sink_gets_what_it_missed_from_another_process(box: Outbox, path: Path) -> None:
    box.put(box.channel([MERGING]), [a_run(1)])
    box.close()

    later = Outbox(path)

    assert taken(later, MERGING) == [a_run(1)]
    assert taken(later, MERGING) == []


def test_no_sink_waits_for_another(box: Outbox) -> None:
    other = Sink(key="other", wholes=False)
    box.put(box.channel([MERGING, other]), [a_run(1), a_run(2)])

    assert len(taken(box, MERGING)) == 2
    assert box.waiting(MERGING.key) == 0
    assert box.waiting(other.key) == 2
    assert len(taken(box, other)) == 2


def test_a_sink_is_not_given_what_another_tracer_wrote_for_others(box: Outbox) -> None:
    box.put(box.channel([Sink(key="theirs", wholes=False)]), [a_run(1)])
    box.put(box.channel([MERGING]), [a_run(2)])

    assert taken(box, MERGING) == [a_run(2)]


def test_the_parts_of_a_run_become_one_whole_when_it_ends(box: Outbox) -> None:
    channel = box.channel([MERGING, ENDING])
    box.put(channel, [a_run(1)])
    box.put(channel, [a_run(2)])

    before = taken(box, ENDING)
    box.end()
    (whole,) = taken(box, ENDING)

    assert before == []
    assert (whole.calls, whole.started_at, whole.ended_at) == (2, 1, 2.5)
    assert [each.urn for each in whole.writes] == ["t://1", "t://2"]
    assert len(taken(box, MERGING)) == 2


def test_a_job_that_goes_on_after_its_run_ended_is_another_attempt(box: Outbox) -> None:
    channel = box.channel([ENDING])
    for number in range(3):
        box.put(channel, [a_run(number)])
        box.end()

    assert [run.attempt for run in taken(box, ENDING)] == [0, 1, 2]


def test_a_run_is_open_while_another_process_takes_part(box: Outbox, path: Path) -> None:
    channel = box.channel([ENDING])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        Outbox(path).put(channel, [a_run(1)])
        os.write(write, b"x")
        os.read(os.open("/dev/zero", os.O_RDONLY), 1)
        signal_wait()
    os.read(read, 1)
    box.put(channel, [a_run(2)])

    box.end()
    while_alive = taken(box, ENDING)
    os.kill(child, 9)
    os.waitpid(child, 0)
    box.reap()

    assert while_alive == []
    assert [run.calls for run in taken(box, ENDING)] == [2]


def signal_wait() -> None:
    import signal

    while True:
        signal.pause()


def test_rows_that_every_sink_has_are_deleted(box: Outbox) -> None:
    channel = box.channel([MERGING, ENDING])
    box.put(channel, [a_run(number) for number in range(10)])
    box.end()
    taken(box, MERGING)
    taken(box, ENDING)

    assert box._read(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()) == (0,)


def test_a_run_put_again_under_its_key_goes_out_once(box: Outbox) -> None:
    channel = box.channel([MERGING])
    for _ in range(2):
        box.put(channel, [a_run(1), a_run(2)], keys=[b"one", b"two"])

    assert len(taken(box, MERGING)) == 2


def test_what_no_sink_came_for_is_dropped_and_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = [1_000.0]
    box = Outbox(path, clock=lambda: now[0])
    box.put(box.channel([MERGING]), [a_run(1)])

    kept = box.expire()
    now[0] += KEEP_S + 1
    dropped = box.expire()

    assert (kept, dropped) == (0, 1)
    assert "lineage_expired" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"this is no database, and longer than a header of SQLite has to be" * 20])
def test_a_damaged_file_is_set_aside_and_told(path: Path, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    box = Outbox(path)

    box.put(box.channel([MERGING]), [a_run(1)])

    aside = list(path.parent.glob("outbox.sqlite.damaged-*"))
    assert taken(box, MERGING) == [a_run(1)]
    assert [each.read_bytes() for each in aside] == ([damage] if damage else [])
    assert ("lineage_file_damaged" in capsys.readouterr().err) == bool(damage)


def test_an_outbox_that_cannot_be_written_waits_in_memory_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    box = Outbox(tmp_path / "file" / "outbox.sqlite")

    box.put(box.channel([MERGING]), [a_run(1)])

    assert taken(box, MERGING) == [a_run(1)]
    assert "lineage_no_outbox" in capsys.readouterr().err


class Deliveries(RuleBasedStateMachine):
    """Two channels that share a sink, reopened at will, against lists in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Outbox(None)
        self.sinks = {"left": [MERGING, ENDING], "right": [MERGING]}
        self.sent = self.open = 0
        self.expected: list[int] = []
        self.got: list[int] = []
        self.wholes: dict[str, int] = {}
        self.whole_calls = 0

    @rule(side=st.sampled_from(["left", "right"]), run=st.sampled_from(["A", "B"]), count=st.integers(1, 3))
    def put(self, side: str, run: str, count: int) -> None:
        numbers = range(self.sent, self.sent + count)
        self.sent += count
        self.expected += numbers
        self.open += count if side == "left" else 0
        self.box.put(self.box.channel(self.sinks[side]), [a_run(number, run=run) for number in numbers])

    @rule(limit=st.integers(1, 4))
    def deliver(self, limit: int) -> None:
        parcels = self.box.next(MERGING.key, limit)
        self.got += [int(run.started_at) for parcel in parcels for run in parcel.runs]
        self.box.advance(MERGING.key, parcels)

    @rule()
    def lose_the_acknowledgement(self) -> None:
        assert [p.seq for p in self.box.next(MERGING.key, 2)] == [p.seq for p in self.box.next(MERGING.key, 2)]

    @rule()
    def end(self) -> None:
        self.box.end()
        self.whole_calls += self.open
        self.open = 0

    @rule()
    def deliver_wholes(self) -> None:
        self.whole_calls -= sum(run.calls for run in taken(self.box, ENDING))
        assert self.whole_calls == 0

    @invariant()
    def each_part_arrives_once_and_in_order(self) -> None:
        assert self.got == self.expected[: len(self.got)]
        assert self.box.waiting(MERGING.key) == len(self.expected) - len(self.got)


Deliveries.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestDeliveries = Deliveries.TestCase
