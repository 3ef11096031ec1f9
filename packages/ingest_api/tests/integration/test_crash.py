"""kill -9 anywhere, run again: the same table. A control that saves state apart from rows shows the gap."""

import json
import os
import runpy
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tidemill_ingest_api.testing.fake_api import FakeApi

SCRIPT = Path(__file__).with_name("dying_fetch.py")
RECORDS = [{"id": i, "name": f"n{i}"} for i in range(12)]


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request, tmp_path):
    return f"sqlite:///{tmp_path}/i.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def fetch(mode, at, url, api):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), mode, str(at), url, api.base_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.chaos
def test_killed_inside_any_commit_and_run_again_gives_the_same_table(store_url):
    with FakeApi(RECORDS) as api:
        for at in (1, 3, 4):
            code, _ = fetch("together", at, store_url, api)
            assert -signal.SIGKILL == code
        code, said = fetch("none", 0, store_url, api)

    rows, not_modified = map(int, said.split())
    assert (0, 12) == (code, rows)
    assert not_modified >= 1


@pytest.mark.chaos
def test_state_saved_apart_from_rows_would_lose_a_page(store_url):
    with FakeApi(RECORDS) as api:
        code, _ = fetch("apart", 3, store_url, api)
        _, said = fetch("none", 0, store_url, api)

    assert -signal.SIGKILL == code
    assert 12 > int(said.split()[0])


def test_two_processes_that_fetch_at_once_take_turns(store_url):
    with FakeApi(RECORDS) as api, ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: fetch("none", 0, store_url, api), range(2)))

    assert [0, 0] == [code for code, _ in results]
    assert ["12 0", "12 6"] == sorted(said.strip() for _, said in results)


@pytest.mark.chaos
@pytest.mark.parametrize("page", [1, 3, 6])
def test_killed_while_a_page_is_awaited_the_command_run_again_finishes(store_url, page, tmp_path):
    config = tmp_path / "source.json"
    config.write_text(json.dumps(runpy.run_path(str(SCRIPT))["SOURCE"]))
    with FakeApi(RECORDS) as api:
        environment = {**os.environ, "UPSTREAM": api.base_url}
        command = [
            sys.executable,
            "-m",
            "tidemill_core.cli",
            "ingest",
            "run",
            str(config),
            "--store",
            store_url,
            "--json",
        ]
        command[1:3] = ["-c", "from tidemill_core.cli import main; main()"]
        arrived, release = api.hold(page=page)
        victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert arrived.wait(60)
        victim.kill()
        victim.wait(60)
        release.set()
        again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert 0 == again.returncode, again.stderr
    (report,) = json.loads(again.stdout)
    assert (12, page - 1) == (report["rows"], report["not_modified"])
