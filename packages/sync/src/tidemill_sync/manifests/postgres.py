"""The manifest in PostgreSQL, shared by workers; the lease is an advisory lock of its own connection."""
# ruff: noqa: S608 - only constants are formatted into statements

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import psycopg
from tidemill_core.postgres.connection import connect, postgres_errors, redact

from tidemill_sync.manifests._base import PAGE_ROWS, RunRecord, run_of_row
from tidemill_sync.plan import Entry

_SCHEMA = """
SELECT pg_advisory_xact_lock(hashtext('tidemill.sync_entry'));
SELECT pg_advisory_xact_lock(hashtextextended('tidemill:schema:tidemill', 0));
SELECT 1 FROM pg_namespace LIMIT 1;  -- refreshes the cache that CREATE asks
CREATE SCHEMA IF NOT EXISTS tidemill;
CREATE TABLE IF NOT EXISTS tidemill.sync_entry (
    job text NOT NULL, key text COLLATE "C" NOT NULL, size_bytes bigint NOT NULL, source_etag text, target_etag text,
    PRIMARY KEY (job, key)
);
CREATE TABLE IF NOT EXISTS tidemill.sync_run (
    run_id text PRIMARY KEY, job text NOT NULL, source text NOT NULL, target text NOT NULL, state text NOT NULL,
    started_at float8 NOT NULL, ended_at float8, result text NOT NULL
);
CREATE TABLE IF NOT EXISTS tidemill.sync_piece (
    job text NOT NULL, key text COLLATE "C" NOT NULL, number int NOT NULL, text text NOT NULL,
    PRIMARY KEY (job, key, number)
);
"""
_ENTRY = "key, size_bytes, source_etag, target_etag"
_SAVE = """
INSERT INTO tidemill.sync_entry
SELECT %s, * FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[])
ON CONFLICT (job, key) DO UPDATE
SET size_bytes = excluded.size_bytes, source_etag = excluded.source_etag, target_etag = excluded.target_etag
"""
_RECORD = """
INSERT INTO tidemill.sync_run VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (run_id) DO UPDATE
SET state = excluded.state, ended_at = excluded.ended_at, result = excluded.result
"""


def open_postgres(url: str) -> PostgresManifest:
    """Open ``postgresql://...``."""
    return PostgresManifest(url)


class PostgresManifest:
    """Notes in schema ``tidemill``; see `Manifest` for the contract."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = RLock()
        self._own: psycopg.Connection[Any] | None = None
        with self._asking() as connection, connection.transaction():
            connection.execute(_SCHEMA)

    @contextmanager
    def lease(self, job: str) -> Iterator[bool]:
        """Take an advisory lock on a connection that lives as long as the run."""
        with connect(self._url, autocommit=True) as connection:
            statement = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
            row = connection.execute(statement, (f"sync/{job}",)).fetchone()
            yield bool(row and row[0])

    def entries(self, job: str) -> Iterator[Entry]:
        """Every note of a job, a page at a time."""
        last = ""
        statement = (
            f"SELECT {_ENTRY} FROM tidemill.sync_entry WHERE job = %s AND key > %s ORDER BY key LIMIT {PAGE_ROWS}"
        )
        while True:
            with self._asking() as connection:
                rows = connection.execute(statement, (job, last)).fetchall()
            yield from map(Entry._make, rows)
            if len(rows) < PAGE_ROWS:
                return
            last = rows[-1][0]

    def entry(self, job: str, key: str) -> Entry | None:
        """The note of one key."""
        with self._asking() as connection:
            statement = f"SELECT {_ENTRY} FROM tidemill.sync_entry WHERE job = %s AND key = %s"
            row = connection.execute(statement, (job, key)).fetchone()
        return Entry._make(row) if row else None

    def save(self, job: str, entries: Iterable[Entry], forget: Iterable[str] = ()) -> None:
        """Write notes, and drop some, in one transaction."""
        rows = list(entries)
        columns = (
            [each.key for each in rows],
            [each.size_bytes for each in rows],
            [each.source_etag for each in rows],
            [each.target_etag for each in rows],
        )
        with self._asking() as connection, connection.transaction():
            connection.execute(_SAVE, (job, *columns))
            connection.execute(
                "DELETE FROM tidemill.sync_entry WHERE job = %s AND key = ANY(%s::text[])", (job, list(forget))
            )

    def pieces(self, job: str, key: str) -> list[tuple[int, str]]:
        """What is kept about an object that is being written by parts."""
        statement = "SELECT number, text FROM tidemill.sync_piece WHERE job = %s AND key = %s ORDER BY number"
        with self._asking() as connection:
            return connection.execute(statement, (job, key)).fetchall()

    def begun(self, job: str) -> list[tuple[str, str]]:
        """Every key that has pieces, with the text of piece 0."""
        statement = "SELECT key, text FROM tidemill.sync_piece WHERE job = %s AND number = 0 ORDER BY key"
        with self._asking() as connection:
            return connection.execute(statement, (job,)).fetchall()

    def save_piece(self, job: str, key: str, number: int, text: str) -> None:
        """Write or overwrite a piece."""
        statement = """
            INSERT INTO tidemill.sync_piece VALUES (%s, %s, %s, %s)
            ON CONFLICT (job, key, number) DO UPDATE SET text = excluded.text
        """
        with self._asking() as connection:
            connection.execute(statement, (job, key, number, text))

    def drop_pieces(self, job: str, key: str) -> None:
        """Drop all pieces of a key."""
        with self._asking() as connection:
            connection.execute("DELETE FROM tidemill.sync_piece WHERE job = %s AND key = %s", (job, key))

    def record(self, run: RunRecord) -> None:
        """Write or overwrite the line of a run."""
        row = (run.run_id, run.job, run.source, run.target, run.state, run.started_at, run.ended_at)
        with self._asking() as connection:
            connection.execute(_RECORD, (*row, json.dumps(run.result)))

    def runs(self, limit: int = 20) -> list[RunRecord]:
        """The latest runs, newest first."""
        columns = "run_id, job, source, target, state, started_at, ended_at, result"
        with self._asking() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM tidemill.sync_run ORDER BY started_at DESC LIMIT %s", (limit,)
            ).fetchall()
        return [run_of_row(row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._own is not None:
                self._own.close()

    @contextmanager
    def _asking(self) -> Iterator[psycopg.Connection[Any]]:
        with self._lock:
            if self._own is None or self._own.closed:
                self._own = connect(self._url, autocommit=True)
            with postgres_errors(redact(self._url)):
                yield self._own
