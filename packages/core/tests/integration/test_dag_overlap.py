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
from tidemill_core.defs.dag.locks import AllLocks, FileLock, Lock, PostgresLock, lock_for
from tidemill_core.defs.dag.overlap import OVERLAP_TAG, Turn, take_turn
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag
from tidemill_core.settings import Settings

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


def lock_of(instance: dg.DagsterInstance, name: str) -> Lock:
    """The lock that a run of commands alone takes."""
    found = lock_for(instance, name, settings=Settings(), shares=False)
    assert found is not None
    return found


def test_instance_and_warehouse_decide_which_locks_runs_share(
    instance: dg.DagsterInstance, postgres_url: str, tmp_path: Path
) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    embedded = Settings(home=tmp_path)
    real = Settings(home=tmp_path, postgres_url=postgres_url)

    with dg.instance_for_test(overrides={"storage": {"postgres": {"postgres_url": url}}}) as on_postgres:
        first, second = (lock_for(on_postgres, "d", settings=real) for _ in range(2))
        assert isinstance(first, AllLocks)
        assert isinstance(second, AllLocks)
        assert [PostgresLock, PostgresLock] == [type(each) for each in first.locks]
        assert [True, False] == [first.try_take(), second.try_take()]
        first.release()
        second.release()

    def kinds(instance: dg.DagsterInstance, settings: Settings, *, shares: bool = True) -> list[type]:
        found = lock_for(instance, "d", settings=settings, shares=shares)
        return [type(each) for each in found.locks] if isinstance(found, AllLocks) else []

    assert [FileLock, FileLock] == kinds(instance, embedded)
    assert [FileLock, PostgresLock] == kinds(instance, real)
    assert [FileLock] == kinds(instance, real, shares=False)
    inside = Settings(home=Path(instance.root_directory).parent)
    assert [FileLock] == kinds(instance, inside)
    with dg.DagsterInstance.ephemeral() as alone:
        assert [FileLock] == kinds(alone, embedded)
        assert [PostgresLock] == kinds(alone, real)
        assert [] == kinds(alone, real, shares=False)


@pytest.mark.parametrize("is_embedded", [True, False])
def test_two_machines_with_an_instance_each_take_turns_at_one_warehouse(
    tmp_path: Path, is_embedded: bool, request: pytest.FixtureRequest
) -> None:
    url = None if is_embedded else request.getfixturevalue("postgres_url")
    settings = Settings(home=tmp_path / "home", postgres_url=url)
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    with (
        dg.instance_for_test(temp_dir=str(homes[0])) as one,
        dg.instance_for_test(temp_dir=str(homes[1])) as two,
    ):
        first = lock_for(one, "main", settings=settings)
        second = lock_for(two, "main", settings=settings)
        alone = lock_for(two, "main", settings=settings, shares=False)
        assert first is not None
        assert second is not None
        assert alone is not None

        assert first.try_take()
        while_held = second.try_take()
        unshared = alone.try_take()  # the negative control: their instances alone do not keep them apart
        alone.release()
        first.release()
        wait_for(second.try_take)
        second.release()

    assert (False, True) == (while_held, unshared)


def cut(postgres_url: str) -> int:
    """Cut every connection of a lock, as a restart of the server or a firewall does."""
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'tidemill lock'"
        (found,) = connection.execute(query).fetchone() or (0,)
        return int(found)


def test_lock_whose_connection_was_cut_is_taken_again_if_nobody_had_it(postgres_url: str) -> None:
    lock, other = PostgresLock(postgres_url, "cut"), PostgresLock(postgres_url, "cut")
    assert lock.try_take()
    assert lock.is_held()

    assert cut(postgres_url) == 1
    wait_for(lambda: _answers(lock))

    assert lock.is_held()
    assert not other.try_take()
    lock.release()
    other.release()


def _answers(lock: PostgresLock) -> bool:
    from tidemill_core.errors import PostgresError

    try:
        return lock.is_held()
    except PostgresError:
        return False


