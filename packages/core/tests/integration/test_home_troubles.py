"""A broken home, a full disk, a lost server: one line, what to do, the right exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tidemill_core.services.processes import wait_until

PROGRAM = str(Path(sys.executable).with_name("tidemill"))
DAG = "name: q\ntasks: [{name: a, run: 'true'}]\n"


def tidemill(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    env = {**clean, "TIDEMILL_HOME": str(folder / "home"), **settings}
    (folder / "q.yaml").write_text(DAG)
    command = [PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what is wrong."""
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert 1 == len(lines), done.stderr[-2000:]
    return lines[0]


def garbage(file: Path) -> None:
    file.write_bytes(b"no database" * 100)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def without_tables(file: Path) -> None:
    with sqlite3.connect(file) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            if name not in ("alembic_version", "sqlite_sequence"):
                database.execute(f'DROP TABLE "{name}"')


@pytest.mark.parametrize("damage", [garbage, without_tables])
@pytest.mark.parametrize("name", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
def test_a_home_broken_by_others_is_recognised_and_mended_as_the_message_says(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    assert 0 == tidemill(tmp_path, "dag", "run", "q.yaml").returncode
    storage = tmp_path / "home/dagster/storage"
    damage(storage / name)

    broken = tidemill(tmp_path, "dag", "run", "q.yaml")
    if broken.returncode == 0:  # a run needs no schedules
        assert name.startswith("schedules")
        return
    storage.rename(tmp_path / "away")
    mended = tidemill(tmp_path, "dag", "run", "q.yaml")

    assert 3 == broken.returncode
    assert f"move the folder {storage} away" in told(broken)
    assert 0 == mended.returncode, mended.stderr


@pytest.mark.parametrize("in_the_way", ["history", "schedules"])
def test_a_home_in_which_no_folder_can_be_made_is_one_line(tmp_path: Path, in_the_way: str) -> None:
    home = tmp_path / "own"
    home.mkdir()
    (home / in_the_way).write_text("a file where Dagster wants a folder")

    broken = tidemill(tmp_path, "dag", "run", "q.yaml", DAGSTER_HOME=str(home))
    (home / in_the_way).unlink()
    mended = tidemill(tmp_path, "dag", "run", "q.yaml", DAGSTER_HOME=str(home))

    assert 3 == broken.returncode
    assert f"the home {home} is no folder" in told(broken)
    assert 0 == mended.returncode, mended.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("filled_at", ["before the home", "in an old home"])
def test_a_full_disk_is_named_and_may_be_tried_again(small_disk: Path, tmp_path: Path, filled_at: str) -> None:
    if filled_at == "in an old home":
        assert 0 == tidemill(small_disk, "dag", "run", "q.yaml").returncode
    (small_disk / "q.yaml").write_text(DAG)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass

    full = subprocess.run(
        [PROGRAM, "dag", "run", "q.yaml"],
        cwd=small_disk,
        env={**os.environ, "TIDEMILL_HOME": str(small_disk / "home")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    filler.unlink()
    again = tidemill(small_disk, "dag", "run", "q.yaml")

    assert 75 == full.returncode, full.stderr
    assert "make room" in told(full)
    assert 0 == again.returncode, again.stderr


def test_a_server_of_runs_that_is_not_there_may_be_tried_again(tmp_path: Path) -> None:
    url = "postgresql://someone:hidden@127.0.0.1:9/runs"

    lost = tidemill(tmp_path, "dag", "run", "q.yaml", TIDEMILL_DAGSTER_POSTGRES_URL=url)

    assert 75 == lost.returncode, lost.stderr[-2000:]
    assert "TIDEMILL_DAGSTER_POSTGRES_URL" in told(lost)
    assert "hidden" not in lost.stderr


def test_a_server_of_runs_that_is_lost_during_a_run_ends_it_with_one_line(
    tmp_path: Path, own_server: Callable[[str], Any]
) -> None:
    server = own_server("postgres")
    (tmp_path / "slow.yaml").write_text(
        "name: s\ntasks: [{name: a, run: 'touch begun; sleep 5'}, {name: b, run: 'true', needs: [a]}]\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    env = {**clean, "TIDEMILL_HOME": str(tmp_path / "home"), "TIDEMILL_DAGSTER_POSTGRES_URL": server.url}
    run = subprocess.Popen(
        [PROGRAM, "dag", "run", "slow.yaml"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    )
    assert wait_until((tmp_path / "begun").exists, 120)

    os.kill(server.pid, signal.SIGKILL)
    _, stderr = run.communicate(timeout=300)

    assert 75 == run.returncode, stderr[-3000:]
    assert "Dagster's storage in PostgreSQL does not answer" in stderr
    assert "Traceback" not in stderr
