"""A process is recognised by its birth, and only ours is stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tidemill_core.services import processes
from tidemill_core.services._base import Launch

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


def test_a_process_of_another_birth_is_left_alone() -> None:
    child = subprocess.Popen(SLEEPER)

    stopped = processes.stop(child.pid, "born at another time")

    assert not stopped
    assert child.poll() is None
    assert processes.stop(child.pid, processes.birth(child.pid) or "")
    child.wait(10)


def test_a_zombie_counts_as_gone() -> None:
    child = subprocess.Popen((sys.executable, "-c", ""))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    born = processes.birth(child.pid)

    assert born is None
    child.wait(10)


def test_a_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    pid = processes.spawn(Launch(command=(sys.executable, "-c", code), cwd=tmp_path, url=""), log)
    assert processes.wait_until(lambda: "deaf" in log.read_text(), 20)

    stopped = processes.stop(pid, processes.birth(pid) or "", timeout_s=0.2)

    assert stopped
    assert processes.birth(pid) is None


def test_a_started_process_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    pid = processes.spawn(Launch(command=SLEEPER, cwd=tmp_path, url=""), tmp_path / "log")

    session = os.getsid(pid)

    assert session == pid
    assert processes.stop(pid, processes.birth(pid) or "")


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        port = taken.getsockname()[1]

        assert not processes.is_free(port)
        assert processes.answers(port)
    assert processes.is_free(port)


def test_waiting_ends_when_the_time_is_up() -> None:
    assert not processes.wait_until(lambda: False, 0.01)
