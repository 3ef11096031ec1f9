"""What every emitter must do, and what every one that merges parts must; subclass and give the fixtures."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from tidemill_core.testing.suites._suite import Suite

from tidemill_lineage.capture.declared import declare
from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.model import Edge, Run, column_urn

Open = Callable[[], Emitter]
"""Opens the same sink anew, as another process does."""
Read = Callable[[], set[tuple[str, str, str]]]
"""Reads the edges a sink has in force: source, target, run."""

TARGET = "t://suite/out"


def a_run(run: str, at: float, *sources: str, job: str = "j") -> Run:
    """One job's run that made column ``c0``, ``c1``, ... of the target from these ``urn#column``."""
    columns = {f"c{number}": [source] for number, source in enumerate(sources)}
    return declare(job=job, output=TARGET, columns=columns, run_id=run, at=at)


class EmitterSuite(Suite):
    """The contract of `Emitter`. The fixture `open_emitter` opens one sink, again at each call."""

    @pytest.fixture
    def open_emitter(self) -> Open:
        """Open the same sink again."""
        raise AssertionError("subclass EmitterSuite and give the fixture `open_emitter`")

    def test_a_sink_is_known_by_the_same_name_in_every_process(self, open_emitter: Open) -> None:
        """Else nobody could deliver to it what an earlier process left."""
        assert open_emitter().identity == open_emitter().identity
        assert open_emitter().name

    def test_nothing_to_emit_is_no_error(self, open_emitter: Open) -> None:
        """Such as after a restart."""
        emitter = open_emitter()

        emitter.emit([])
        emitter.close()

    def test_it_is_used_again_after_it_was_closed(self, open_emitter: Open) -> None:
        """A tracer that was closed may be used again."""
        emitter = open_emitter()
        emitter.emit([a_run("1", 1, "t://suite/a#x")])
        emitter.close()

        emitter.emit([a_run("2", 2, "t://suite/a#x")])
        emitter.close()
        emitter.close()


class MergingEmitterSuite(EmitterSuite):
    """The contract of an emitter that keeps a graph; `read_edges` says what it holds."""

    @pytest.fixture
    def read_edges(self) -> Read:
        """Read what is in force, of the target of this suite."""
        raise AssertionError("subclass MergingEmitterSuite and give the fixture `read_edges`")

    def test_edges_carry_their_run(self, open_emitter: Open, read_edges: Read) -> None:
        """And the newest run is named."""
        open_emitter().emit([a_run("1", 1, "t://suite/a#x"), a_run("2", 2, "t://suite/a#x")])

        assert read_edges() == {("t://suite/a#x", f"{TARGET}#c0", "2")}

    @pytest.mark.parametrize("seed", range(4))
    def test_order_and_batches_do_not_matter(self, open_emitter: Open, read_edges: Read, seed: int) -> None:
        """A run in two parts around another, a late older run, and a second job."""
        told = [
            a_run("R", 1, "t://suite/a#x", "t://suite/b#x"),
            a_run("Q", 3, "t://suite/c#x"),
            a_run("R", 5, "t://suite/a#y"),
            a_run("P", 2, "t://suite/d#x", job="k"),
        ]
        shuffle = random.Random(seed)  # noqa: S311  # no secret
        shuffled = shuffle.sample(told, len(told))

        while shuffled:
            size = shuffle.randint(1, 2)
            open_emitter().emit(shuffled[:size])
            shuffled = shuffled[size:]

        assert read_edges() == {
            ("t://suite/a#x", f"{TARGET}#c0", "R"),
            ("t://suite/b#x", f"{TARGET}#c1", "R"),
            ("t://suite/a#y", f"{TARGET}#c0", "R"),
            ("t://suite/d#x", f"{TARGET}#c0", "P"),
        }

    def test_a_source_that_a_job_stops_reading_is_dropped(self, open_emitter: Open, read_edges: Read) -> None:
        """The newest run says all there is to say of its target."""
        open_emitter().emit([a_run("1", 1, "t://suite/a#x", "t://suite/b#x")])

        open_emitter().emit([a_run("2", 2, "t://suite/b#x")])

        assert read_edges() == {("t://suite/b#x", f"{TARGET}#c0", "2")}

    def test_a_failed_or_idle_run_drops_nothing(self, open_emitter: Open, read_edges: Read) -> None:
        """The last good edges stay."""
        emitter = open_emitter()
        emitter.emit([a_run("1", 1, "t://suite/a#x")])

        emitter.emit([replace(a_run("2", 2, "t://suite/b#x"), state="FAIL")])
        emitter.emit([replace(a_run("3", 3), reads=(), edges=())])

        assert read_edges() == {("t://suite/a#x", f"{TARGET}#c0", "1")}


def spelled(edges: list[Edge] | tuple[Edge, ...]) -> set[tuple[str, str, str]]:
    """Spell edges as `Read` does."""
    return {
        (column_urn(e.source, e.source_column), column_urn(e.target, e.target_column), e.run)
        for e in edges
        if e.target == TARGET
    }
