"""The manifest in a SQLite file (WAL); the lease is a lock on a file beside it."""
# ruff: noqa: S608 - only constants are formatted into statements

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from tidemill_core.checkpoint import CheckpointUnavailable
from tidemill_core.errors import CheckpointError, ConfigError

from tidemill_sync.manifests._base import PAGE_ROWS, RunRecord, run_of_row
from tidemill_sync.plan import Entry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sync_entry (
    job TEXT NOT NULL, key TEXT NOT NULL, size_bytes INTEGER NOT NULL, source_etag TEXT, target_etag TEXT,
    PRIMARY KEY (job, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sync_run (
    run_id TEXT PRIMARY KEY, job TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL, result TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sync_piece (
    job TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job, key, number)
) WITHOUT ROWID;
"""
_ENTRY = "key, size_bytes, source_etag, target_etag"


def open_sqlite(url: str) -> SqliteManifest:
    """Open ``sqlite:///path``; three slashes begin a relative path, four an absolute one."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise ConfigError(f"a manifest in SQLite needs a path, such as sqlite:///state/sync.db, not {url!r}")
    return SqliteManifest(Path(path))


class SqliteManifest:
    """Notes in one file; see `Manifest` for the contract.

    Args:
        path: The database; made with its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise CheckpointError(f"the manifest cannot be kept in {path}: {error}") from error

    @contextmanager
    def lease(self, job: str) -> Iterator[bool]:
        """Lock a file beside the database, without waiting."""
        file = os.open(f"{self.path}.{job}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(file)

    def entries(self, job: str) -> Iterator[Entry]:
        """Every note of a job, a page at a time."""
        last: str | None = None
        statement = f"SELECT {_ENTRY} FROM sync_entry WHERE job = ? AND key > ? ORDER BY key LIMIT {PAGE_ROWS}"
        while True:
            with self._asking() as connection:
                rows = connection.execute(statement, (job, last if last is not None else "")).fetchall()
            yield from map(Entry._make, rows)
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1][0]

    def entry(self, job: str, key: str) -> Entry | None:
        """The note of one key."""
        with self._asking() as connection:
            statement = f"SELECT {_ENTRY} FROM sync_entry WHERE job = ? AND key = ?"
            row = connection.execute(statement, (job, key)).fetchone()
        return Entry._make(row) if row else None

    def save(self, job: str, entries: Iterable[Entry], forget: Iterable[str] = ()) -> None:
        """Write notes, and drop some, in one transaction."""
        rows = [(job, each.key, each.size_bytes, each.source_etag, each.target_etag) for each in entries]
        with self._asking() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR REPLACE INTO sync_entry VALUES (?, ?, ?, ?, ?)", rows)
                connection.executemany("DELETE FROM sync_entry WHERE job = ? AND key = ?", [(job, k) for k in forget])
                connection.execute("COMMIT")
            except BaseException:  # undone whatever it was, and raised again
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def pieces(self, job: str, key: str) -> list[tuple[int, str]]:
        """What is kept about an object that is being written by parts."""
        statement = "SELECT number, text FROM sync_piece WHERE job = ? AND key = ? ORDER BY number"
        with self._asking() as connection:
            return connection.execute(statement, (job, key)).fetchall()

    def begun(self, job: str) -> list[tuple[str, str]]:
        """Every key that has pieces, with the text of piece 0."""
        statement = "SELECT key, text FROM sync_piece WHERE job = ? AND number = 0 ORDER BY key"
        with self._asking() as connection:
            return connection.execute(statement, (job,)).fetchall()

    def save_piece(self, job: str, key: str, number: int, text: str) -> None:
        """Write or overwrite a piece."""
        with self._asking() as connection:
            connection.execute("INSERT OR REPLACE INTO sync_piece VALUES (?, ?, ?, ?)", (job, key, number, text))

    def drop_pieces(self, job: str, key: str) -> None:
        """Drop all pieces of a key."""
        with self._asking() as connection:
            connection.execute("DELETE FROM sync_piece WHERE job = ? AND key = ?", (job, key))

    def record(self, run: RunRecord) -> None:
        """Write or overwrite the line of a run."""
        row = (run.run_id, run.job, run.source, run.target, run.state, run.started_at, run.ended_at)
        with self._asking() as connection:
            statement = "INSERT OR REPLACE INTO sync_run VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            connection.execute(statement, (*row, json.dumps(run.result)))

    def runs(self, limit: int = 20) -> list[RunRecord]:
        """The latest runs, newest first."""
        columns = "run_id, job, source, target, state, started_at, ended_at, result"
        with self._asking() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM sync_run ORDER BY started_at DESC LIMIT ?", (limit,)
            ).fetchall()
        return [run_of_row(row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _asking(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.OperationalError as error:
                raise CheckpointUnavailable(str(self.path), str(error)) from error
