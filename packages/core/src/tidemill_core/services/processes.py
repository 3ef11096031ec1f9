"""Processes that outlive us: started detached, recognised again, and stopped only if they are ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tidemill_core.services._base import Launch

_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
_PROC = Path("/proc/self")


def spawn(launch: Launch, log: Path) -> int:
    """Start a process in its own session, its output appended to `log`, and return its pid."""
    account: dict[str, object] = {}
    if launch.account is not None:
        account = {"user": launch.account.uid, "group": launch.account.gid, "extra_groups": []}
    with log.open("ab") as output:
        child: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            launch.command,
            cwd=launch.cwd,
            env={**os.environ, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **account,
        )
    _CHILDREN[child.pid] = child
    return child.pid


def birth(pid: int) -> str | None:
    """Read when process `pid` began, as a text that no other process on this machine shares with it.

    Returns:
        None if there is no such process, or only its zombie.
    """
    child = _CHILDREN.get(pid)
    if child is not None and child.poll() is not None:
        return None
    if _PROC.is_dir():
        return _birth_in_proc(pid)
    found = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = found.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else began.strip()


def _birth_in_proc(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot[:8]}-{fields[19]}"


def command_line(pid: int) -> str:
    """Read the command line of a process, empty if it is gone."""
    if _PROC.is_dir():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    found = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def is_used(folder: Path) -> bool:
    """Tell whether some process runs a program of `folder`, or names it in its command line."""
    inside = f"{folder}{os.sep}"
    if not _PROC.is_dir():
        found = subprocess.run(["ps", "-axo", "command="], capture_output=True, text=True, check=False)
        return inside in found.stdout
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        if pid != os.getpid() and (inside in command_line(pid) or inside in _program(process)):
            return True
    return False


def _program(process: Path) -> str:
    try:
        return str((process / "exe").readlink())
    except OSError:  # it has ended, or is a kernel thread, or belongs to somebody else
        return ""


def stop(pid: int, born: str, *, stop_signal: int = signal.SIGTERM, timeout_s: float = 20.0) -> bool:
    """End the process that was born as `born`; kill it when it takes longer than `timeout_s`.

    Returns:
        False if that process was gone already; another one with its pid is left alone.
    """
    if birth(pid) != born:
        return False
    _signal(pid, stop_signal)
    if not wait_until(lambda: birth(pid) != born, timeout_s):
        _signal(pid, signal.SIGKILL)
        wait_until(lambda: birth(pid) != born, 10.0)
    _CHILDREN.pop(pid, None)
    return True


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], timeout_s: float, *, every_s: float = 0.02) -> bool:
    """Poll `condition` until it holds; False if `timeout_s` passed first."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
        every_s = min(every_s * 1.5, 0.25)
    return True


def free_port() -> int:
    """Find a TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Tell whether something accepts connections on `port` of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
