"""A lock for each DAG: held by one process, freed by the system when that process dies."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import dagster as dg

from tidemill_core.defs.dag.postgres_lock import PostgresLock
from tidemill_core.errors import ConfigError
from tidemill_core.settings import Settings


class Lock(Protocol):
    """Something that one run holds at a time."""

    def try_take(self) -> bool:
        """Take it if it is free, and tell whether it was."""

    def is_held(self) -> bool:
        """Tell whether nobody else can have had it since it was taken.

        Raises:
            PostgresUnavailable: That cannot be known now; ask again.
        """

    def release(self) -> None:
        """Give it back; nothing happens if it is not held."""


def lock_for(instance: dg.DagsterInstance, dag: str, *, settings: Settings, shares: bool = True) -> Lock | None:
    """Choose the lock that every process sees which could do the same work twice.

    Args:
        instance: Where runs are recorded. One that is kept in PostgreSQL or a folder has a lock of its own there.
        dag: Name of the DAG.
        settings: Which warehouse is written to: its lock holds between instances, and between machines
            if it is a PostgreSQL server; the embedded one's is a file in the home.
        shares: Whether the run may write to the warehouse, the lake or a topic.

    Returns:
        Both locks as one; None for a run on an ephemeral instance that shares nothing.
    """
    locks: list[Lock] = []
    folder = None
    if not instance.is_ephemeral:
        url = getattr(instance.run_storage, "postgres_url", None)
        folder = None if url else Path(instance.root_directory)
        locks.append(
            PostgresLock(url, f"dag {dag}") if url else FileLock(_lock_file(Path(instance.root_directory), dag))
        )
    home = settings.home.absolute()
    if shares and settings.postgres_url is not None:
        warehouse = settings.postgres_url.get_secret_value()
        # Another name than the instance's lock: both may be in one database, and would wait for each other.
        locks.append(PostgresLock(warehouse, f"warehouse {dag}", setting="TIDEMILL_POSTGRES_URL"))
    elif shares and (folder is None or home not in folder.parents):
        locks.append(FileLock(_lock_file(home, dag)))
    return AllLocks(locks) if locks else None


def _lock_file(folder: Path, dag: str) -> Path:
    return folder / "locks" / f"{dag}.lock"


class AllLocks:
    """Several locks that are taken together, in one order, or not at all."""

    def __init__(self, locks: Sequence[Lock]) -> None:
        self.locks = locks

    def try_take(self) -> bool:
        """Take all; if one is not free, give back those that were taken."""
        for at, lock in enumerate(self.locks):
            if not lock.try_take():
                for taken in self.locks[:at]:
                    taken.release()
                return False
        return True

    def is_held(self) -> bool:
        """Whether each is held."""
        return all(lock.is_held() for lock in self.locks)

    def release(self) -> None:
        """Give all back, the last one first."""
        for lock in reversed(self.locks):
            lock.release()


class FileLock:
    """A file held with `flock`: the kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def try_take(self) -> bool:
        """Take it if it is free.

        Raises:
            ConfigError: The file cannot be made.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be locked: {error.strerror}; is the home writable?") from error
        try:
            # flock, not lockf: a POSIX lock would be lost when any other handle of the file is closed,
            # and would not keep two threads of one process apart.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise ConfigError(f"{self.path} cannot be locked: {error.strerror}") from error
        self._handle = handle
        return True

    def is_held(self) -> bool:
        """Whether the file is still the one of its name; another process would lock a new one."""
        if self._handle is None:
            return False
        try:
            found = self.path.stat()
        except OSError:
            return False
        own = os.fstat(self._handle)
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def release(self) -> None:
        """Give it back. The file stays: removing it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
