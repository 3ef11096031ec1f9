"""Tasks that run another DAG: parameters in, outputs back, failure and stop passed on, circles refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import load_dags
from tidemill_core.dag.report import RunView
from tidemill_core.defs.dag.child_run import STARTED_BY_TAG
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag

CHILD = """
name: child
params: {n: {type: int}, names: {type: list, default: []}}
tasks:
  - {name: a, run: "echo twice=$((2 * ${params.n})) >> $TIDEMILL_OUTPUTS", outputs: [twice]}
  - {name: b, run: "exit ${params.n}", needs: [a], when: params.n > 5}
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def parent(tmp_path: Path, n: object = 3, *, kind: str = "asset", more: str = "") -> None:
    (tmp_path / "child.yaml").write_text(CHILD.replace("name: child", f"name: child\nkind: {kind}", 1))
    (tmp_path / "parent.yaml").write_text(
        f"name: parent\nkind: {kind}\ntasks:\n"
        f"  - {{name: inner, dag: child, params: {{n: {n}}}, outputs: [twice]{more}}}\n"
        f'  - {{name: after, run: ["sh", "-c", "echo $1 > {tmp_path}/out", "-", "${{outputs.inner.twice}}"], needs: [inner]}}\n'
    )


def start(tmp_path: Path, instance: dg.DagsterInstance, **request: object) -> RunView:
    found = next(each for each in load_dags(tmp_path) if each.spec.name == "parent")
    return start_dag(found, RunRequest(**request), instance)


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_child_gets_parameters_gives_outputs_and_is_a_run_of_its_own(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    parent(tmp_path, kind=kind)

    run = start(tmp_path, instance)

    tags = {STARTED_BY_TAG: f"{run.id}/inner"}
    children = instance.get_runs(dg.RunsFilter(job_name="child", tags=tags))
    assert ("done", "6\n") == (run.state, (tmp_path / "out").read_text()), run
    assert [dg.DagsterRunStatus.SUCCESS] == [each.status for each in children]


@pytest.mark.parametrize(("n", "is_temporary"), [(6, False), (75, True)])
def test_failure_of_the_child_fails_the_task_in_its_kind(
    instance: dg.DagsterInstance, tmp_path: Path, n: int, *, is_temporary: bool
) -> None:
    parent(tmp_path, n, more=", retry: 0")

    run = start(tmp_path, instance)

    states = {task.name: task.state for task in run.tasks}
    assert {"inner": "failed", "after": "not run"} == states
    assert is_temporary == run.is_temporary
    assert is_temporary or f"exit code {n}" in run.tasks[0].error


def test_child_of_a_run_that_leaves_no_trace_leaves_none(tmp_path: Path) -> None:
    parent(tmp_path)

    with dg.DagsterInstance.ephemeral() as alone:
        run = start(tmp_path, alone)

        assert ("done", "6\n") == (run.state, (tmp_path / "out").read_text())
        assert 1 == alone.get_runs_count()


def test_stop_of_the_parent_cancels_the_child(tmp_path: Path) -> None:
    (tmp_path / "dags.yaml").write_text(
        "name: slow\ntasks: [{name: a, run: 'echo $$ > pid; exec sleep 300'}]\n---\n"
        "name: outer\ntasks: [{name: inner, dag: slow}]\n"
    )
    code = "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    env = {**kept, "TIDEMILL_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, "dag"]
    process = subprocess.Popen([*command, "run", "dags.yaml:outer"], cwd=tmp_path, env=env)
    end = time.monotonic() + 120
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)

    process.send_signal(signal.SIGTERM)
    process.wait(120)

    listed = subprocess.run([*command, "status", "--json"], cwd=tmp_path, env=env, capture_output=True, check=True)
    states = {run["dag"]: run["state"] for run in json.loads(listed.stdout)}
    stat = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    assert 130 == process.returncode
    assert {"outer": "canceled", "slow": "canceled"} == states
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def faults(tmp_path: Path, text: str) -> tuple[list[int], str]:
    (tmp_path / "dags.yaml").write_text(text)
    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path / "dags.yaml")
    return [fault.place.line for fault in caught.value.faults], str(caught.value)


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("dag: chlid, params: {n: 1}", "did you mean 'child'"),
        ("dag: child", "needs the parameter n"),
        ("dag: child, params: {n: x}", "not of type int"),
        ("dag: child, params: {n: 1, nmaes: [a]}", "did you mean 'names'"),
        ("dag: child, params: {n: 1}, outputs: [twiec]", "did you mean 'twice'"),
        ("dag: 'other.yaml:child', params: {n: 1}", "no file 'other.yaml'"),
        ("dag: child, params: {n: 1}, run: x", "found run and dag"),
        ("run: x, params: {n: 1}", "goes only with dag"),
        ("dag: child, params: {n: '${outputs.x.y}'}", "unknown task 'x'"),
    ],
)
def test_wrong_use_of_another_dag_is_named_at_its_line(tmp_path: Path, task: str, fault: str) -> None:
    lines, text = faults(tmp_path, f"name: p\ntasks:\n  - {{name: i, {task}}}\n---{CHILD}")

    assert [3] == lines
    assert fault in text


def test_dags_that_run_each_other_in_a_circle_are_refused_wherever_the_circle_begins(tmp_path: Path) -> None:
    def link(name: str, to: str) -> str:
        return f"name: {name}\ntasks: [{{name: t, dag: {to}}}]\n"

    lines, text = faults(tmp_path, "---\n".join([link("a", "b"), link("b", "c"), link("c", "b"), link("s", "s")]))

    assert [2, 5, 8, 11] == sorted(lines)
    for drawn in ("b -> c -> b", "c -> b -> c", "s -> s"):
        assert f"circle: {drawn}" in text
