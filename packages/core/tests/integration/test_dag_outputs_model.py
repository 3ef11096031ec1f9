"""Whose outputs a run reads, against a list of what has been run: whole runs, some tasks only, retries, failures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tidemill_core.dag import LoadedDag, load_dags
from tidemill_core.dag.report import RunView
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag
from tidemill_core.errors import ConfigError

FILE = """
name: {name}
kind: {kind}
executor: in_process
params: {{x: {{type: str, default: "0"}}}}
partitions: {{type: static, keys: [p, q]}}
tasks:
  - {{name: make, call: "{name}_data:make", outputs: [n]}}
  - {{name: use, call: "{name}_data:use", needs: [make], arguments: {{n: "${{outputs.make.n}}"}}}}
  - {{name: last, call: "{name}_data:last", needs: [use]}}
"""
CALLED = """
from pathlib import Path

HERE = Path(__file__).parent

def make():
    file = HERE / "count"
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return {"n": number}

def use(n):
    (HERE / "seen").write_text(str(n))
    if (HERE / "use_fails").exists():
        raise ValueError("as it should")

def last():
    if (HERE / "last_fails").exists():
        raise ValueError("as it should")
"""
NAMES = itertools.count()


@dataclass
class Ran:
    """One run as the model knows it.

    Attributes:
        made: What its `make` returned; None if it had none, and its retries too.
        stands: What stands for it, in a run without `make`.
    """

    id: str
    x: str
    partition: str
    is_failed: bool
    made: int | None
    stands: int | None
    left: tuple[str, ...]
    """Tasks that a retry of it runs."""


@dataclass
class Model:
    """Runs a DAG step by step, and says beforehand what each run must read."""

    dag: LoadedDag
    folder: Path
    instance: dg.DagsterInstance
    runs: list[Ran] = field(default_factory=list)
    count: int = 0

    def newest(self, x: str, partition: str) -> int | None:
        """What the newest run of the same parameters and partition has made."""
        found = [run.made for run in self.runs if (run.x, run.partition) == (x, partition) and run.made is not None]
        return found[-1] if found else None

    def start(self, fails: str | None, **request: Any) -> RunView:
        for task in ("use", "last"):
            (self.folder / f"{task}_fails").unlink(missing_ok=True)
        if fails:
            (self.folder / f"{fails}_fails").touch()
        (self.folder / "seen").unlink(missing_ok=True)
        return start_dag(self.dag, RunRequest(**request), self.instance)

    @property
    def seen(self) -> int | None:
        """What `use` was given in the last run."""
        file = self.folder / "seen"
        return int(file.read_text()) if file.exists() else None

    def whole(self, x: str, partition: str, fails: str | None) -> None:
        run = self.start(fails, params={"x": x}, partition=partition)
        self.count += 1
        assert self.count == self.seen
        left = {None: (), "use": ("use", "last"), "last": ("last",)}[fails]
        self.note(run, x, partition, fails, Ran(run.id, x, partition, fails is not None, self.count, None, left))

    def some(self, x: str, partition: str, fails: str | None) -> None:
        """Only `use` and what follows: on the outputs of another run."""
        expected = self.newest(x, partition)
        if expected is None:
            with pytest.raises(ConfigError, match="no finished run"):
                self.start(fails, params={"x": x}, partition=partition, start=["use"])
            assert self.seen is None
            return
        run = self.start(fails, params={"x": x}, partition=partition, start=["use"])
        assert expected == self.seen
        left = {None: (), "use": ("use", "last"), "last": ("last",)}[fails]
        self.note(run, x, partition, fails, Ran(run.id, x, partition, fails is not None, None, expected, left))

    def named(self, x: str, partition: str, fails: str | None, which: int) -> None:
        """The same on the outputs of a run that is named, whatever its parameters."""
        if not self.runs:
            return
        other = self.runs[which % len(self.runs)]
        request = {"params": {"x": x}, "partition": partition, "start": ["use"], "outputs_from": other.id}
        if other.made is None:
            with pytest.raises(ConfigError, match="has no outputs of 'make'"):
                self.start(fails, **request)
            return
        run = self.start(fails, **request)
        assert other.made == self.seen
        left = {None: (), "use": ("use", "last"), "last": ("last",)}[fails]
        self.note(run, x, partition, fails, Ran(run.id, x, partition, fails is not None, None, other.made, left))

    def retry(self, fails: str | None, which: int) -> None:
        """Run again what did not succeed, on the outputs of the run that is retried."""
        failed = [run for run in self.runs if run.is_failed]
        if not failed:
            return
        parent = failed[which % len(failed)]
        fails = fails if fails in parent.left else None
        run = self.start(fails, retry_run=parent.id)
        if "use" in parent.left:
            assert (parent.made or parent.stands) == self.seen
        else:
            assert self.seen is None
        left = parent.left[parent.left.index(fails) :] if fails else ()
        again = Ran(run.id, parent.x, parent.partition, fails is not None, parent.made, parent.stands, left)
        self.note(run, parent.x, parent.partition, fails, again)

    def note(self, run: RunView, x: str, partition: str, fails: str | None, ran: Ran) -> None:
        assert ("failed" if fails else "done") == run.state, run
        record = self.instance.get_run_by_id(run.id)
        assert record is not None
        assert partition == record.tags[outputs.PARTITION_TAG]
        self.runs.append(ran)


X = st.sampled_from(["0", "1"])
PARTITION = st.sampled_from(["p", "q"])
FAILS = st.sampled_from([None, None, "use", "last"])
STEP = st.one_of(
    st.tuples(st.just("whole"), X, PARTITION, FAILS),
    st.tuples(st.just("some"), X, PARTITION, FAILS),
    st.tuples(st.just("named"), X, PARTITION, FAILS, st.integers(0, 9)),
    st.tuples(st.just("retry"), FAILS, st.integers(0, 9)),
    st.tuples(st.just("retry"), FAILS, st.integers(0, 9)),
)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def model(folder: Path, instance: dg.DagsterInstance, kind: str) -> Model:
    name = f"kept{next(NAMES)}"
    (folder / f"{name}_data.py").write_text(CALLED)
    (folder / "d.yaml").write_text(FILE.format(name=name, kind=kind))
    (dag,) = load_dags(folder / "d.yaml")
    return Model(dag, folder, instance)


@pytest.mark.parametrize("kind", ["asset", "op"])
@settings(
    deadline=None,
    max_examples=6,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=st.lists(STEP, min_size=4, max_size=9))
def test_a_run_reads_what_the_list_of_runs_says(
    instance: dg.DagsterInstance, tmp_path_factory: pytest.TempPathFactory, kind: str, story: list
) -> None:
    runs = model(tmp_path_factory.mktemp("dag"), instance, kind)

    for what, *rest in story:
        getattr(runs, what)(*rest)


def test_the_list_finds_a_run_that_takes_the_newest_outputs_of_all(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: parameters are not asked for."""
    runs = model(tmp_path, instance, "asset")
    runs.whole("0", "p", None)
    runs.whole("1", "p", None)
    monkeypatch.setattr(outputs, "params_digest", lambda _params: "")
    monkeypatch.setattr(outputs, "_params_of", lambda _metadata: "")

    with pytest.raises(AssertionError):
        runs.some("0", "p", None)
