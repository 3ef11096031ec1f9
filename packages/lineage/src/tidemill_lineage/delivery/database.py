"""Open the SQLite files of lineage one way; a damaged one is set aside, and told by name."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill_lineage.delivery.faults import say

BUSY_S = 10.0
"""How long a statement waits for another process to be done writing."""

_AGAIN_S = 0.01
_DAMAGED = ("malformed", "not a database")


def open_database(
    path: Path | None, schema: str, *, version: int, on_damage: Callable[[], None] = lambda: None
) -> sqlite3.Connection:
    """Open a database, made or mended where needed.

    Args:
        path: The file; None keeps it in memory.
        schema: Statements that make the tables, all `IF NOT EXISTS`.
        version: Of the schema.
        on_damage: Called when the file was damaged, and an empty one is in its place.

    Raises:
        sqlite3.Error: It cannot be opened or made, as on a full disk, or is of another version.
        OSError: Its folder cannot be made.
    """
    if path is None:
        return _prepared(":memory:", schema, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return _prepared(path, schema, version)
        except sqlite3.DatabaseError as error:
            # while another process makes the file, SQLite says "locked" at once, whatever the timeout
            if "locked" in str(error) and time.monotonic() < deadline:
                time.sleep(_AGAIN_S)
            elif is_damage(error):
                set_aside(path)
                on_damage()
            else:
                raise


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file itself is bad, rather than busy or the disk full."""
    return isinstance(error, sqlite3.DatabaseError) and any(each in str(error) for each in _DAMAGED)


def set_aside(path: Path) -> Path | None:
    """Rename a damaged database and its companions; say where they went.

    Returns:
        The new name; None if another process has mended it meanwhile.
    """
    with locked(_lock_path(path)):
        if _is_whole(path):
            return None
        aside = free_name(path)
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    say("lineage_file_damaged", file=str(path), set_aside=str(aside))
    return aside


def free_name(path: Path) -> Path:
    """Find a free name for a damaged file, beside it."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    while aside.exists():
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    return aside


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; the kernel frees it if the process dies."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepared(path: Path | str, schema: str, version: int) -> sqlite3.Connection:
    # one connection serves several threads, each under the guard of `forks`
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if path != ":memory:" and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            # SQLite does not wait when two processes switch a new file at once; the lock file makes it wait
            with locked(_lock_path(Path(path))):
                connection.execute("PRAGMA journal_mode=WAL")
        # a commit survives the death of the process; a power cut may take the last ones, never the file
        connection.execute("PRAGMA synchronous=NORMAL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, version):
            raise sqlite3.NotSupportedError(f"{path} has format {found}, this version writes {version}")
        if found == 0:
            connection.executescript(f"BEGIN IMMEDIATE;{schema};PRAGMA user_version={version};COMMIT")
    except BaseException:  # undone whatever it was, and raised again
        connection.close()
        raise
    return connection


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _is_whole(path: Path) -> bool:
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S)
        try:
            return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok") and path.stat().st_size > 0
        finally:
            connection.close()
    except (sqlite3.DatabaseError, OSError):
        return False


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Do all of the block or none of it."""
    # IMMEDIATE: a transaction that reads first and writes later would fail when another wrote between
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:  # undone whatever it was, and raised again
        # a full disk may have rolled back already
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
