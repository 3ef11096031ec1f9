"""Durable jobs of the sync service: a queue in SQLite."""
# ruff: noqa: S608 - only constants are formatted into statements

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from tidemill_sync.config import SyncConfig
from tidemill_sync.errors import JobNotFound

State = Literal["queued", "running", "done", "failed", "cancelled"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sync_job (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, config TEXT NOT NULL,
    keys TEXT, tries INTEGER NOT NULL DEFAULT 0, due_at REAL NOT NULL, created_at REAL NOT NULL,
    started_at REAL, ended_at REAL, result TEXT, error TEXT
);
CREATE INDEX IF NOT EXISTS sync_job_queue ON sync_job (state, due_at);
"""
_COLUMNS = "job_id, state, config, keys, tries, created_at, started_at, ended_at, result, error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as it is kept; `keys` is None for a whole mirror."""

    job_id: str
    state: State
    config: SyncConfig
    keys: tuple[str, ...] | None
    tries: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    result: dict[str, Any] | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, without secrets."""
        return {
            "job_id": self.job_id,
            "state": self.state,
            "config": self.config.model_dump(mode="json", exclude={"manifest"}, exclude_defaults=True),
            "keys": None if self.keys is None else list(self.keys),
            "tries": self.tries,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "result": self.result,
            "error": self.error,
        }


class JobStore:
    """The queue. Every change is on the disk when its method returns.

    Args:
        path: The database; made with its folder.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = RLock()
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_SCHEMA)

    def add(self, config: SyncConfig) -> Job:
        """Queue a whole mirror."""
        return self._insert(config, None)

    def add_keys(self, config: SyncConfig, keys: Sequence[str]) -> Job:
        """Queue single keys; they join a job of the same mirror that has not begun."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT job_id, keys FROM sync_job WHERE state = 'queued' AND keys IS NOT NULL AND config = ?",
                (_stored(config),),
            ).fetchone()
            if row is None:
                return self._insert(config, keys)
            joined = sorted({*json.loads(row[1]), *keys})
            connection.execute("UPDATE sync_job SET keys = ? WHERE job_id = ?", (json.dumps(joined), row[0]))
            return self.get(row[0])

    def get(self, job_id: str) -> Job:
        """Read one job.

        Raises:
            JobNotFound: There is none of this id.
        """
        row = self._one(f"SELECT {_COLUMNS} FROM sync_job WHERE job_id = ?", (job_id,))
        if row is None:
            raise JobNotFound(job_id)
        return _job(row)

    def jobs(self, *, state: State | None = None, limit: int = 100) -> list[Job]:
        """The latest jobs, newest first."""
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM sync_job WHERE ?1 IS NULL OR state = ?1 ORDER BY number DESC LIMIT ?2",
                (state, limit),
            ).fetchall()
        return [_job(row) for row in rows]

    def claim(self) -> Job | None:
        """Take the oldest job that is due."""
        now = time.time()
        row = self._one(
            "UPDATE sync_job SET state = 'running', started_at = ?1, tries = tries + 1 WHERE number = "
            "(SELECT min(number) FROM sync_job WHERE state = 'queued' AND due_at <= ?1) AND state = 'queued' "
            f"RETURNING {_COLUMNS}",
            (now,),
        )
        return _job(row) if row else None

    def finish(
        self, job_id: str, state: State, *, result: dict[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Write how a job ended."""
        self._one(
            "UPDATE sync_job SET state = ?, ended_at = ?, result = ?, error = ? WHERE job_id = ? RETURNING 1",
            (state, time.time(), None if result is None else json.dumps(result), error, job_id),
        )

    def put_back(self, job_id: str, *, delay_s: float, error: str) -> None:
        """Queue a job again, to run no sooner than in `delay_s` seconds."""
        self._one(
            "UPDATE sync_job SET state = 'queued', due_at = ?, error = ? WHERE job_id = ? RETURNING 1",
            (time.time() + delay_s, error, job_id),
        )

    def cancel_queued(self, job_id: str) -> bool:
        """Cancel a job that has not begun; False if it has."""
        row = self._one(
            "UPDATE sync_job SET state = 'cancelled', ended_at = ? WHERE job_id = ? AND state = 'queued' RETURNING 1",
            (time.time(), job_id),
        )
        return row is not None

    def recover(self) -> int:
        """Queue again what a killed service left running; gives how many."""
        with self._lock:
            cursor = self._connection.execute("UPDATE sync_job SET state = 'queued' WHERE state = 'running'")
        return cursor.rowcount

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _insert(self, config: SyncConfig, keys: Sequence[str] | None) -> Job:
        job_id, now = uuid.uuid4().hex, time.time()
        kept = None if keys is None else json.dumps(sorted(set(keys)))
        self._one(
            "INSERT INTO sync_job (job_id, state, config, keys, due_at, created_at) "
            "VALUES (?, 'queued', ?, ?, ?, ?) RETURNING 1",
            (job_id, _stored(config), kept, now, now),
        )
        return self.get(job_id)

    def _one(self, statement: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with self._lock:
            row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
            return row

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:  # undone whatever it was, and raised again
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _stored(config: SyncConfig) -> str:
    return config.model_dump_json(exclude={"manifest"})


def _job(row: tuple[Any, ...]) -> Job:
    job_id, state, config, keys, tries, created_at, started_at, ended_at, result, error = row
    return Job(
        job_id=job_id,
        state=state,
        config=SyncConfig.model_validate_json(config),
        keys=None if keys is None else tuple(json.loads(keys)),
        tries=tries,
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        result=json.loads(result) if result else None,
        error=error,
    )
