"""Decide what a left-over postmaster.pid means after a PostgreSQL server was killed.

PostgreSQL refuses to start while the pid in that file exists. It cannot tell a process that
took the number later, nor a zombie that a container's init never collects, from a live server.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tidemill_core.services import processes

_SHARED_MEMORY = Path("/proc/sysvipc/shm")
_MEMORY_LINE = 6
"""Index of the line "key id" of the server's shared memory in postmaster.pid."""


def drop_stale_lock(data: Path, *, timeout_s: float = 10.0) -> None:
    """Remove postmaster.pid where its process is a zombie or some other program; stop a forgotten server.

    A file whose process is gone is left to PostgreSQL, which also checks that no backend of
    the old server still uses its shared memory; where we remove the file, so do we.

    Args:
        data: The data folder.
        timeout_s: How long the old server's backends may take to end.
    """
    lock = data / "postmaster.pid"
    try:
        lines = lock.read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    if not Path(f"/proc/{pid}").exists() and processes.birth(pid) is None:
        return
    born = processes.birth(pid)
    if born is not None and str(data) in processes.command_line(pid):
        # The caller holds the start lock and knows of no server: its starter was killed before it could tell.
        processes.stop(pid, born, stop_signal=signal.SIGINT)
        return
    segment = lines[_MEMORY_LINE].split()[-1] if len(lines) > _MEMORY_LINE else ""
    if processes.wait_until(lambda: not _is_attached(segment, pid), timeout_s):
        lock.unlink(missing_ok=True)


def _is_attached(segment: str, creator: int) -> bool:
    """Tell whether any process still uses the shared memory that `creator` made."""
    if not _SHARED_MEMORY.exists():
        return False
    for line in _SHARED_MEMORY.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == segment and int(fields[4]) == creator:
            return int(fields[6]) > 0
    return False
