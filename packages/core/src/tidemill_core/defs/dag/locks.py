"""A lock for each DAG of an instance: held by one process, freed by the system when that process dies."""

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from tidemill_core.errors import ConfigError

_KEEPALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A machine that is gone loses its lock after about a minute."""


class Lock(Protocol):
    """Something that one run holds at a time."""

    def try_take(self) -> bool:
        """Take it if it is free, and tell whether it was."""

    def release(self) -> None:
        """Give it back; nothing happens if it is not held."""


def lock_for(instance: dg.DagsterInstance, dag: str) -> Lock | None:
    """Choose the lock that every process with this instance sees.

    Returns:
        An advisory lock of PostgreSQL for an instance kept there, else a locked file in the
        instance's folder; None for an ephemeral instance, which no other process can see.
    """
    if instance.is_ephemeral:
        return None
    url = getattr(instance.run_storage, "postgres_url", None)
    if url:
        return PostgresLock(url, dag)
    return FileLock(Path(instance.root_directory) / "locks" / f"{dag}.lock")


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

    def release(self) -> None:
        """Give it back. The file stays: removing it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class PostgresLock:
    """A session-level advisory lock: the server frees it when the connection is gone.

    The connection must reach the server itself or a pooler in session mode.
    """

    def __init__(self, url: str, dag: str) -> None:
        self._url = url
        digest = hashlib.blake2b(f"tidemill dag {dag}".encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, "big", signed=True)
        self._connection: Any = None

    def try_take(self) -> bool:
        """Take it if it is free."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        if self._connection is None:
            engine = create_engine(
                self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=dict(_KEEPALIVE)
            )
            self._connection = engine.connect()
        query = text("SELECT pg_try_advisory_lock(:key)")
        return bool(self._connection.execute(query, {"key": self._key}).scalar())

    def release(self) -> None:
        """Give it back by closing the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
