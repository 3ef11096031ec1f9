"""New homes made by many at once, exit codes from facts, and callables that are not plain functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tidemill_core.errors import ConfigError, ExitCode
from tidemill_core.services.processes import wait_until
from tidemill_core.settings import Settings

COMMAND = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "dag", "run"]
TASKS = """
import asyncio

MARK = {mark!r}

async def work():
    await asyncio.sleep(0)
    open(MARK, "w").close()
    return {{"n": 1}}

async def events():
    import dagster as dg
    await asyncio.sleep(0)
    yield dg.MaterializeResult(metadata={{"n": 2}})

def foreign():
    yield 1

def slow():
    import time
    while True:
        time.sleep(0.01)
"""


def _environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    return {**clean, "TIDEMILL_HOME": str(home)}


def _run(folder: Path, task: str, *, retry: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "steps.py").write_text(TASKS.format(mark=str(folder / "ran")))
    (folder / "one.yaml").write_text(f"name: one\ntasks: [{{name: a, {task}{retry}}}]\n")
    return subprocess.run(
        [*COMMAND, "--ephemeral", "--json", str(folder / "one.yaml")],
        env=_environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_many_first_starts_on_one_new_home_all_work(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text('name: tiny\ntasks: [{name: only, run: "true"}]\n')
    command = [*COMMAND, str(tmp_path / "tiny.yaml")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    starts = [subprocess.Popen(command, env=_environment(tmp_path / "home"), **quiet) for _ in range(4)]

    said = [each.communicate(timeout=240)[1] for each in starts]

    assert [0, 0, 0, 0] == [each.returncode for each in starts], said


def test_a_start_that_is_killed_while_it_makes_a_home_leaves_one_that_works(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text('name: tiny\ntasks: [{name: only, run: "true"}]\n')
    command = [*COMMAND, str(tmp_path / "tiny.yaml")]
    making = tmp_path / "home" / "dagster" / "creating" / "storage" / "history"
    killed = subprocess.Popen(command, env=_environment(tmp_path / "home"), stderr=subprocess.DEVNULL)
    assert wait_until(making.exists, 120, every_s=0.001)

    killed.kill()
    killed.wait()
    done = subprocess.run(command, env=_environment(tmp_path / "home"), capture_output=True, text=True, timeout=240)

    assert 0 == done.returncode, done.stderr
    assert not making.parent.parent.exists()


def test_a_home_that_cannot_be_made_is_a_setting_to_change(tmp_path: Path) -> None:
    from tidemill_core.defs.home import prepare_home

    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigError, match="set TIDEMILL_HOME"):
        prepare_home(Settings.from_env({"TIDEMILL_HOME": str(tmp_path / "file" / "home")}))


@pytest.mark.parametrize(
    ("task", "code"),
    [
        pytest.param('run: "exit 3", retry: {count: 1, delay_s: 0}', ExitCode.FAILED, id="an ordinary error"),
        pytest.param('run: "exit 75", retry: {count: 1, delay_s: 0}', ExitCode.TEMPORARY, id="a temporary one"),
        pytest.param('run: "sleep 60", timeout_s: 0.3', ExitCode.TEMPORARY, id="a command past its time"),
        pytest.param('call: "steps:slow", timeout_s: 0.3', ExitCode.TEMPORARY, id="a callable past its time"),
        pytest.param('run: "echo Exceeded max_retries RetryRequested >&2; exit 3"', ExitCode.FAILED, id="words"),
    ],
)
def test_the_exit_code_follows_the_last_error_not_its_words(tmp_path: Path, task: str, code: int) -> None:
    done = _run(tmp_path, task)

    assert code == done.returncode, done.stderr


def test_an_async_function_is_awaited_and_its_outputs_are_kept(tmp_path: Path) -> None:
    done = _run(tmp_path, 'call: "steps:work", outputs: [n]')

    assert 0 == done.returncode, done.stderr
    assert (tmp_path / "ran").exists()


def test_an_async_generator_gives_its_events(tmp_path: Path) -> None:
    done = _run(tmp_path, 'call: "steps:events", outputs: [n]')

    assert 0 == done.returncode, done.stderr
    assert "done" == json.loads(done.stdout)["state"]


def test_a_generator_that_yields_a_value_fails_in_our_words(tmp_path: Path) -> None:
    done = _run(tmp_path, 'call: "steps:foreign"')

    assert ExitCode.FAILED == done.returncode
    assert "yielded a int" in done.stdout
    assert "Traceback" not in done.stderr
