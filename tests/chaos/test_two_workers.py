"""Two Celery workers on a real Redis share a load and a sync; one is killed in the middle; the result is exact."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml

from tests.chaos.spread_job import FILES, KEYS, PREFIXES, ROWS, lay_out

JOB = Path(__file__).parent / "spread_job.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def redis(tmp_path):
    program = shutil.which("redis-server")
    if program is None:
        if "redis" in os.environ.get("TIDEMILL_REQUIRE", ""):
            pytest.fail("TIDEMILL_REQUIRE names redis: no redis-server (Debian: redis-server)")
        pytest.skip("no redis-server on this machine")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None, within_s=20)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def wait(is_so, *, within_s: float) -> None:
    ends = time.monotonic() + within_s
    while True:
        try:
            if is_so():
                return
        except OSError:
            pass
        assert time.monotonic() < ends, "not within its time"
        time.sleep(0.1)


@contextmanager
def worker(name: str, env, log: Path):
    command = [sys.executable, "-m", "celery", "-A", "tidemill_core.defs.executor.celery_worker", "worker"]
    options = ["--concurrency", "1", "-n", f"{name}@test", "-l", "warning", "-Q", "dagster"]
    with log.open("ab") as output:
        made = subprocess.Popen(
            [*command, *options],
            env=env,
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
    try:
        yield made
    finally:
        kill(made)


def kill(process: subprocess.Popen) -> None:
    """Kill a worker and its children, as a machine that is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def facts(instance, run_id):
    """By step: which workers began it, and how it ended."""
    began, ended = defaultdict(list), Counter()
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type == dg.DagsterEventType.ENGINE_EVENT and "in celery worker" in (event.message or ""):
            began[event.step_key].append(event.engine_event_data.metadata["Celery worker"].value)
        elif event.is_step_success or event.is_step_failure:
            ended[event.step_key, event.event_type_value] += 1
    return began, ended


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_share_the_work_and_a_killed_one_costs_nothing(tmp_path, redis, postgres_url) -> None:
    lay_out(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    storage = {"postgres": {"postgres_url": postgres_url.replace("postgresql://", "postgresql+psycopg2://")}}
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage, "telemetry": {"enabled": False}}))
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "TIDEMILL_HOME": str(tmp_path / "tidemill"),
        "TIDEMILL_EXECUTOR": "celery",
        "TIDEMILL_CELERY_BROKER_URL": f"{redis}/0",
        "TIDEMILL_CELERY_BACKEND_URL": f"{redis}/1",
        "TIDEMILL_POSTGRES_URL": postgres_url,
        "SPREAD_PLACE": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    log, said = tmp_path / "workers.log", tmp_path / "run.log"
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        worker("one", env, log),
        worker("two", env, log) as second,
    ):
        command = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(JOB), "-j", "spread"]
        run = subprocess.Popen(command, env=env, stdout=said.open("wb"), stderr=subprocess.STDOUT)

        def in_the_middle() -> bool:
            """The second worker has done some steps and is at another."""
            found = instance.get_run_records(limit=1)
            assert second.poll() is None, log.read_text()[-2000:]
            assert run.poll() is None, said.read_text()[-3000:] + log.read_text()[-2000:]
            if not found:
                return False
            began, ended = facts(instance, found[0].dagster_run.run_id)
            of_second = [step for step, hosts in began.items() if hosts[-1] == "two@test"]
            done = [step for step in of_second if (step, "STEP_SUCCESS") in ended]
            return len(done) >= 5 and len(of_second) > len(done)

        try:
            wait(in_the_middle, within_s=180)
            kill(second)
            killed_at = time.monotonic()
            with worker("two", env, log):
                run.wait(400)
        finally:
            run.kill()
        seconds = time.monotonic() - killed_at
        (record,) = instance.get_run_records()
        began, ended = facts(instance, record.dagster_run.run_id)

    assert run.returncode == 0, said.read_text()[-3000:]
    with psycopg.connect(postgres_url) as connection:
        for number in range(FILES):
            row = connection.execute(
                f"select count(*), count(distinct id), sum(id) from spread.part_{number:02}"
            ).fetchone()
            first = number * ROWS
            assert row == (ROWS, ROWS, sum(range(first, first + ROWS)))
    for prefix in range(PREFIXES):
        within = tmp_path / "mirror" / f"p{prefix:02}"
        assert {path.name: path.read_text() for path in within.iterdir() if path.is_file()} == {
            f"{key:03}": f"{prefix}/{key}" for key in range(KEYS)
        }
    assert set(ended.values()) == {1}
    units = [step for step in began if step.startswith(("load[", "mirror["))]
    assert len(units) == FILES + PREFIXES
    for kind in ("load[", "mirror["):
        shares = Counter(began[step][-1] for step in units if step.startswith(kind))
        assert min(shares["one@test"], shares["two@test"]) >= 0.3 * sum(shares.values()), shares
    twice = [step for step in units if len(began[step]) > 1]
    assert len(twice) <= 1  # what the killed worker was at, and nothing else
    print(f"{len(units)} units, begun twice: {twice}, {seconds:.0f} s from the kill to the end")
