"""A run whose process is killed is shown as failed: by the next command, and by the daemon; others are left alone."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.dag import DagSpec
from tidemill_core.defs import definitions_from_dags, prepare_home
from tidemill_core.defs.dag.liveness import fail_lost_runs
from tidemill_core.defs.dag.runs import open_instance
from tidemill_core.defs.dag.status import (
    HEARTBEAT_TAG,
    OWNER_TAG,
    PROCESS_OF_TAG,
    PROCESS_TAG,
    SILENT_S,
    owner_tag,
)
from tidemill_core.settings import Settings

COMMAND = [sys.executable, "-c", "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"]
FILE = """
name: long
tasks:
  - {name: a, run: "touch started; exec sleep 300"}
"""
DEFINITIONS = """
from tidemill_core.defs import definitions_from_dags
defs = definitions_from_dags("dags.yaml")
"""
GONE = ":".join([*owner_tag().split(":")[:2], "1"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a prepared home, whose instance this process opens, too."""
    (tmp_path / "dags.yaml").write_text(FILE)
    (tmp_path / "location.py").write_text(DEFINITIONS)
    for name in [name for name in os.environ if name.startswith(("TIDEMILL_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(prepare_home(Settings.from_env())))
    return tmp_path


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def kill_while_it_runs(home: Path, command: list[str]) -> None:
    process = subprocess.Popen(
        command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for((home / "started").exists)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


EXECUTE = [sys.executable, "-m", "dagster", "job", "execute", "-f", "location.py", "-j", "long"]


@pytest.mark.parametrize("command", [EXECUTE, [*COMMAND, "dag", "run", "dags.yaml"]], ids=["dagster", "tidemill"])
def test_killed_run_is_failed_at_the_next_command(home: Path, command: list[str]) -> None:
    kill_while_it_runs(home, command)
    with dg.DagsterInstance.get() as instance:
        before = [run.status for run in instance.get_runs()]

    listed = subprocess.run([*COMMAND, "dag", "status", "--json"], cwd=home, capture_output=True, check=True)

    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        said = [entry.message for entry in instance.all_logs(run.run_id)]
    assert [dg.DagsterRunStatus.STARTED] == before
    assert (dg.DagsterRunStatus.FAILURE, ["failed"]) == (
        run.status,
        [each["state"] for each in json.loads(listed.stdout)],
    )
    assert any("is gone: it was killed" in message for message in said)


def test_killed_run_is_failed_by_the_daemon(home: Path) -> None:
    """What Dagster's daemon does every 30 s, once; with Dagster's own launcher, the negative control, it sees nothing."""
    from dagster._core.launcher import DefaultRunLauncher
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import EmptyWorkspaceTarget
    from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

    kill_while_it_runs(home, EXECUTE)
    states = []
    with dg.DagsterInstance.get() as instance:
        ours = instance.run_launcher
        theirs = DefaultRunLauncher()
        theirs.register_instance(instance)
        with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
            for launcher in (theirs, ours):
                instance._run_launcher = launcher
                list(execute_run_monitoring_iteration(workspace, logging.getLogger("test")))
                states += [run.status for run in instance.get_runs()]

    assert [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE] == states


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("instance"))) as made:
        yield made


def made(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    parent: str | None = None,
) -> str:
    spec = DagSpec.model_validate({"name": "l", "tasks": [{"name": "a", "run": "true"}]})
    job = definitions_from_dags(spec).resolve_job_def("l")
    run = instance.create_run_for_job(job, tags=tags, status=status, parent_run_id=parent, root_run_id=parent)
    if PROCESS_TAG in tags:
        instance.add_run_tags(run.run_id, {PROCESS_OF_TAG: run.run_id})
    return run.run_id


def test_only_runs_whose_process_is_gone_are_failed(instance: dg.DagsterInstance) -> None:
    fresh, stale = f"{time.time():.0f}", f"{time.time() - SILENT_S - 5:.0f}"
    gone = made(instance, {PROCESS_TAG: GONE})
    begun = made(instance, {OWNER_TAG: GONE})
    silent = made(instance, {PROCESS_TAG: "other-host:1:1", HEARTBEAT_TAG: stale})
    stopping = made(instance, {PROCESS_TAG: GONE}, dg.DagsterRunStatus.CANCELING)
    kept = [
        made(instance, {PROCESS_TAG: owner_tag()}),
        made(instance, {PROCESS_TAG: "other-host:1:1", HEARTBEAT_TAG: fresh}),
        made(instance, {}),
        made(instance, {PROCESS_TAG: GONE}, dg.DagsterRunStatus.NOT_STARTED),
    ]
    # Repeated from the UI: Dagster copies the tags of the first run, whose process is gone.
    kept.append(
        instance.create_run_for_job(
            definitions_from_dags(
                DagSpec.model_validate({"name": "l", "tasks": [{"name": "a", "run": "true"}]})
            ).resolve_job_def("l"),
            tags={OWNER_TAG: GONE, PROCESS_TAG: GONE, PROCESS_OF_TAG: gone},
            status=dg.DagsterRunStatus.STARTING,
            parent_run_id=gone,
            root_run_id=gone,
        ).run_id
    )

    found = fail_lost_runs(instance)
    again = fail_lost_runs(instance)

    def status(run_id: str) -> dg.DagsterRunStatus:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    assert ({gone, begun, silent, stopping}, []) == (set(found), again)
    assert [dg.DagsterRunStatus.FAILURE] * 3 == [status(each) for each in (gone, begun, silent)]
    assert dg.DagsterRunStatus.CANCELED == status(stopping)
    assert not any(status(each) in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED) for each in kept)


def test_opening_the_instance_fails_lost_runs(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        gone = made(instance, {PROCESS_TAG: GONE})

    with open_instance() as instance:
        run = instance.get_run_by_id(gone)

    assert run is not None
    assert dg.DagsterRunStatus.FAILURE == run.status
