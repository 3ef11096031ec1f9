"""Create tables; upsert by key and replace partitions, each in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tidemill_core.errors import ConfigError
from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.postgres.copy import Arrow, CopyResult, CopyWriter, copy_into, stream_of
from tidemill_core.postgres.ddl import columns_for, ddl_for
from tidemill_core.postgres.errors import PostgresRefused
from tidemill_core.postgres.identifiers import TableName, quote
from tidemill_core.postgres.policy import Policy
from tidemill_core.postgres.types import column_types, table_exists

if TYPE_CHECKING:
    import psycopg

_STAGING = TableName("pg_temp", "tidemill_staging")


def create_table(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    schema: pa.Schema,
    primary_key: Sequence[str] = (),
    if_not_exists: bool = True,  # noqa: FBT001, FBT002 - the shared contract's signature
    *,
    types: Mapping[str, str] | None = None,
) -> str:
    """Create a table for an Arrow schema, and its PostgreSQL schema; answers the statement.

    Raises:
        ConfigError: A name or type cannot be used.
        PostgresRefused: The table exists and `if_not_exists` is false, or rights are missing.
    """
    name = TableName.parse(table)
    statement = ddl_for(name, schema, primary_key, types=types, if_not_exists=if_not_exists)
    with postgres_errors(f"create {name}"), conn.transaction():
        if if_not_exists and table_exists(conn, name):
            return statement  # without the lock, which would make every writer of the table wait for the others
        # IF NOT EXISTS races with another session; the lock makes one wait for the other
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidemill:{name}",))
        if not (if_not_exists and table_exists(conn, name)):
            create_schema(conn, name.schema)
            conn.execute(statement.encode())
    return statement


def add_columns(conn: psycopg.Connection[Any], table: TableName | str, schema: pa.Schema) -> list[str]:
    """Add the columns of an Arrow schema that a table lacks, with nulls in the rows that are there.

    Sessions that add columns to one table wait for each other, and an `ALTER TABLE` for every transaction
    that has written to it; call this before anything is written.

    Returns:
        The names of the new columns.

    Raises:
        ConfigError: A name or type cannot be used.
        PostgresRefused: There is no such table, or rights are missing.
    """
    name = TableName.parse(table)
    known = column_types(conn, name)
    if all(column in known for column in schema.names):
        return []
    wanted = columns_for(schema)
    with postgres_errors(f"add columns to {name}"), conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidemill:{name}",))
        known = column_types(conn, name)
        new = [column for column in wanted if column not in known]
        if new:
            parts = ", ".join(f"ADD COLUMN {quote(column)} {wanted[column]}" for column in new)
            conn.execute(f"ALTER TABLE {name.quoted} {parts}".encode())
    return new


def create_schema(conn: psycopg.Connection[Any], schema: str) -> None:
    """Create a PostgreSQL schema if it is not there (which needs no right to create one).

    Sessions that create the same schema wait for each other: ``IF NOT EXISTS`` alone lets one of
    two fail. Every package takes the same lock; in a transaction of the caller's until its end.
    """
    if _has_schema(conn, schema):
        return
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidemill:schema:{schema}",))
        # Looking again is not only for speed: CREATE asks a cache that waiting for the lock did not
        # refresh and that may still say "no such schema"; reading the catalog refreshes it.
        if not _has_schema(conn, schema):
            conn.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}".encode())


def _has_schema(conn: psycopg.Connection[Any], schema: str) -> bool:
    return conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is not None


def upsert(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    data: Arrow,
    key: Sequence[str],
    *,
    policy: Policy | None = None,
) -> CopyResult:
    """Insert rows, or update those whose key is there: one staging table, one statement, one transaction.

    Of rows with the same key in `data`, the last one wins. `rows` counts the rows given.

    Args:
        conn: An open connection.
        table: Has a primary key or unique constraint on exactly `key`.
        data: Columns of the table; columns it lacks keep their value, or get their default.
        key: One or more columns, none of them null.
        policy: What may change on the way.

    Raises:
        PostgresRefused: There is no such constraint, or a key is null.
    """
    started = time.monotonic()
    name = TableName.parse(table)
    schema, batches = stream_of(data)
    columns = list(schema.names)
    with postgres_errors(f"upsert into {name}"), conn.transaction():
        picked = ", ".join(map(quote, columns))
        create = f"CREATE TEMP TABLE tidemill_staging AS SELECT {picked} FROM {name.quoted} WITH NO DATA"  # noqa: S608
        conn.execute(create.encode())
        with CopyWriter(conn, _STAGING, schema, policy=policy) as writer:
            for batch in batches:
                writer.write(batch)
        merge_from(conn, name, _STAGING, columns=columns, key=key)
        conn.execute(f"DROP TABLE {_STAGING.quoted}".encode())
    return CopyResult(rows=writer.rows, bytes=writer.bytes, seconds=time.monotonic() - started)


def merge_from(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    staging: TableName | str,
    *,
    columns: Sequence[str],
    key: Sequence[str],
    order: Sequence[str] = (),
) -> int:
    """Upsert every row of a staging table, the last of each key; answers how many rows were written.

    Args:
        conn: An open connection.
        table: Has a primary key or unique constraint on exactly `key`.
        staging: Holds `columns`, and those of `order`.
        columns: What to write.
        key: Columns of the constraint.
        order: Staging columns that say which row is the last of its key, before the order of writing.

    Raises:
        ConfigError: The key is empty or not among the columns.
        PostgresRefused: A key is null, or the table has no unique constraint on the key.
    """
    name, source = TableName.parse(table), TableName.parse(staging)
    if not key or not set(key) <= set(columns):
        raise ConfigError(f"upsert into {name} needs key columns out of {', '.join(columns)}; got {list(key)}")
    keys = ", ".join(map(quote, key))
    with postgres_errors(f"upsert into {name}"):
        nulls = " OR ".join(f"{quote(column)} IS NULL" for column in key)
        null_key = f"SELECT 1 FROM {source.quoted} WHERE {nulls} LIMIT 1"  # noqa: S608 - every name is quoted
        if conn.execute(null_key.encode()).fetchone():
            raise PostgresRefused(f"upsert into {name}: a row has a null in its key ({keys})")
        picked = ", ".join(map(quote, columns))
        rest = [quote(column) for column in columns if column not in key]
        latest = "".join(f", {quote(column)} DESC" for column in order)
        action = "UPDATE SET " + ", ".join(f"{each} = excluded.{each}" for each in rest) if rest else "NOTHING"
        done = conn.execute(
            f"INSERT INTO {name.quoted} ({picked}) SELECT DISTINCT ON ({keys}) {picked} FROM {source.quoted}"  # noqa: S608 - every name is quoted
            f" ORDER BY {keys}{latest}, ctid DESC ON CONFLICT ({keys}) DO {action}".encode()
        )
    return done.rowcount


def replace_where(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    data: Arrow,
    where: Mapping[str, object],
    *,
    policy: Policy | None = None,
) -> CopyResult:
    """Replace one partition: delete the rows that match and append the data, in one transaction.

    Args:
        conn: An open connection.
        table: An existing table.
        data: The partition's new rows.
        where: Column to value, all of which a row must match (None matches nulls); not empty.
        policy: What may change on the way.

    Raises:
        ConfigError: `where` is empty, which would delete everything.
    """
    name = TableName.parse(table)
    if not where:
        raise ConfigError(f"replacing a partition of {name} needs a condition; use swap_in to replace the table")
    tests = " AND ".join(f"{quote(column)} IS NOT DISTINCT FROM %s" for column in where)
    with postgres_errors(f"replace a partition of {name}"), conn.transaction():
        conn.execute(f"DELETE FROM {name.quoted} WHERE {tests}".encode(), list(where.values()))  # noqa: S608 - quoted
        return copy_into(conn, name, data, policy=policy)
