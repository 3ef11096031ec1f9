"""Rows in PostgreSQL: COPY into a staging table, one upsert, state in the same transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any

from tidemill_core.postgres import (
    CopyWriter,
    TableName,
    column_types,
    connect,
    dataset_urn,
    open_pool,
    postgres_errors,
    redact,
)
from tidemill_core.postgres.write import create_schema

from tidemill_ingest_api.errors import SchemaConflict, StoreBusy, StoreUnavailable
from tidemill_ingest_api.stores import _rows
from tidemill_ingest_api.stores._base import (
    DOC,
    EXTRA,
    LOADED_AT,
    PARTITION_MARK,
    VERSION,
    Commit,
    Load,
    PageState,
    Reject,
    StreamState,
    TableSpec,
    Written,
)
from tidemill_ingest_api.stores.query import Dialect, Select, where

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

_STATE_DDL = """
SELECT pg_advisory_xact_lock(hashtextextended('tidemill:schema:tidemill_ingest', 0));
SELECT 1 FROM pg_namespace LIMIT 1;  -- refreshes the cache that CREATE asks
CREATE SCHEMA IF NOT EXISTS tidemill_ingest;
CREATE TABLE IF NOT EXISTS tidemill_ingest.streams (
  source text, stream text, table_name text NOT NULL, fingerprint text NOT NULL,
  version bigint NOT NULL DEFAULT 0, cursor text, PRIMARY KEY (source, stream));
CREATE TABLE IF NOT EXISTS tidemill_ingest.pages (
  source text, stream text, key text, etag text, last_modified text, next text, records integer, cursor text,
  PRIMARY KEY (source, stream, key));
CREATE TABLE IF NOT EXISTS tidemill_ingest.loads (
  load_id text PRIMARY KEY, source text, stream text, status text, started_at text, finished_at text, facts jsonb);
CREATE TABLE IF NOT EXISTS tidemill_ingest.rejects (
  source text, stream text, digest text, field text, reason text, record text, load_id text,
  PRIMARY KEY (source, stream, digest));
"""
_UPSERT_PAGE = """
INSERT INTO tidemill_ingest.pages VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source, stream, key) DO UPDATE SET etag = excluded.etag, last_modified = excluded.last_modified,
  next = excluded.next, records = excluded.records, cursor = excluded.cursor"""
_UPSERT_LOAD = """
INSERT INTO tidemill_ingest.loads VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (load_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at,
  facts = excluded.facts"""
_UPSERT_REJECT = """
INSERT INTO tidemill_ingest.rejects VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source, stream, digest) DO UPDATE SET load_id = excluded.load_id"""
_REJECT = ("digest", "field", "reason", "record", "load_id", "stream")
_SELECT_STREAM = "SELECT version, cursor, fingerprint FROM tidemill_ingest.streams WHERE source = %s AND stream = %s"
_PAGE = ("key", "etag", "last_modified", "next", "records", "cursor")
_SELECT_PAGES = (
    "SELECT key, etag, last_modified, next, records, cursor FROM tidemill_ingest.pages"
    " WHERE source = %s AND stream = %s"
)
_STAGE = TableName("pg_temp", "tidemill_ingest_stage")
_POLL_S = 0.1
_READERS, _POOL_WAIT_S = 8, 5.0
_STATEMENT_TIMEOUT = "30s"
_MISSING = ("42P01", "42703", "3F000")
DIALECT = Dialect(placeholder="%s", adapt=lambda value: value)


def open_postgres(url: str) -> PostgresStore:
    """Open ``postgresql://user:password@host:port/database``."""
    return PostgresStore(url)


