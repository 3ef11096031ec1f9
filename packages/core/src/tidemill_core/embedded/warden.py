"""Stop a shared server some time after its last user: `python -m tidemill_core.embedded.warden FOLDER IDLE_S`.

An embedded server is stopped by its last user, unless that is killed; a test server is worth
keeping between two runs. The warden is a small process beside such a server, and ends with it;
a second one for the same folder ends at once. It also ends a server whose folder was removed.
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
from tidemill_core.services.files import sweep
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
    """Stop the server once nobody has used it for `idle_s` seconds, or its folder is gone.

    Ends with the server, and leaves no stand-in of a folder that is gone.
    """
    handle = _lock(folder)
    if handle is None:
        return
    seen = [running for running in [find(folder)] if running is not None]

    def is_over(pause_s: float) -> bool:
        time.sleep(pause_s)
        running = find(folder)
        if running is not None:
            seen[:] = [running]
        return running is None

    is_unused = until_unused(folder, idle_s, is_over=is_over)
    # A server whose folder was removed is found by nobody any more: only we know its process.
    for running in seen if is_unused or not folder.exists() else ():
        running.stop()
    os.close(handle)
    sweep()


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
