"""Stop a shared server some time after its last user: `python -m tidemill_core.embedded.warden FOLDER IDLE_S`.

An embedded server is stopped by its last user, unless that is killed; a test server is worth
keeping between two runs. The warden is a small process beside such a server, and ends with it;
a second one for the same folder ends at once.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from tidemill_core.embedded.lease import until_unused
from tidemill_core.services import processes
from tidemill_core.services._base import Launch
from tidemill_core.services.running import find

LOCK = "warden.lock"


def post(folder: Path, idle_s: float) -> None:
    """Start a warden for the server of `folder`, unless it has one."""
    handle = _lock(folder)
    if handle is None:
        return
    os.close(handle)
    command = (sys.executable, "-m", "tidemill_core.embedded.warden", str(folder), str(idle_s))
    processes.spawn(Launch(command=command, cwd=folder, url=""), folder / "warden.log")


def watch(folder: Path, idle_s: float) -> None:
    """Wait until nobody has used the server for `idle_s` seconds, and stop it; or until it has ended."""
    handle = _lock(folder)
    if handle is None:
        return

    def is_over(pause_s: float) -> bool:
        time.sleep(pause_s)
        return not folder.exists() or find(folder) is None

    if until_unused(folder, idle_s, is_over=is_over):
        running = find(folder)
        if running is not None:
            running.stop()
    os.close(handle)


def _lock(folder: Path) -> int | None:
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


if __name__ == "__main__":
    watch(Path(sys.argv[1]), float(sys.argv[2]))
