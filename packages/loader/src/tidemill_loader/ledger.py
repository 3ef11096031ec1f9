"""What has been loaded, kept in the target database and written in the same transaction as the rows.

tidemill.load_state     one row per table: the last generation, and whether it is whole
tidemill.load_ledger    one row per unit loaded: exactly once, whatever is killed when
tidemill.load_rejects   one row per bad value set aside
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.postgres.identifiers import TableName
from tidemill_core.postgres.write import create_schema

if TYPE_CHECKING:
    import psycopg

    from tidemill_loader.pending import Place
    from tidemill_loader.plan import Task

APPEND = "append"
"""The generation of all appended units: each file counts once, ever."""
MAX_TEXT = 2_000
"""Characters kept of a reason or a bad row."""

_CREATE = """
SELECT pg_advisory_xact_lock(hashtextextended('tidemill.load_ledger', 0));
SELECT pg_advisory_xact_lock(hashtextextended('tidemill:schema:tidemill', 0));
SELECT 1 FROM pg_namespace LIMIT 1;  -- refreshes the cache that CREATE asks
CREATE SCHEMA IF NOT EXISTS tidemill;
CREATE TABLE IF NOT EXISTS tidemill.load_state (
    table_name text PRIMARY KEY, generation text NOT NULL, mode text NOT NULL, state text NOT NULL,
    staging text, table_oid oid, rows bigint, rejected bigint,
    started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
CREATE TABLE IF NOT EXISTS tidemill.load_ledger (
    table_name text NOT NULL, generation text NOT NULL, url text NOT NULL, etag text NOT NULL, unit integer NOT NULL,
    rows bigint NOT NULL DEFAULT 0, rejected bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0,
    loaded_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (table_name, generation, url, etag, unit));
ALTER TABLE tidemill.load_ledger ADD COLUMN IF NOT EXISTS start_byte bigint, ADD COLUMN IF NOT EXISTS end_byte bigint;
CREATE TABLE IF NOT EXISTS tidemill.load_rejects (
    table_name text NOT NULL, generation text NOT NULL, url text NOT NULL, unit integer NOT NULL,
    row_number bigint NOT NULL, column_name text, reason text NOT NULL, record text,
    rejected_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX IF NOT EXISTS load_rejects_table ON tidemill.load_rejects (table_name, generation);
"""
_IS_PREPARED = """
SELECT to_regclass('tidemill.load_rejects') IS NOT NULL AND EXISTS (
    SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('tidemill.load_ledger') AND attname = 'end_byte')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The last load of a table in mode replace or upsert."""

    generation: str
    mode: str
    state: str
    staging: str | None
    table_oid: int | None
    rows: int | None
    rejected: int | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row set aside; `row` counts from 0 in its unit."""

    row: int
    column: str | None
    reason: str
    record: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over ledger rows."""

    units: int = 0
    rows: int = 0
    rejected: int = 0
    bytes: int = 0


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make the ledger's tables if they are not there, and commit; sessions that do so wait for each other."""
    with postgres_errors("make the load ledger"):
        if not _is_prepared(conn):
            create_schema(conn, "tidemill")
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('tidemill.load_ledger', 0))")
            if not _is_prepared(conn):
                conn.execute(_CREATE)
        conn.commit()


def _is_prepared(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute(_IS_PREPARED).fetchone()
    return bool(row and row[0])


class Ledger:
    """The ledger of one table and generation; every method runs in the connection's transaction."""

    def __init__(self, table: TableName, generation: str) -> None:
        self.table, self.generation = table.quoted, generation

    def claim(self, conn: psycopg.Connection[Any], task: Task) -> bool:
        """Enter a unit; False if it is loaded already. Waits for another transaction that loads it now."""
        done = conn.execute(
            "INSERT INTO tidemill.load_ledger (table_name, generation, url, etag, unit, start_byte, end_byte)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                self.table,
                self.generation,
                task.source.url,
                task.source.etag,
                task.unit.index,
                task.unit.start,
                task.unit.end,
            ),
        )
        return done.rowcount == 1

    def record(self, conn: psycopg.Connection[Any], task: Task, *, rows: int, size: int, bad: Sequence[Reject]) -> None:
        """Write down what a claimed unit brought, and its rejects."""
        rejected = len({each.row for each in bad})
        conn.execute(
            "UPDATE tidemill.load_ledger SET rows = %s, rejected = %s, bytes = %s"
            " WHERE (table_name, generation, url, etag, unit) = (%s, %s, %s, %s, %s)",
            (rows, rejected, size, self.table, self.generation, task.source.url, task.source.etag, task.unit.index),
        )
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO tidemill.load_rejects"
                " (table_name, generation, url, unit, row_number, column_name, reason, record)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                [self._values(task, each) for each in bad],
            )

    def _values(self, task: Task, bad: Reject) -> tuple[Any, ...]:
        texts = [None if text is None else text.replace("\x00", "\\0")[:MAX_TEXT] for text in (bad.reason, bad.record)]
        return (self.table, self.generation, task.source.url, task.unit.index, bad.row, bad.column, *texts)

    def done(self, conn: psycopg.Connection[Any]) -> dict[tuple[str, str], dict[int, Place]]:
        """List the units that are loaded, by URL and etag of their file."""
        rows = conn.execute(
            "SELECT url, etag, unit, start_byte, end_byte FROM tidemill.load_ledger"
            " WHERE table_name = %s AND generation = %s",
            (self.table, self.generation),
        ).fetchall()
        found: dict[tuple[str, str], dict[int, Place]] = {}
        for url, etag, unit, start, end in rows:
            found.setdefault((url, etag), {})[unit] = (start, end)
        return found

    def totals(self, conn: psycopg.Connection[Any]) -> Totals:
        """Sum up the generation."""
        row = conn.execute(
            "SELECT count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(rejected), 0)::bigint,"
            " coalesce(sum(bytes), 0)::bigint FROM tidemill.load_ledger WHERE table_name = %s AND generation = %s",
            (self.table, self.generation),
        ).fetchone()
        return Totals(units=row[0], rows=row[1], rejected=row[2], bytes=row[3]) if row else Totals()

    def state(self, conn: psycopg.Connection[Any]) -> State | None:
        """Read the table's last load."""
        row = conn.execute(
            "SELECT generation, mode, state, staging, table_oid, rows, rejected, started_at, finished_at"
            " FROM tidemill.load_state WHERE table_name = %s",
            (self.table,),
        ).fetchone()
        fields = (
            "generation",
            "mode",
            "state",
            "staging",
            "table_oid",
            "rows",
            "rejected",
            "started_at",
            "finished_at",
        )
        return State(**dict(zip(fields, row, strict=True))) if row else None

    def version(self, conn: psycopg.Connection[Any]) -> str:
        """Digest what is loaded: another text after every load that changed the table, never without one."""
        row = conn.execute(
            "SELECT (SELECT concat_ws('|', generation, state, table_oid, extract(epoch FROM finished_at))"
            " FROM tidemill.load_state WHERE table_name = %(table)s),"
            " (SELECT concat_ws('|', count(*), extract(epoch FROM max(loaded_at)))"
            " FROM tidemill.load_ledger WHERE table_name = %(table)s)",
            {"table": self.table},
        ).fetchone()
        return hashlib.sha256(repr(row).encode()).hexdigest()[:16]

    def begin(self, conn: psycopg.Connection[Any], mode: str, staging: TableName) -> None:
        """Say that this generation is being loaded into `staging`, and forget other generations' units."""
        for name in ("load_ledger", "load_rejects"):
            conn.execute(
                f"DELETE FROM tidemill.{name} WHERE table_name = %s AND generation <> %s",  # noqa: S608 - our names
                (self.table, APPEND),
            )
        conn.execute(
            "INSERT INTO tidemill.load_state (table_name, generation, mode, state, staging) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (table_name) DO UPDATE SET generation = excluded.generation, mode = excluded.mode,"
            " state = excluded.state, staging = excluded.staging, table_oid = NULL, rows = NULL, rejected = NULL,"
            " started_at = now(), finished_at = NULL",
            (self.table, self.generation, mode, "loading", staging.quoted),
        )

    def finish(self, conn: psycopg.Connection[Any], totals: Totals) -> None:
        """Say that the generation is whole; call it in the transaction that makes it visible."""
        conn.execute(
            "UPDATE tidemill.load_state SET state = 'done', staging = NULL, table_oid = %s::regclass::oid, rows = %s,"
            " rejected = %s, finished_at = now() WHERE table_name = %s",
            (self.table, totals.rows, totals.rejected, self.table),
        )

    def forget_appended(self, conn: psycopg.Connection[Any]) -> None:
        """Forget every appended unit of the table: its rows went with the old table."""
        for name in ("load_ledger", "load_rejects"):
            conn.execute(
                f"DELETE FROM tidemill.{name} WHERE table_name = %s AND generation = %s",  # noqa: S608 - our names
                (self.table, APPEND),
            )

    def outdate(self, conn: psycopg.Connection[Any]) -> None:
        """Say that the table no longer is what its last replace or upsert made it."""
        conn.execute(
            "UPDATE tidemill.load_state SET state = 'appended to' WHERE table_name = %s AND state = 'done'",
            (self.table,),
        )

    def earlier_etags(self, conn: psycopg.Connection[Any]) -> dict[str, set[str]]:
        """List the etags under which each file was loaded."""
        found: dict[str, set[str]] = {}
        for url, etag in self.done(conn):
            found.setdefault(url, set()).add(etag)
        return found
