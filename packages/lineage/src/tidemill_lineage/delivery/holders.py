"""Tell which processes still live, by locks that the kernel frees when one dies, however it dies.

Holder number n locks byte n of one file. POSIX record locks suit this: they are not inherited by a
forked child, and they work between containers that share a disk, where process ids do not.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from tidemill_lineage.delivery.forks import PerProcess


class Holders:
    """The holders of one outbox.

    Args:
        path: The file that is locked byte by byte; it stays empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # one handle a process, never closed: closing any handle of the file frees all its locks
        self._handle = PerProcess(lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def hold(self, number: int) -> bool:
        """Be alive as `number` until this process ends; False if another process is."""
        return self._lock(number)

    def is_alive(self, number: int) -> bool:
        """Whether another process holds `number`; do not ask for a number of one's own."""
        if not self._lock(number):
            return True
        fcntl.lockf(self._handle.get(), fcntl.LOCK_UN, 1, number)
        return False

    def _lock(self, number: int) -> bool:
        try:
            fcntl.lockf(self._handle.get(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True
