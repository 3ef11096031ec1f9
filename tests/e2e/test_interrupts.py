"""A stop is not an error: the main job, told to stop, ends with 130 and one word, and goes on later."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import BIN, Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def _begin(home: Home) -> subprocess.Popen[str]:
    """Start the demo as a terminal does: a parent may have taught us to ignore SIGINT."""
    return subprocess.Popen(
        [str(BIN / "tidemill"), "demo"],
        env=home.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    )


def _read_until(run: subprocess.Popen[str], word: str) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        if word in line:
            return
    pytest.fail(f"the job ended before it said {word!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_told_to_stop_says_interrupted_and_lists_no_failure(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = _begin(Home(tmp_path / "home"))
    _read_until(run, " done ")

    run.send_signal(number)
    said = run.communicate(timeout=300)[0]

    assert 130 == run.returncode, said
    assert "interrupted" in said
    assert "failed" not in said
    assert "Traceback" not in said


def test_a_second_interrupt_ends_the_job_at_once_without_a_traceback(tmp_path: Path) -> None:
    run = _begin(Home(tmp_path / "home"))
    _read_until(run, " done ")

    run.send_signal(signal.SIGINT)
    _read_until(run, " canceled ")
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=300)[0]

    assert 130 == run.returncode, said
    assert "Traceback" not in said


def test_a_job_that_was_interrupted_goes_on_with_the_same_command(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    run = _begin(home)
    _read_until(run, " done ")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=300)

    again = home.tidemill("demo")

    assert 0 == again.returncode, again.stdout + again.stderr
    assert [] == home.differing()
