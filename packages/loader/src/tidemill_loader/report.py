"""Read the ledger for people: what is loaded, and what was set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemill_core.postgres import TableName, connect, postgres_errors

from tidemill_loader.ledger import APPEND, prepare

if TYPE_CHECKING:
    import psycopg

_STATUS = """
SELECT l.table_name AS "table", coalesce(s.mode, 'append') AS mode, coalesce(s.state, 'done') AS state,
       l.generation, count(*) AS units, sum(l.rows)::bigint AS rows, sum(l.rejected)::bigint AS rejected,
       max(l.loaded_at) AS last_unit_at
FROM tidemill.load_ledger l
LEFT JOIN tidemill.load_state s ON s.table_name = l.table_name AND s.generation = l.generation
WHERE %(table)s::text IS NULL OR l.table_name = %(table)s
GROUP BY 1, 2, 3, 4 ORDER BY 1, 4
"""
_REJECTS = """
SELECT url, unit, row_number AS row, column_name AS "column", reason, record
FROM tidemill.load_rejects WHERE table_name = %(table)s ORDER BY url, unit, row_number LIMIT %(limit)s
"""


def load_status(url: str, table: str | None = None) -> list[dict[str, Any]]:
    """List loads, one row per table and generation; generation ``append`` sums up all appended files.

    A load in state ``loading`` was ended before its last unit; running it again goes on.
    """
    rows = _read(url, _STATUS, {"table": TableName.parse(table).quoted if table else None})
    for row in rows:
        row["table"] = str(TableName.parse(row["table"]))
        row["mode"] = APPEND if row["generation"] == APPEND else row["mode"]
    return rows


def load_rejects(url: str, table: str, *, limit: int = 100) -> list[dict[str, Any]]:
    """List rejected rows of a table: file, unit, row (from 0), column, reason and the row."""
    return _read(url, _REJECTS, {"table": TableName.parse(table).quoted, "limit": limit})


def _read(url: str, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    with connect(url) as conn, postgres_errors("read the ledger"):
        prepare(conn)
        cursor: psycopg.Cursor[dict[str, Any]] = conn.cursor(row_factory=dict_row)
        return cursor.execute(query.encode(), values).fetchall()
