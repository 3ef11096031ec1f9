"""Share one server between processes: each holds a lease, and the last one to leave stops the server.

The lease is a shared lock on a file. The kernel drops it when a process ends, however it
ends, so a killed process never keeps a server alive and never leaves one unusable: the
next process finds it running and takes part in it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.errors import ConfigError
from tidemill_core.services._base import Service
from tidemill_core.services.files import locked
from tidemill_core.services.running import Running, find, launch

LEASE = "lease"
START_LOCK = "start.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """This process's part in a server."""

    folder: Path
    running: Running
    started: bool
    """Whether this process started the server."""
    handle: int
    """File descriptor that holds the shared lock."""
    stop_last: bool
    """Whether the last one to leave stops the server; if not, it watches the lease itself."""
    owner: int
    """Process that took the lease; a forked child must not give it back."""

    def release(self) -> bool:
        """Give the lease back, and stop the server if nobody else holds one.

        Returns:
            True if this call stopped the server.
        """
        if os.getpid() != self.owner or _HELD.pop(self.folder, None) is None:
            return False
        if not self.stop_last:
            os.close(self.handle)
            return False
        with locked(self.folder / START_LOCK):
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self.handle)
                return False
            try:
                return self.running.stop()
            finally:
                os.close(self.handle)


_HELD: dict[Path, Lease] = {}
_GUARD = threading.RLock()


def acquire(service: Service, folder: Path, *, fresh: bool = False, stop_last: bool = True) -> Lease:
    """Take part in the server of `folder`, starting it if it does not run.

    A process holds at most one lease per folder; it ends with the process, or by `release`.

    Args:
        service: What to start when nothing runs.
        folder: The server's folder, shared by all who use it.
        fresh: Throw away the data of a server that has ended.
        stop_last: Whether the last one to leave stops the server.

    Raises:
        ServiceError: The server cannot be started.
    """
    folder = folder.absolute()
    with _GUARD:
        held = _HELD.get(folder)
        if held is not None and held.owner == os.getpid():
            if held.running.is_alive():
                return held
            with suppress(OSError):
                os.close(held.handle)
            del _HELD[folder]
        lease = _acquire(service, folder, fresh=fresh, stop_last=stop_last)
        _HELD[folder] = lease
        if len(_HELD) == 1:
            atexit.unregister(release_all)
            atexit.register(release_all)
        return lease


def _acquire(service: Service, folder: Path, *, fresh: bool, stop_last: bool) -> Lease:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be made: {error.strerror}; set TIDEMILL_HOME to a folder of your own"
        ) from error
    with locked(folder / START_LOCK):
        handle = os.open(folder / LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            found = find(folder)
            running = found or launch(service, folder, fresh=fresh)
        except BaseException:  # undone whatever it was, and raised again
            os.close(handle)
            raise
    return Lease(
        folder=folder,
        running=running,
        started=found is None,
        handle=handle,
        stop_last=stop_last,
        owner=os.getpid(),
    )


def release_all() -> None:
    """Give back every lease of this process, last taken first."""
    for lease in reversed(list(_HELD.values())):
        lease.release()


def until_unused(folder: Path, idle_s: float, *, is_over: Callable[[float], bool]) -> bool:
    """Wait until nobody has held the folder's lease for `idle_s` seconds.

    Then this process holds the start lock and the lease until it ends, so that nobody takes
    part in a server that is leaving; it should stop the server and end.

    Args:
        folder: The server's folder.
        idle_s: Seconds without a holder.
        is_over: Sleeps for the seconds it is given, and tells whether to give up waiting.

    Returns:
        False if the wait was given up; no lock is held then.
    """
    last_used = time.monotonic()
    handles = [os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for name in (START_LOCK, LEASE)]
    while not is_over(min(1.0, idle_s / 4)):
        taken = [handle for handle in handles if _take(handle)]
        if len(taken) < len(handles):
            last_used = time.monotonic()
        elif time.monotonic() - last_used > idle_s:
            return True
        for handle in taken:
            fcntl.flock(handle, fcntl.LOCK_UN)
    for handle in handles:
        os.close(handle)
    return False


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