@pytest.mark.parametrize("is_ended", [True, False])
def test_lock_that_somebody_had_meanwhile_is_lost(postgres_url: str, is_ended: bool) -> None:
    lock, other = PostgresLock(postgres_url, "stolen"), PostgresLock(postgres_url, "stolen")
    assert lock.try_take()
    cut(postgres_url)
    wait_for(other.try_take)
    if is_ended:
        other.release()

    is_held = lock.is_held()

    lock.release()
    other.release()
    assert not is_held


def test_file_that_was_removed_is_a_lock_lost(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "d.lock")
    lock.try_take()
    before = lock.is_held()

    (tmp_path / "d.lock").unlink()

    assert (True, False) == (before, lock.is_held())
    lock.release()


@pytest.mark.parametrize(("overlap", "error"), [("skip", RunSkipped), ("refuse", AnotherRunGoesOn)])
def test_second_run_is_skipped_or_refused_without_leaving_a_run(
    instance: dg.DagsterInstance, overlap: str, error: type[Exception]
) -> None:
    found = dag({"name": "a", "run": "true"}, name=f"second_{overlap}", overlap=overlap)
    lock = lock_of(instance, found.spec.name)
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
    lock = lock_of(instance, found.spec.name)
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
    lock = lock_of(instance, "patient")
    lock.try_take()
    said: list[str] = []
    pauses = iter([None, None, KeyboardInterrupt()])

    def pause(_seconds: float) -> None:
        error = next(pauses)
        if error is not None:
            raise error

    with (
        pytest.raises(KeyboardInterrupt),
        take_turn(instance, Turn(dag="patient", overlap="wait", shares=False), say=said.append, pause=pause),
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
    code = "import sys, tidemill_core.defs.dag.runs as r, tidemill_core.defs.dag.liveness as l; l.HEARTBEAT_S = 0.2; r.owner_tag = lambda: 'elsewhere:1:1'; "
    code += "from tidemill_core.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "dag", "run", "dags.yaml:long", "--json"]
    first = subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: len(list(tmp_path.glob("started.*"))) == 1)
    (tmp_path / "go").touch()

    second = begin(tmp_path)
    (older, _), (newer, _) = first.communicate(timeout=120), second.communicate(timeout=120)

    assert (130, "canceled") == (first.returncode, json.loads(older)["state"])
    assert (0, "done") == (second.returncode, json.loads(newer)["state"])


CALLS = """
name: {name}
overlap: wait
tasks:
  - {{name: a, call: "tasks_of_test:wait"}}
"""
TASKS = """
import time
from pathlib import Path

def wait():
    Path("started").touch()
    while not Path("go").exists():
        time.sleep(0.05)
"""


@pytest.mark.parametrize("is_stolen", [True, False])
def test_run_whose_lock_is_cut_goes_on_unless_another_had_it(
    tmp_path: Path, postgres_url: str, is_stolen: bool
) -> None:
    name = f"cut_{is_stolen}".lower()
    (tmp_path / "dags.yaml").write_text(CALLS.format(name=name))
    (tmp_path / "tasks_of_test.py").write_text(TASKS)
    code = "import sys, tidemill_core.defs.dag.overlap as o; o.CHECK_S = 0.2 if '--quick' in sys.argv else 3; "
    code += "from tidemill_core.cli import main; main([each for each in sys.argv[1:] if each != '--quick'])"
    env = {**environment(tmp_path), "TIDEMILL_POSTGRES_URL": postgres_url, "PYTHONPATH": str(tmp_path)}
    # One that looks seldom leaves the time for another one to come in between.
    quick = [] if is_stolen else ["--quick"]
    run = subprocess.Popen(
        [sys.executable, "-c", code, *quick, "dag", "run", f"dags.yaml:{name}", "--json"],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "started").exists)

    other = PostgresLock(postgres_url, f"warehouse {name}")
    assert cut(postgres_url) >= 1
    if is_stolen:
        wait_for(other.try_take)
    else:
        time.sleep(1)  # some looks
        (tmp_path / "go").touch()
    out, _ = run.communicate(timeout=120)
    other.release()

    ended = json.loads(out)
    if is_stolen:
        assert (75, "failed") == (run.returncode, ended["state"])
        assert "another run of it may have begun" in ended["error"]
    else:
        assert (0, "done", "") == (run.returncode, ended["state"], ended["error"])
