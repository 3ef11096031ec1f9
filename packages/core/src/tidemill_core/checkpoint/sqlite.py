"""Checkpoints in a SQLite file: WAL, synchronous FULL, safe between threads and processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from tidemill_core.checkpoint._base import Checkpoint
from tidemill_core.checkpoint._values import check_name, decoded, encoded
from tidemill_core.checkpoint.errors import CheckpointUnavailable
from tidemill_core.errors import CheckpointConflict, CheckpointError, ConfigError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tidemill_checkpoint (
    scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL, saved_at REAL NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID
"""
_BUSY_S = 30.0


def open_sqlite(url: str) -> SqliteCheckpoints:
    """Open ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; folder and file are made."""
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url == prefix:
        raise ConfigError(f"{url!r} is not a SQLite URL: write sqlite:///relative.db or sqlite:////absolute.db")
    return SqliteCheckpoints(Path(url.removeprefix(prefix)))


class SqliteCheckpoints:
    """A checkpoint store in one file; see `CheckpointStore` for the contract.

    Args:
        path: The database; other tables in it are left alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            with self._asking() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(_SCHEMA)
        except (OSError, sqlite3.OperationalError) as error:
            raise CheckpointError(f"checkpoints cannot be kept in {path}: {error}") from error

    def load(self, scope: str, key: str) -> Checkpoint | None:
        """Read one value, or None."""
        check_name(scope, key)
        with self._asking() as connection:
            row = connection.execute(
                "SELECT value, version, saved_at FROM tidemill_checkpoint WHERE scope = ? AND key = ?", (scope, key)
            ).fetchone()
        return _checkpoint(scope, key, row) if row else None

    def save(
        self, scope: str, key: str, value: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Checkpoint:
        """Write one value; on return it is on the disk."""
        check_name(scope, key)
        row = (encoded(value), 0, datetime.now(UTC).timestamp())
        with self._asking() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                found = connection.execute(
                    "SELECT version FROM tidemill_checkpoint WHERE scope = ? AND key = ?", (scope, key)
                ).fetchone()
                version = found[0] if found else 0
                if expected_version not in {None, version}:
                    raise CheckpointConflict(scope, key, expected_version or 0, version)
                row = (row[0], version + 1, row[2])
                connection.execute(
                    "INSERT OR REPLACE INTO tidemill_checkpoint VALUES (?, ?, ?, ?, ?)", (scope, key, *row)
                )
                connection.execute("COMMIT")
            except BaseException:  # undone whatever it was, and raised again
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return _checkpoint(scope, key, row)

    def delete(self, scope: str, key: str) -> None:
        """Forget one value."""
        check_name(scope, key)
        with self._asking() as connection:
            connection.execute("DELETE FROM tidemill_checkpoint WHERE scope = ? AND key = ?", (scope, key))

    def scan(self, scope: str) -> Iterator[Checkpoint]:
        """Yield every value of a scope at one instant, ascending by key."""
        with self._asking() as connection:
            rows = connection.execute(
                "SELECT key, value, version, saved_at FROM tidemill_checkpoint WHERE scope = ? ORDER BY key", (scope,)
            ).fetchall()
        return iter([_checkpoint(scope, row[0], row[1:]) for row in rows])

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
            except sqlite3.DatabaseError as error:
                raise CheckpointError(f"checkpoints in {self.path} are broken: {error}") from error


def _checkpoint(scope: str, key: str, row: tuple[str, int, float]) -> Checkpoint:
    value, version, saved_at = row
    return Checkpoint(
        scope=scope, key=key, value=decoded(value), version=version, saved_at=datetime.fromtimestamp(saved_at, UTC)
    )
