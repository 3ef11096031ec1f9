"""What is told about runs comes from recorded facts: exit codes, skipped tasks, partitions, and nothing outlives a run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from tidemill_core.dag import DagSpec, LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.process import Command, run_command
from tidemill_core.dag.report import RunView
from tidemill_core.defs.dag.request import RunRequest, partition_range
from tidemill_core.defs.dag.runs import BACKFILL_TAG, start_dag, start_range
from tidemill_core.defs.metrics import MetricsExporter
from tidemill_core.errors import ConfigError
from tidemill_core.services.processes import wait_until

PROGRAM = str(Path(sys.executable).with_name("tidemill"))
RAISING = """
from tidemill_core.errors import PermanentError, TransientError

def own_timeout():
    raise TimeoutError("TaskTimedOut: TaskTemporarilyFailed")

def wordy():
    raise ValueError("StepTimedOut RetryRequested TaskTemporarilyFailed")

def transient():
    raise TransientError("busy")

def permanent():
    raise PermanentError("no")

def slow():
    import time
    for _ in range(600):
        time.sleep(0.05)
"""

FLAKY = """
from pathlib import Path
import dagster as dg
from tidemill_core import errors
from tidemill_core.dag.errors import TaskTimedOut
from tidemill_core.defs import dagster_errors

class Flaky(dg.Component, dg.Model, dg.Resolvable):
    '''One asset that fails of one error after another, as a file lists them.'''

    errors: str

    def build_defs(self, context):
        @dg.asset
        def flaky():
            file = Path(self.errors)
            name, *rest = file.read_text().split()
            file.write_text("\\n".join(rest))
            with dagster_errors(delay_s=0):
                if name == "Caused":
                    raise errors.ConfigError("wrong") from TaskTimedOut("a", 1)
                raise getattr(errors, name)("no")

        return dg.Definitions(assets=[flaky])
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def dag(*tasks: Mapping[str, Any], name: str = "d", **rest: Any) -> LoadedDag:
    return loaded_dag(DagSpec.model_validate({"name": name, "tasks": list(tasks), **rest}))


def start(found: LoadedDag, instance: dg.DagsterInstance, **request: Any) -> RunView:
    return start_dag(found, RunRequest(**request), instance)


@pytest.mark.parametrize("executor", ["threads", "in_process", "multiprocess"])
@pytest.mark.parametrize(
    ("task", "is_temporary"),
    [
        ({"call": "raising_facts:own_timeout"}, False),
        ({"call": "raising_facts:own_timeout", "retry": {"count": 1, "delay_s": 0}}, False),
        ({"call": "raising_facts:wordy"}, False),
        ({"call": "raising_facts:wordy", "retry": {"count": 1, "delay_s": 0}}, False),
        ({"call": "raising_facts:transient", "retry": {"count": 1, "delay_s": 0}}, True),
        ({"call": "raising_facts:permanent"}, False),
        ({"run": "exit 75", "retry": {"count": 1, "delay_s": 0}}, True),
        ({"run": "exit 1"}, False),
        # The first try says later, the last one says no.
        ({"run": "test -e tried && exit 1; touch tried; exit 75", "retry": {"count": 1, "delay_s": 0}}, False),
        ({"run": "sleep 60", "timeout_s": 0.2}, True),
    ],
)
def test_only_a_last_error_that_may_pass_is_temporary(
    instance: dg.DagsterInstance, tmp_path: Path, executor: str, task: dict[str, Any], is_temporary: bool
) -> None:
    (tmp_path / "raising_facts.py").write_text(RAISING)
    spec = DagSpec.model_validate({"name": "facts", "executor": executor, "tasks": [{"name": "a", **task}]})
    (tmp_path / "facts.json").write_text(spec.model_dump_json(by_alias=True, exclude_defaults=True))
    (found,) = load_dags(tmp_path / "facts.json")

    run = start(found, instance)

    assert ("failed", is_temporary) == (run.state, run.is_temporary), run
    assert "failed" == run.tasks[0].state


