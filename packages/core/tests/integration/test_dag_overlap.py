"""Two runs of one DAG: they wait, skip, refuse or cancel, also when the holder is killed; and runs against the clock."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.dag import DagSpec, LoadedDag, loaded_dag
from tidemill_core.dag.errors import AnotherRunGoesOn, RunSkipped
from tidemill_core.defs.dag.locks import FileLock, PostgresLock, lock_for
from tidemill_core.defs.dag.overlap import OVERLAP_TAG, Turn, take_turn
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag

COMMAND = [sys.executable, "-c", "import sys; from tidemill_core.cli import main; main(sys.argv[1:])", "dag"]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def dag(*tasks: dict, name: str = "d", **rest) -> LoadedDag:
    return loaded_dag(DagSpec.model_validate({"name": name, "tasks": list(tasks), **rest}))


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


HOLDING = """
import sys
from pathlib import Path
from tidemill_core.defs.dag.locks import FileLock, PostgresLock
kind, where, mark = sys.argv[1:]
lock = FileLock(Path(where)) if kind == "file" else PostgresLock(where, "d")
assert lock.try_take()
Path(mark).touch()
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(tmp_path: Path, kind: str, where: str) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a lock in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, kind, where, str(tmp_path / "held")], stdin=subprocess.PIPE
    )
    try:
        wait_for((tmp_path / "held").exists)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["file", "postgres"])
def test_lock_is_held_by_one_process_and_freed_when_that_is_killed(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    where = str(tmp_path / "d.lock")
    if kind == "postgres":
        where = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg2://", 1)
    mine = FileLock(Path(where)) if kind == "file" else PostgresLock(where, "d")

    with holder(tmp_path, kind, where) as process:
        while_held = mine.try_take()
        process.kill()
        wait_for(mine.try_take)
        other = FileLock(Path(where)) if kind == "file" else PostgresLock(where, "d")
        while_mine = other.try_take()
        mine.release()
        wait_for(other.try_take)  # a server lets go of a lock a moment after its connection is closed
        other.release()

    assert (False, False) == (while_held, while_mine)


def test_instance_decides_which_lock_its_runs_share(instance: dg.DagsterInstance, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg2://", 1)

    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": url}}}) as on_postgres:
        first, second = lock_for(on_postgres, "d"), lock_for(on_postgres, "d")
        assert isinstance(first, PostgresLock)
        assert isinstance(second, PostgresLock)
        assert [True, False] == [first.try_take(), second.try_take()]
        first.release()
        second.release()
    assert isinstance(lock_for(instance, "d"), FileLock)
    with dg.DagsterInstance.ephemeral() as alone:
        assert lock_for(alone, "d") is None


@pytest.mark.parametrize(("overlap", "error"), [("skip", RunSkipped), ("refuse", AnotherRunGoesOn)])
def test_second_run_is_skipped_or_refused_without_leaving_a_run(
    instance: dg.DagsterInstance, overlap: str, error: type[Exception]
) -> None:
    found = dag({"name": "a", "run": "true"}, name=f"second_{overlap}", overlap=overlap)
    lock = lock_for(instance, found.spec.name)
    assert lock is not None
    lock.try_take()

    with pytest.raises(error, match=found.spec.name):
        start_dag(found, RunRequest(), instance)
    lock.release()
    alone = start_dag(found, RunRequest(), instance)

    assert "done" == alone.state
    assert 1 == instance.get_runs_count(dg.RunsFilter(job_name=found.spec.name))


@pytest.mark.parametrize(
    ("overlap", "expected"), [("refuse", dg.DagsterRunStatus.FAILURE), ("skip", dg.DagsterRunStatus.CANCELED)]
)
def test_run_that_dagster_starts_keeps_to_the_rule_too(
    instance: dg.DagsterInstance, tmp_path: Path, overlap: str, expected: dg.DagsterRunStatus
) -> None:
    from tidemill_core.defs import definitions_from_dags

    found = dag({"name": "a", "run": f"touch {tmp_path}/ran"}, name=f"launched_{overlap}", overlap=overlap)
    job = definitions_from_dags(found).resolve_job_def(found.spec.name)
    lock = lock_for(instance, found.spec.name)
    assert lock is not None
    lock.try_take()

    held = _executed(job, instance)
    lock.release()
    free = _executed(job, instance)

    assert (expected, dg.DagsterRunStatus.SUCCESS) == (held, free)


def _executed(job: dg.JobDefinition, instance: dg.DagsterInstance) -> dg.DagsterRunStatus:
    from tidemill_core.defs._dagster import InMemoryJob, execute_run_iterator

    run = instance.create_run_for_job(job)
    list(execute_run_iterator(InMemoryJob(job), run, instance))
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    return ended.status


def test_only_dags_that_wait_are_limited_by_the_run_queue() -> None:
    from tidemill_core.defs import definitions_from_dags

    waiting, allowed = (
        definitions_from_dags(dag({"name": "a", "run": "true"}, overlap=overlap)).resolve_job_def("d").tags
        for overlap in ("wait", "allow")
    )

    assert ("d", None) == (waiting.get(OVERLAP_TAG), allowed.get(OVERLAP_TAG))


def test_waiting_run_says_so_once_and_can_be_interrupted(instance: dg.DagsterInstance) -> None:
    lock = lock_for(instance, "patient")
    assert lock is not None
    lock.try_take()
    said: list[str] = []
    pauses = iter([None, None, KeyboardInterrupt()])

    def pause(_seconds: float) -> None:
        error = next(pauses)
        if error is not None:
            raise error

    with (
        pytest.raises(KeyboardInterrupt),
        take_turn(instance, Turn(dag="patient", overlap="wait"), say=said.append, pause=pause),
    ):
        pass
    lock.release()

    assert ["waiting for another run of DAG 'patient' to end"] == said


FILE = """
name: long
overlap: {overlap}
tasks:
  - {{name: a, run: "if ! test -f go; then touch started.$$; exec sleep 300; fi"}}
---
name: late
timeout_s: 1
executor: {executor}
tasks:
  - {{name: a, run: "true"}}
  - {{name: b, run: "echo $$ > pid; exec sleep 300", needs: [a]}}
"""


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    return {**kept, "TIDEMILL_HOME": str(home / "home")}


def begin(home: Path, name: str = "long") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "run", f"dags.yaml:{name}", "--json"],
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write(home: Path, *, overlap: str = "wait", executor: str = "threads") -> None:
    (home / "dags.yaml").write_text(FILE.format(overlap=overlap, executor=executor))


def test_two_runs_at_once_overlap_only_if_the_file_allows_it(tmp_path: Path) -> None:
    """The negative control of waiting: without the lock both tasks run at the same time."""
    write(tmp_path, overlap="allow")

    runs = [begin(tmp_path)]
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    runs.append(begin(tmp_path))
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 2)
    for run in runs:
        run.send_signal(signal.SIGINT)

    assert [130, 130] == [run.wait(120) for run in runs]