class PostgresStore:
    """One PostgreSQL database."""

    is_local = False

    def __init__(self, url: str) -> None:
        self._dsn = url
        self._pool: ConnectionPool[Any] | None = None
        self._lock = Lock()

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return redact(self._dsn)

    @contextmanager
    def writer(self, table: TableSpec, *, wait_s: float = 30.0) -> Iterator[PostgresWriter]:
        """Take the table's advisory lock, make or extend the table, and hand out its writer."""
        connection = connect(self._dsn, autocommit=True, application="tidemill ingest")
        try:
            self._take_lock(connection, table, wait_s)
            with postgres_errors(f"{self.url} {table.table}"):
                writer = PostgresWriter(connection, table)
                writer.prepare()
                yield writer
        finally:
            connection.close()

    def version(self, table: TableSpec) -> int:
        """Read the table's version."""
        sql = "SELECT version FROM tidemill_ingest.streams WHERE source = %s AND stream = %s"
        rows = self._query(sql, (table.source, table.stream))
        return int(rows[0][0]) if rows else 0

    def get(self, table: TableSpec, key: Sequence[Any]) -> bytes | None:
        """Read one encoded record."""
        terms = " AND ".join(f"{_rows.quote(name)} = %s" for name in table.primary_key)
        rows = self._query(f"SELECT {DOC} FROM {_name(table)} WHERE {terms}", key)  # noqa: S608  # identifiers are quoted, values bound
        return rows[0][0].encode() if rows else None

    def select(self, table: TableSpec, select: Select) -> list[bytes]:
        """Read encoded records."""
        tail, params = where(select, _rows.quote, DIALECT)
        return [row[0].encode() for row in self._query(f"SELECT {DOC} FROM {_name(table)}{tail}", params)]  # noqa: S608  # as above

    def count(self, table: TableSpec) -> int:
        """Count the rows."""
        rows = self._query(f"SELECT count(*) FROM {_name(table)}")  # noqa: S608  # as above
        return int(rows[0][0]) if rows else 0

    def duplicates(self, table: TableSpec) -> int:
        """Count repeated keys."""
        key = _rows.quoted(table.primary_key)
        inner = f"SELECT 1 FROM {_name(table)} GROUP BY {key} HAVING count(*) > 1"  # noqa: S608  # as above
        rows = self._query(f"SELECT count(*) FROM ({inner}) AS repeated")  # noqa: S608  # as above
        return int(rows[0][0]) if rows else 0

    def ping(self) -> None:
        """Ask for one value."""
        self._query("SELECT 1")

    def state(self, table: TableSpec) -> StreamState | None:
        """Read what was last committed."""
        scope = (table.source, table.stream)
        rows = self._query(_SELECT_STREAM, scope)
        return _state_of(rows[0], self._query(_SELECT_PAGES, scope)) if rows else None

    def loads(self, source: str, *, limit: int = 100) -> list[Load]:
        """Read the load log."""
        sql = (
            "SELECT load_id, source, stream, status, started_at, finished_at, facts FROM tidemill_ingest.loads"
            " WHERE source = %s ORDER BY load_id DESC LIMIT %s"
        )
        return [
            Load(load_id=i, source=s, stream=t, status=st, started_at=a, finished_at=f, facts=facts)
            for i, s, t, st, a, f, facts in self._query(sql, (source, limit))
        ]

    def rejects(self, source: str, *, limit: int = 100) -> list[Reject]:
        """Read what was kept aside."""
        sql = (
            "SELECT digest, field, reason, record, load_id, stream FROM tidemill_ingest.rejects"
            ' WHERE source = %s ORDER BY load_id COLLATE "C" DESC, stream, digest LIMIT %s'
        )
        return [Reject(**dict(zip(_REJECT, row, strict=True))) for row in self._query(sql, (source, limit))]

    def dataset_urn(self, table: TableSpec) -> str:
        """Name the table for lineage."""
        return dataset_urn(self._dsn, table.table)

    def shown_name(self, table: TableSpec) -> str:
        """The table's name with its schema."""
        return str(TableName.parse(table.table))

    def close(self) -> None:
        """Close the readers' pool."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def _query(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        """Read; nothing where the schema or the table is not there yet."""
        import psycopg
        from psycopg_pool import PoolTimeout

        try:
            with self._readers().connection(timeout=_POOL_WAIT_S) as connection:
                if not connection.autocommit:
                    connection.autocommit = True
                    connection.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
                rows: list[Any] = connection.execute(sql, params).fetchall()
                return rows
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise StoreUnavailable(self.url, str(error).partition("\n")[0]) from None
        except psycopg.ProgrammingError as error:
            if error.sqlstate in _MISSING:
                return []
            raise

    def _readers(self) -> ConnectionPool[Any]:
        with self._lock:
            if self._pool is None:
                self._pool = open_pool(self._dsn, min_size=1, max_size=_READERS, application="tidemill ingest serve")
            return self._pool

    def _take_lock(self, connection: psycopg.Connection[Any], table: TableSpec, wait_s: float) -> None:
        number = int.from_bytes(sha256(f"tidemill.ingest:{table.table}".encode()).digest()[:8], signed=True)
        deadline = time.monotonic() + wait_s
        while not _one(connection, "SELECT pg_try_advisory_lock(%s)", (number,))[0]:
            if time.monotonic() >= deadline:
                raise StoreBusy(self.url, table.table)
            time.sleep(_POLL_S)


class PostgresWriter:
    """The only writer of a table in PostgreSQL; the lock is the connection's, and dies with it."""

    def __init__(self, connection: psycopg.Connection[Any], table: TableSpec) -> None:
        self._connection, self._table = connection, table
        self._scope = (table.source, table.stream)
        staged = _rows.quoted(_rows.staged_columns(table))
        tail = _rows.upsert_tail(table, "target", differs="IS DISTINCT FROM")
        self._upsert = (
            f"WITH done AS (INSERT INTO {_name(table)} AS target ({staged}, {LOADED_AT}, {VERSION})"  # noqa: S608  # identifiers are quoted
            f" SELECT {staged}, now(), %s FROM {_STAGE.quoted} {tail} RETURNING (xmax = 0) AS is_new)"
            " SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM done"
        )
        self._state = StreamState()

    def prepare(self) -> None:
        """Make or extend the table and read the state, in one transaction."""
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('tidemill.ingest.ddl', 0))")
            self._connection.execute("SET LOCAL client_min_messages = warning")
            if not _one(self._connection, "SELECT to_regclass('tidemill_ingest.rejects') IS NOT NULL", ())[0]:
                self._connection.execute(_STATE_DDL)  # only where missing: it needs rights that a writer may not have
            is_new = self._prepare_table()
            row = self._connection.execute(_SELECT_STREAM, self._scope).fetchone()
            has_rows = not is_new and self._connection.execute(f"SELECT 1 FROM {_name(self._table)} LIMIT 1").fetchone()  # noqa: S608  # quoted
            if row is None or row[2] != self._table.fingerprint or not has_rows:
                self._forget_partitions()
                self._reset(version=row[0] if row else 0)
            else:
                self._state = _state_of(row, self._connection.execute(_SELECT_PAGES, self._scope))
        self._connection.execute(
            f"CREATE TEMP TABLE tidemill_ingest_stage (LIKE {_name(self._table)}) ON COMMIT DELETE ROWS"
        )

    def state(self) -> StreamState:
        """What was last committed."""
        return self._state

    def enter(self, partition: str) -> StreamState:
        """Turn to a partition's state; it is made where it is new."""
        version = self._state.version
        self._scope = _rows.scope_of(self._table, partition)
        with self._connection.transaction():
            row = self._connection.execute(_SELECT_STREAM, self._scope).fetchone()
            if row is None or row[2] != self._table.fingerprint:
                self._reset(version)
                row = (version, None)
            found = _state_of(row, self._connection.execute(_SELECT_PAGES, self._scope))
        self._state = replace(found, version=version)
        return self._state

    def commit(self, commit: Commit) -> Written:
        """Write everything in one transaction."""
        with self.transaction():
            written = self.write_rows(commit)
            self.write_state(commit, written)
        return written

    def transaction(self) -> AbstractContextManager[Any]:
        """Make everything in the block durable together."""
        return self._connection.transaction()

    def write_rows(self, commit: Commit) -> Written:
        """Upsert the rows, inside the caller's transaction."""
        if not commit.rows:
            return Written(version=self._state.version)
        self._stage(commit.rows)
        version = max(self._state.version + 1, time.time_ns() // 1_000_000)
        inserted, updated = _one(self._connection, self._upsert, (version,))
        return Written(
            inserted=inserted, updated=updated, version=version if inserted + updated else self._state.version
        )

    def write_state(self, commit: Commit, written: Written) -> None:
        """Write page states, cursor, version and load log, inside the caller's transaction."""
        with self._connection.cursor() as cursor:
            if commit.pages:
                cursor.executemany(
                    _UPSERT_PAGE,
                    [(*self._scope, p.key, p.etag, p.last_modified, p.next, p.records, p.cursor) for p in commit.pages],
                )
            if commit.forget:
                cursor.execute(
                    "DELETE FROM tidemill_ingest.pages WHERE source = %s AND stream = %s AND key = ANY(%s)",
                    (*self._scope, list(commit.forget)),
                )
            cursor.execute(
                "UPDATE tidemill_ingest.streams SET version = %s, cursor = coalesce(%s, cursor)"
                " WHERE source = %s AND stream = %s",
                (written.version, commit.cursor, *self._scope),
            )
            # Readers ask for the version of the whole table, whichever partition changed it.
            whole = _rows.scope_of(self._table, "")
            cursor.execute(
                "UPDATE tidemill_ingest.streams SET version = %s WHERE source = %s AND stream = %s",
                (written.version, *whole),
            )
            if commit.rejects:
                cursor.executemany(
                    _UPSERT_REJECT,
                    [(*whole, r.digest, r.field, r.reason, r.record, commit.load_id) for r in commit.rejects],
                )
            cursor.execute(
                _UPSERT_LOAD,
                (
                    commit.load_id,
                    *whole,
                    commit.status,
                    commit.started_at,
                    commit.finished_at,
                    _rows.facts_text(commit, written),
                ),
            )
        self._state = StreamState(cursor=commit.cursor or self._state.cursor, version=written.version)

    def _stage(self, rows: Sequence[Sequence[Any]]) -> None:
        """Copy rows into the staging table, which empties itself at the end of the transaction."""
        import pyarrow as pa

        schema = self._staged_schema()
        *fields, extras, docs = zip(*rows, strict=True)
        columns = [*fields, extras, [doc.decode() for doc in docs]]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        with CopyWriter(self._connection, _STAGE, schema) as writer:
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _staged_schema(self) -> Any:
        import pyarrow as pa

        from tidemill_ingest_api.records.arrow import arrow_type

        fields = [(name, arrow_type(type_)) for name, type_ in self._table.columns.items()]
        return pa.schema([*fields, (EXTRA, pa.string()), (DOC, pa.string())])

    def _prepare_table(self) -> bool:
        name = TableName.parse(self._table.table)
        wanted = {column: kind.postgres for column, kind in zip(self._table.columns, self._table.kinds, strict=True)}
        wanted |= {EXTRA: "jsonb", DOC: "text", LOADED_AT: "timestamptz", VERSION: "bigint"}
        create_schema(self._connection, name.schema)
        exists = _one(self._connection, "SELECT to_regclass(%s) IS NOT NULL", (name.quoted,))[0]
        if not exists:
            columns = ", ".join(f"{_rows.quote(column)} {type_}" for column, type_ in wanted.items())
            key = _rows.quoted(self._table.primary_key)
            self._connection.execute(f"CREATE TABLE {name.quoted} ({columns}, PRIMARY KEY ({key}))")
        else:
            reported = {column: _reported(type_) for column, type_ in wanted.items()}
            found = {column: type_.type for column, type_ in column_types(self._connection, name).items()}
            for column in _rows.missing_columns(self._table, reported, found):
                self._connection.execute(f"ALTER TABLE {name.quoted} ADD COLUMN {_rows.quote(column)} {wanted[column]}")
            self._check_key(name)
        for column in self._table.indexes:
            index = _rows.quote(f"{name.name}_{column}_idx"[:63])
            self._connection.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {name.quoted} ({_rows.quote(column)})")
        return not exists

    def _check_key(self, name: TableName) -> None:
        sql = """SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
          CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
          WHERE i.indrelid = %s::regclass AND i.indisprimary"""
        key = tuple(_one(self._connection, sql, (name.quoted,))[0] or ())
        if key != self._table.primary_key:
            raise SchemaConflict(self._table.table, f"its key is {key}, not {self._table.primary_key}")

    def _forget_partitions(self) -> None:
        """Forget the states of all partitions: the table, or what is fetched into it, is new."""
        prefix = self._table.stream + PARTITION_MARK
        for table in ("pages", "streams"):
            sql = f"DELETE FROM tidemill_ingest.{table} WHERE source = %s AND starts_with(stream, %s)"  # noqa: S608  # our own names
            self._connection.execute(sql, (self._table.source, prefix))

    def _reset(self, version: int) -> None:
        """Forget pages and cursor: the table, or what is fetched into it, is new."""
        self._connection.execute("DELETE FROM tidemill_ingest.pages WHERE source = %s AND stream = %s", self._scope)
        self._connection.execute(
            "INSERT INTO tidemill_ingest.streams VALUES (%s, %s, %s, %s, %s, NULL) ON CONFLICT (source, stream)"
            " DO UPDATE SET table_name = excluded.table_name, fingerprint = excluded.fingerprint, cursor = NULL",
            (*self._scope, self._table.table, self._table.fingerprint, version),
        )
        self._state = StreamState(version=version)


def _state_of(stream: Sequence[Any], pages: Iterable[Sequence[Any]]) -> StreamState:
    states = [PageState(**dict(zip(_PAGE, each, strict=True))) for each in pages]
    return StreamState(cursor=stream[1], pages={page.key: page for page in states}, version=stream[0])


def _name(table: TableSpec) -> str:
    return TableName.parse(table.table).quoted


def _one(connection: psycopg.Connection[Any], sql: str, params: Sequence[Any]) -> Any:
    row = connection.execute(sql, params).fetchone()
    assert row is not None
    return row


def _reported(type_: str) -> str:
    """A type as format_type writes it."""
    return {"timestamptz": "timestamp with time zone"}.get(type_, type_.partition(" COLLATE")[0])


__all__ = ["PostgresStore", "PostgresWriter", "open_postgres"]
