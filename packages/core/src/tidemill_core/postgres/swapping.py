"""Put a new table in an old one's place: owner, grants, comments, indexes stay; readers never wait for a load."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.postgres.copy import Arrow, CopyResult, CopyWriter, stream_of
from tidemill_core.postgres.errors import PostgresRefused
from tidemill_core.postgres.identifiers import TableName, quote
from tidemill_core.postgres.policy import Policy
from tidemill_core.postgres.types import column_types, table_exists
from tidemill_core.postgres.write import create_table

if TYPE_CHECKING:
    import psycopg

_DEPENDENTS = """
SELECT DISTINCT CASE v.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || v.oid::regclass::text
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
JOIN pg_class v ON v.oid = r.ev_class
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s::regclass AND v.oid <> d.refobjid
UNION ALL
SELECT 'foreign key ' || conname || ' of ' || conrelid::regclass::text FROM pg_constraint
WHERE contype = 'f' AND confrelid = %(table)s::regclass AND conrelid <> confrelid
UNION ALL
SELECT 'partition or child ' || inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %(table)s::regclass
UNION ALL
SELECT 'parent ' || inhparent::regclass::text FROM pg_inherits WHERE inhrelid = %(table)s::regclass
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal
UNION ALL
SELECT 'row security policy ' || polname FROM pg_policy WHERE polrelid = %(table)s::regclass
"""
_INDEXES = """
SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i
LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x')
WHERE i.indrelid = %(table)s::regclass AND c.oid IS NULL ORDER BY i.indexrelid
"""
_CONSTRAINTS = """
SELECT conname, pg_get_constraintdef(oid), contype FROM pg_constraint
WHERE conrelid = %(table)s::regclass AND contype IN ('p', 'u', 'x', 'c', 'f') ORDER BY contype = 'f', conname
"""
_GRANTS = """
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(g.rolname) END, a.privilege_type, a.is_grantable, NULL
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
WHERE c.oid = %(table)s::regclass AND a.grantee <> c.relowner
UNION ALL
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(g.rolname) END, a.privilege_type, a.is_grantable,
       t.attname
FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee
WHERE t.attrelid = %(table)s::regclass AND t.attnum > 0 AND NOT t.attisdropped
"""
_COMMENTS = """
SELECT a.attname, d.description FROM pg_description d
LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
WHERE d.classoid = 'pg_class'::regclass AND d.objoid = %(table)s::regclass
"""
_OWNER = "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = %(table)s::regclass"


def dependents(conn: psycopg.Connection[Any], table: TableName | str) -> list[str]:
    """List what a swap of this table would break: views, foreign keys, partitions, triggers, policies."""
    name = TableName.parse(table)
    with postgres_errors(f"dependents of {name}"):
        return [row[0] for row in conn.execute(_DEPENDENTS, {"table": name.quoted}).fetchall()]


def swap(conn: psycopg.Connection[Any], new: TableName | str, table: TableName | str) -> None:
    """Give `new` the name `table`, and drop what had it, in one transaction.

    Owner, grants and comments of the old table stay, and its constraints and indexes
    are built on the new one where that has none of its own. Readers see the old table
    until the commit; a transaction that reads it already makes the swap wait.

    Raises:
        PostgresRefused: Views, foreign keys or partitions hang on the old table, or a
            constraint does not hold for the new rows.
    """
    fresh, name = TableName.parse(new), TableName.parse(table)
    with postgres_errors(f"swap {fresh} into {name}"), conn.transaction():
        if table_exists(conn, name):
            conn.execute(f"LOCK TABLE {name.quoted} IN SHARE ROW EXCLUSIVE MODE".encode())
            _refuse_dependents(conn, name)
            after = [*_rights(conn, name, fresh), *_structure(conn, name, fresh)]
            conn.execute(f"DROP TABLE {name.quoted}".encode())
        else:
            after = []
        conn.execute(f"ALTER TABLE {fresh.quoted} RENAME TO {quote(name.name)}".encode())
        _rename_key(conn, name)
        for statement in after:
            conn.execute(statement.encode())


def _refuse_dependents(conn: psycopg.Connection[Any], name: TableName) -> None:
    found = dependents(conn, name)
    if found:
        raise PostgresRefused(
            f"{name} cannot be replaced by a swap: {', '.join(found)} depend on it; write with mode `truncate`, "
            "which keeps the table, or drop them first"
        )


def _rights(conn: psycopg.Connection[Any], name: TableName, fresh: TableName) -> list[str]:
    """Write the statements that carry owner, grants and comments over; new columns lose theirs."""
    at = {"table": name.quoted}
    columns = column_types(conn, fresh)
    owner = conn.execute(_OWNER, at).fetchone()
    statements = [f"ALTER TABLE {name.quoted} OWNER TO {owner[0]}"] if owner else []
    for grantee, privilege, grantable, column in conn.execute(_GRANTS, at).fetchall():
        if column is None or column in columns:
            what = f"{privilege} ({quote(column)})" if column else privilege
            option = " WITH GRANT OPTION" if grantable else ""
            statements.append(f"GRANT {what} ON {name.quoted} TO {grantee}{option}")
    for column, text in conn.execute(_COMMENTS, at).fetchall():
        literal = _literal(conn, text)
        if column is None:
            statements.append(f"COMMENT ON TABLE {name.quoted} IS {literal}")
        elif column in columns:
            statements.append(f"COMMENT ON COLUMN {name.quoted}.{quote(column)} IS {literal}")
    return statements


def _literal(conn: psycopg.Connection[Any], text: str) -> str:
    from psycopg import sql

    return sql.Literal(text).as_string(conn)


def _structure(conn: psycopg.Connection[Any], name: TableName, fresh: TableName) -> list[str]:
    """Write the statements that rebuild the old table's constraints and indexes."""
    at, own = {"table": name.quoted}, {"table": fresh.quoted}
    have = {definition for _, definition, _ in conn.execute(_CONSTRAINTS, own).fetchall()}
    has_key = any(kind == "p" for _, _, kind in conn.execute(_CONSTRAINTS, own).fetchall())
    statements = []
    for constraint, definition, kind in conn.execute(_CONSTRAINTS, at).fetchall():
        if definition in have or (kind == "p" and has_key):
            continue
        statements.append(f"ALTER TABLE {name.quoted} ADD CONSTRAINT {quote(constraint)} {definition}")
    return statements + [row[0] for row in conn.execute(_INDEXES, at).fetchall()]


def _rename_key(conn: psycopg.Connection[Any], name: TableName) -> None:
    """Call the primary key after the table, as CREATE TABLE would have."""
    rows = conn.execute(_CONSTRAINTS, {"table": name.quoted}).fetchall()
    wanted = name.sibling("_pkey").name
    for constraint, _, kind in rows:
        if kind == "p" and constraint != wanted and not table_exists(conn, TableName(name.schema, wanted)):
            conn.execute(f"ALTER TABLE {name.quoted} RENAME CONSTRAINT {quote(constraint)} TO {quote(wanted)}".encode())


def swap_in(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    data: Arrow,
    *,
    primary_key: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> CopyResult:
    """Replace a table's rows and columns: load a new table, then swap it in, all in one transaction.

    Readers see the old table, whole, until the commit. The table is created if it is not there.

    Raises:
        ColumnRefused, ValueRefused: Something cannot be written exactly; the old table stays.
        PostgresRefused: Something depends on the old table (see `swap`).
    """
    started = time.monotonic()
    name = TableName.parse(table)
    schema, batches = stream_of(data)
    with postgres_errors(f"replace {name}"), conn.transaction():
        if table_exists(conn, name):
            _refuse_dependents(conn, name)
        fresh = name.sibling(f"_new_{uuid4().hex[:8]}")
        create_table(conn, fresh, schema, primary_key, if_not_exists=False, types=types)
        with CopyWriter(conn, fresh, schema, policy=policy) as writer:
            for batch in batches:
                writer.write(batch)
        swap(conn, fresh, name)
    return CopyResult(rows=writer.rows, bytes=writer.bytes, seconds=time.monotonic() - started)