def test_run_waits_for_one_that_is_killed_and_then_goes_on(tmp_path: Path) -> None:
    write(tmp_path)
    first = begin(tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    (tmp_path / "go").touch()
    second = begin(tmp_path)
    assert second.stderr is not None

    told = second.stderr.readline()
    is_waiting = second.poll() is None
    first.send_signal(signal.SIGKILL)
    out, _ = second.communicate(timeout=120)

    first.wait()
    assert ("waiting for run", True) == (told[: len("waiting for run")], is_waiting)
    assert (0, "done") == (second.returncode, json.loads(out)["state"])


def test_newer_run_cancels_the_older_one(tmp_path: Path) -> None:
    write(tmp_path, overlap="cancel_older")
    first = begin(tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    (tmp_path / "go").touch()

    second = begin(tmp_path)
    (older, _), (newer, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert (130, "canceled") == (first.returncode, json.loads(older)["state"])
    assert (0, "done") == (second.returncode, json.loads(newer)["state"])


@pytest.mark.parametrize("executor", ["threads", "in_process", "multiprocess"])
def test_run_past_its_time_fails_and_its_command_is_ended(tmp_path: Path, executor: str) -> None:
    write(tmp_path, executor=executor)
    text = (tmp_path / "dags.yaml").read_text()
    (tmp_path / "dags.yaml").write_text(
        text.replace("timeout_s: 1", f"timeout_s: {20 if executor == 'multiprocess' else 1}")
    )

    process = begin(tmp_path, "late")
    out, _ = process.communicate(timeout=180)
    run = json.loads(out)

    assert (1, "failed") == (process.returncode, run["state"])
    assert "took longer than its" in run["error"]
    stat = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


DEFINITIONS = """
from tidemill_core.defs import definitions_from_dags
defs = definitions_from_dags("dags.yaml")
"""


def test_newer_run_cancels_an_older_one_that_dagster_runs(tmp_path: Path) -> None:
    write(tmp_path, overlap="cancel_older")
    (tmp_path / "location.py").write_text(DEFINITIONS)
    assert begin(tmp_path, "late").wait(120) == 1  # makes the home
    home = {**environment(tmp_path), "DAGSTER_HOME": str(tmp_path / "home/dagster")}
    execute = [sys.executable, "-m", "dagster", "job", "execute", "-f", "location.py", "-j", "long"]
    first = subprocess.Popen(execute, env=home, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    (tmp_path / "go").touch()

    second = begin(tmp_path)
    newer, _ = second.communicate(timeout=120)
    first.wait(120)

    listed = subprocess.run(
        [*COMMAND, "status", "long", "--json"], env=environment(tmp_path), cwd=tmp_path, capture_output=True, check=True
    )
    assert (0, "done") == (second.returncode, json.loads(newer)["state"])
    assert ["done", "canceled"] == [run["state"] for run in json.loads(listed.stdout)]


def test_run_of_another_machine_is_cancelled_by_a_tag_that_its_heartbeat_reads(tmp_path: Path) -> None:
    write(tmp_path, overlap="cancel_older")
    code = "import sys, tidemill_core.defs.dag.runs as r; r.HEARTBEAT_S = 0.2; r.owner_tag = lambda: 'elsewhere:1:1'; "
    code += "from tidemill_core.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "dag", "run", "dags.yaml:long", "--json"]
    first = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    (tmp_path / "go").touch()

    second = begin(tmp_path)
    (older, _), (newer, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert (130, "canceled") == (first.returncode, json.loads(older)["state"])
    assert (0, "done") == (second.returncode, json.loads(newer)["state"])