@pytest.mark.parametrize("executor", ["threads", "in_process", "multiprocess"])
@pytest.mark.parametrize(
    ("errors", "is_temporary"),
    [
        (["TransientError"] * 4, True),
        (["TransientError", "PermanentError"], False),
        (["PermanentError"], False),
        # That its cause was temporary says nothing about the error that ended the step.
        (["Caused"], False),
        (["StorageError"], False),
    ],
)
def test_what_a_component_failed_of_is_recorded(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
    errors: list[str],
    is_temporary: bool,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flaky_component", raising=False)
    (tmp_path / "flaky_component.py").write_text(FLAKY)
    (tmp_path / "errors.txt").write_text("\n".join(errors))
    task = {"name": "a", "use": "flaky_component.Flaky", "with": {"errors": str(tmp_path / "errors.txt")}}
    spec = DagSpec.model_validate({"name": "flaky", "executor": executor, "tasks": [task]})
    (tmp_path / "flaky.json").write_text(spec.model_dump_json(by_alias=True, exclude_defaults=True))
    (found,) = load_dags(tmp_path / "flaky.json")

    run = start(found, instance)

    assert ("failed", is_temporary) == (run.state, run.is_temporary), run
    assert len(errors) == run.tasks[0].tries
    assert [] == (tmp_path / "errors.txt").read_text().split()


def test_a_step_that_timed_out_by_rule_is_temporary(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    (tmp_path / "raising_facts.py").write_text(RAISING)
    (tmp_path / "d.yaml").write_text("name: d\ntasks: [{name: a, call: 'raising_facts:slow', timeout_s: 0.3}]\n")
    (found,) = load_dags(tmp_path / "d.yaml")

    run = start(found, instance)

    assert ("failed", True) == (run.state, run.is_temporary), run


def test_a_skipped_task_is_skipped_for_hooks_and_metrics_too(tmp_path: Path) -> None:
    hook = {"on_success": [{"type": "command", "run": f"echo $TIDEMILL_TASK >> {tmp_path}/hooked"}]}
    found = dag(
        {"name": "a", "run": "true", "when": "false", "hooks": hook},
        {"name": "b", "run": "true", "when": "true", "hooks": hook},
        name="hooked",
    )
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        exporter = MetricsExporter(instance, settle_s=0)
        run = start(found, instance)
        exporter.refresh(60)
        scraped = exporter.scrape().decode()

    assert {"a": "skipped", "b": "done"} == {task.name: task.state for task in run.tasks}
    assert ["b"] == (tmp_path / "hooked").read_text().split()
    assert 'dagster_steps_total{job="hooked",status="skipped",step="hooked__a"} 1.0' in scraped
    assert 'dagster_steps_total{job="hooked",status="success",step="hooked__b"} 1.0' in scraped


PARTED = {"partitions": {"type": "static", "keys": ["x", "y", "z", "w"]}}


def test_a_partition_is_asked_for_before_a_run_exists(instance: dg.DagsterInstance) -> None:
    found = dag({"name": "a", "run": "true"}, name="parted", **PARTED)
    count = instance.get_runs_count()

    with pytest.raises(ConfigError, match=r"is partitioned; give --partition KEY, x, y, z, w"):
        start(found, instance)
    with pytest.raises(ConfigError, match=r"no partition 'xx'; did you mean 'x'"):
        start(found, instance, partition="xx")
    with pytest.raises(ConfigError, match="has no partitions"):
        start(dag({"name": "a", "run": "true"}), instance, partition="x")
    days = dag({"name": "a", "run": "true"}, name="days", partitions={"type": "daily", "start": "2024-01-01"})
    with pytest.raises(ConfigError, match=r"no partition '2023-12-31'"):
        start(days, instance, partition="2023-12-31")

    assert count == instance.get_runs_count()


def test_a_retry_runs_in_the_partition_of_the_run_it_retries(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    line = f"echo ${{partition.key}} >> {tmp_path}/keys; test -e {tmp_path}/fixed"
    found = dag({"name": "a", "run": line}, name="again", **PARTED)

    failed = start(found, instance, partition="y")
    (tmp_path / "fixed").touch()
    done = start(found, instance, retry_run=failed.id)

    assert ("failed", "done") == (failed.state, done.state)
    assert ["y", "y"] == (tmp_path / "keys").read_text().split()


def test_a_range_runs_in_order_and_ends_at_the_first_failure(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    line = f"echo ${{partition.key}} >> {tmp_path}/keys; test ${{partition.key}} != z"
    found = dag({"name": "a", "run": line}, name="ranged", **PARTED)

    keys = partition_range(found, "x...w")
    ended = list(start_range(found, RunRequest(), keys, instance))

    assert ["x", "y", "z", "w"] == keys
    assert ["done", "done", "failed"] == [each.state for each in ended]
    assert ["x", "y", "z"] == (tmp_path / "keys").read_text().split()
    runs = [instance.get_run_by_id(each.id) for each in ended]
    assert 1 == len({run.tags[BACKFILL_TAG] for run in runs if run})
    for text, message in (("x", "is not FROM...TO"), ("z...x", "runs backwards"), ("x...q", "no partition 'q'")):
        with pytest.raises(ConfigError, match=message):
            partition_range(found, text)


def test_the_command_runs_a_range_and_says_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\npartitions: {type: daily, start: '2024-01-01'}\n"
        "tasks: [{name: a, run: 'test ${partition.key} != 2024-01-02'}]\n"
    )
    env = {**os.environ, "TIDEMILL_HOME": str(tmp_path / "home")}
    env.pop("DAGSTER_HOME", None)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "dag", "run", "p.yaml", *options]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    missing, ranged = run(), run("--partition-range", "2024-01-01...2024-01-05")

    assert 3 == missing.returncode
    assert "error: DAG 'p' is partitioned; give --partition KEY, 2024-01-01 ... " in missing.stderr
    assert 1 == ranged.returncode
    assert "stopped after 2 of 5 partitions; --partition-range 2024-01-02...2024-01-05" in ranged.stderr


def test_a_range_that_another_run_keeps_out_is_not_called_done(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: p\noverlap: skip\npartitions: {type: static, keys: [a, b]}\n"
        "tasks: [{name: t, run: 'touch begun; while ! test -e go; do sleep 0.05; done'}]\n"
    )
    env = {**os.environ, "TIDEMILL_HOME": str(tmp_path / "home")}
    env.pop("DAGSTER_HOME", None)
    command = [PROGRAM, "dag", "run", "p.yaml"]
    first = subprocess.Popen([*command, "--partition", "a"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    assert wait_until((tmp_path / "begun").exists, 120)

    ranged = subprocess.run(
        [*command, "--partition-range", "a...b"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    (tmp_path / "go").touch()

    assert 0 == first.wait(120)
    assert 75 == ranged.returncode, ranged.stderr
    assert "DAG 'p' is skipped" in ranged.stdout
    assert "stopped after 0 of 2 partitions; --partition-range a...b" in ranged.stderr


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("executor", ["threads", "in_process"])
def test_commands_and_their_children_end_when_the_run_is_killed(tmp_path: Path, executor: str) -> None:
    line = "sleep 300 & echo $! > child; echo $$ > shell; wait"
    (tmp_path / "k.yaml").write_text(f"name: k\nexecutor: {executor}\ntasks: [{{name: a, run: '{line}'}}]\n")
    env = {**os.environ, "TIDEMILL_HOME": str(tmp_path / "home")}
    process = subprocess.Popen([PROGRAM, "dag", "run", "k.yaml"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    shell = tmp_path / "shell"
    assert wait_until(lambda: shell.exists() and bool(shell.read_text().strip()), 120)
    pids = [int((tmp_path / name).read_text()) for name in ("child", "shell")]
    assert all(is_running(pid) for pid in pids)  # the negative control: only the kill ends them

    process.send_signal(signal.SIGKILL)
    process.wait(60)

    assert wait_until(lambda: not any(is_running(pid) for pid in pids), 60)


def command(run: str, folder: Path, **rest: Any) -> Command:
    return Command(task="t", run=run, env={}, cwd=folder, **rest)


def test_a_background_child_that_keeps_the_output_open_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()

    run_command(command("sleep 40 & echo $! > pid; echo printed; printf unfinished", tmp_path))
    took = time.monotonic() - began

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert took < 30  # not the 40 of the child
    assert "[t] printed\n[t] unfinished\n" == capsys.readouterr().out


def test_all_that_a_command_prints_is_copied_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(command("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done; printf é", tmp_path))

    assert [f"[t] line {number}" for number in range(20_000)] + ["[t] é"] == capsys.readouterr().out.splitlines()


def test_a_long_line_without_end_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "import sys; sys.stdout.write('x' * 30_000_000 + chr(10) + 'y')"

    run_command(Command(task="t", run=[sys.executable, "-c", line], env={}, cwd=tmp_path))

    assert ["[t] " + "x" * 30_000_000, "[t] y"] == capsys.readouterr().out.splitlines()
