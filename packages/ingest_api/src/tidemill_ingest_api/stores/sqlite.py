"""Rows in a SQLite file: WAL, one writer held by a lock file, readers never blocked."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

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

_STATE_DDL = """
CREATE TABLE IF NOT EXISTS tidemill_ingest_streams (
  source TEXT, stream TEXT, table_name TEXT NOT NULL, fingerprint TEXT NOT NULL,
  version INTEGER NOT NULL DEFAULT 0, cursor TEXT, PRIMARY KEY (source, stream));
CREATE TABLE IF NOT EXISTS tidemill_ingest_pages (
  source TEXT, stream TEXT, key TEXT, etag TEXT, last_modified TEXT, next TEXT, records INTEGER, cursor TEXT,
  PRIMARY KEY (source, stream, key));
CREATE TABLE IF NOT EXISTS tidemill_ingest_loads (
  load_id TEXT PRIMARY KEY, source TEXT, stream TEXT, status TEXT, started_at TEXT, finished_at TEXT, facts TEXT);
CREATE TABLE IF NOT EXISTS tidemill_ingest_rejects (
  source TEXT, stream TEXT, digest TEXT, field TEXT, reason TEXT, record TEXT, load_id TEXT,
  PRIMARY KEY (source, stream, digest));
"""
_POLL_S = 0.05
_REJECT = ("digest", "field", "reason", "record", "load_id", "stream")
_PAGE = ("key", "etag", "last_modified", "next", "records", "cursor")


def open_sqlite(url: str) -> SqliteStore:
    """Open ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; the file is made when it is first written."""
    return SqliteStore(Path(url.partition("://")[2].removeprefix("/")))


def adapt(value: Any) -> Any:
    """Write a canonical value as SQLite keeps it: times and dates as sortable text."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value


DIALECT = Dialect(placeholder="?", adapt=adapt)


class SqliteStore:
    """One SQLite file."""

    is_local = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"sqlite:///{self.path}"

    @contextmanager
    def writer(self, table: TableSpec, *, wait_s: float = 30.0) -> Iterator[SqliteWriter]:
        """Lock the file for writing, make or extend the table, and hand out its writer."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _file_lock(self.path.with_name(self.path.name + ".lock"), wait_s, self.url, table.table):
            connection = _connect(self.path)
            try:
                writer = SqliteWriter(connection, table)
                writer.prepare()
                yield writer
            finally:
                connection.close()

    def version(self, table: TableSpec) -> int:
        """Read the table's version."""
        sql = "SELECT version FROM tidemill_ingest_streams WHERE source = ? AND stream = ?"
        rows = self._query(sql, (table.source, table.stream))
        return int(rows[0][0]) if rows else 0

    def get(self, table: TableSpec, key: Sequence[Any]) -> bytes | None:
        """Read one encoded record."""
        terms = " AND ".join(f"{_rows.quote(name)} = ?" for name in table.primary_key)
        rows = self._query(f"SELECT {DOC} FROM {_name(table)} WHERE {terms}", [adapt(value) for value in key])  # noqa: S608  # identifiers are quoted, values bound
        return rows[0][0] if rows else None

    def select(self, table: TableSpec, select: Select) -> list[bytes]:
        """Read encoded records."""
        tail, params = where(select, _rows.quote, DIALECT)
        return [row[0] for row in self._query(f"SELECT {DOC} FROM {_name(table)}{tail}", params)]  # noqa: S608  # as above

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
        """Look whether the file is there and readable."""
        if not self.path.exists():
            raise StoreUnavailable(self.url, "there is no such file; run `tidemill ingest run` first")
        self._query("SELECT 1")

    def state(self, table: TableSpec) -> StreamState | None:
        """Read what was last committed."""
        if not self.path.exists():
            return None
        connection = _connect(self.path)
        try:
            return _read_state(connection, (table.source, table.stream))
        except sqlite3.OperationalError:  # no state tables yet
            return None
        finally:
            connection.close()

    def loads(self, source: str, *, limit: int = 100) -> list[Load]:
        """Read the load log."""
        sql = (
            "SELECT load_id, source, stream, status, started_at, finished_at, facts FROM tidemill_ingest_loads"
            " WHERE source = ? ORDER BY load_id DESC LIMIT ?"
        )
        texts = ([v.decode() if isinstance(v, bytes) else v for v in row] for row in self._query(sql, (source, limit)))
        return [
            Load(load_id=i, source=s, stream=t, status=st, started_at=a, finished_at=f, facts=orjson.loads(facts))
            for i, s, t, st, a, f, facts in texts
        ]

    def rejects(self, source: str, *, limit: int = 100) -> list[Reject]:
        """Read what was kept aside."""
        sql = (
            "SELECT digest, field, reason, record, load_id, stream FROM tidemill_ingest_rejects"
            " WHERE source = ? ORDER BY load_id DESC, stream, digest LIMIT ?"
        )
        texts = ([v.decode() if isinstance(v, bytes) else v for v in row] for row in self._query(sql, (source, limit)))
        return [Reject(**dict(zip(_REJECT, row, strict=True))) for row in texts]

    def dataset_urn(self, table: TableSpec) -> str:
        """Name the table for lineage."""
        return f"sqlite://{self.path.absolute()}/{self.shown_name(table)}"

    def shown_name(self, table: TableSpec) -> str:
        """The table's name; SQLite has no schemas."""
        return table.table.replace(".", "_")

    def close(self) -> None:
        """Close every reader."""
        with self._lock:
            while self._connections:
                self._connections.pop().close()
        self._local = threading.local()

    def _query(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        """Read; nothing where the file or the table is not there yet."""
        if not self.path.exists():
            return []
        try:
            return self._reader().execute(sql, params).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "no such column" in str(error):
                return []
            raise StoreUnavailable(self.url, str(error)) from error

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path)
            connection.text_factory = bytes
            connection.execute("PRAGMA query_only=ON")
            connection.execute("PRAGMA case_sensitive_like=ON")
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection


class SqliteWriter:
    """The only writer of a table in a SQLite file."""

    def __init__(self, connection: sqlite3.Connection, table: TableSpec) -> None:
        self._connection, self._table = connection, table
        self._scope = (table.source, table.stream)
        marks = ", ".join("?" * (len(_rows.staged_columns(table)) + 2))
        names = _rows.quoted([*_rows.staged_columns(table), LOADED_AT, VERSION])
        tail = _rows.upsert_tail(table, _name(table), differs="IS NOT")
        self._upsert = f"INSERT INTO {_name(table)} ({names}) VALUES ({marks}) {tail}"  # noqa: S608  # identifiers are quoted
        self._adapted = [i for i, kind in enumerate(table.kinds) if kind.arrow in {"timestamp", "date"}]
        self._state = StreamState()

    def prepare(self) -> None:
        """Make or extend the table and read the state, in one transaction."""
        self._connection.executescript(_STATE_DDL)
        with self.transaction():
            is_new = self._prepare_table()
            row = self._connection.execute(
                "SELECT fingerprint, version FROM tidemill_ingest_streams WHERE source = ? AND stream = ?",
                self._scope,
            ).fetchone()
            has_rows = not is_new and self._connection.execute(f"SELECT 1 FROM {_name(self._table)} LIMIT 1").fetchone()  # noqa: S608  # quoted
            if row is None or row[0] != self._table.fingerprint or not has_rows:
                self._forget_partitions()
                self._reset(version=row[1] if row else 0)
                return
            self._state = _read_state(self._connection, self._scope) or StreamState()

    def state(self) -> StreamState:
        """What was last committed."""
        return self._state

    def enter(self, partition: str) -> StreamState:
        """Turn to a partition's state; it is made where it is new."""
        version = self._state.version
        self._scope = _rows.scope_of(self._table, partition)
        with self.transaction():
            row = self._connection.execute(
                "SELECT fingerprint FROM tidemill_ingest_streams WHERE source = ? AND stream = ?", self._scope
            ).fetchone()
            if row is None or row[0] != self._table.fingerprint:
                self._reset(version)
            found = _read_state(self._connection, self._scope) or StreamState()
        self._state = replace(found, version=version)
        return self._state

    def commit(self, commit: Commit) -> Written:
        """Write everything in one transaction."""
        with self.transaction():
            written = self.write_rows(commit)
            self.write_state(commit, written)
        return written

    def write_rows(self, commit: Commit) -> Written:
        """Upsert the rows, inside the caller's transaction."""
        if not commit.rows:
            return Written(version=self._state.version)
        version = max(self._state.version + 1, time.time_ns() // 1_000_000)
        stamp = (datetime.now(UTC).isoformat(timespec="microseconds"), version)
        doc = len(self._table.columns) + 1
        top, before = self._top_rowid(), self._connection.total_changes
        self._connection.executemany(self._upsert, (self._values(row, doc, stamp) for row in commit.rows))
        changed = self._connection.total_changes - before
        inserted = self._top_rowid() - top
        return Written(
            inserted=inserted, updated=changed - inserted, version=version if changed else self._state.version
        )

    def write_state(self, commit: Commit, written: Written) -> None:
        """Write page states, cursor, version and load log, inside the caller's transaction."""
        execute, many = self._connection.execute, self._connection.executemany
        many(
            "INSERT OR REPLACE INTO tidemill_ingest_pages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*self._scope, p.key, p.etag, p.last_modified, p.next, p.records, p.cursor) for p in commit.pages],
        )
        many(
            "DELETE FROM tidemill_ingest_pages WHERE source = ? AND stream = ? AND key = ?",
            [(*self._scope, key) for key in commit.forget],
        )
        execute(
            "UPDATE tidemill_ingest_streams SET version = ?, cursor = coalesce(?, cursor)"
            " WHERE source = ? AND stream = ?",
            (written.version, commit.cursor, *self._scope),
        )
        # Readers ask for the version of the whole table, whichever partition changed it.
        whole = _rows.scope_of(self._table, "")
        execute(
            "UPDATE tidemill_ingest_streams SET version = ? WHERE source = ? AND stream = ?",
            (written.version, *whole),
        )
        many(
            "INSERT OR REPLACE INTO tidemill_ingest_rejects VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*whole, each.digest, each.field, each.reason, each.record, commit.load_id) for each in commit.rejects],
        )
        execute(
            "INSERT OR REPLACE INTO tidemill_ingest_loads VALUES (?, ?, ?, ?, ?, ?, ?)",
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

    def _values(self, row: Sequence[Any], doc: int, stamp: tuple[str, int]) -> list[Any]:
        values = [*row, *stamp]
        for index in self._adapted:
            values[index] = adapt(values[index])
        values[doc] = values[doc].decode()
        return values

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything in the block durable together."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # undone whatever it was, and raised again
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _top_rowid(self) -> int:
        """The greatest rowid: nothing deletes here, so new rows are exactly the growth."""
        return int(self._connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {_name(self._table)}").fetchone()[0])  # noqa: S608  # quoted

    def _prepare_table(self) -> bool:
        wanted = {name: kind.sqlite for name, kind in zip(self._table.columns, self._table.kinds, strict=True)}
        wanted |= {EXTRA: "TEXT", DOC: "TEXT", LOADED_AT: "TEXT", VERSION: "BIGINT"}
        name = _name(self._table)
        info = self._connection.execute(f"PRAGMA table_info({name})").fetchall()
        if not info:
            columns = ", ".join(f"{_rows.quote(column)} {type_}" for column, type_ in wanted.items())
            key = _rows.quoted(self._table.primary_key)
            self._connection.execute(f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({key}))")
        else:
            for column, type_ in _rows.missing_columns(self._table, wanted, {row[1]: row[2] for row in info}).items():
                self._connection.execute(f"ALTER TABLE {name} ADD COLUMN {_rows.quote(column)} {type_}")
            found = tuple(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5])
            if found != self._table.primary_key:
                raise SchemaConflict(self._table.table, f"its key is {found}, not {self._table.primary_key}")
        for column in self._table.indexes:
            index = _rows.quote(f"{self._table.table.replace('.', '_')}_{column}_idx")
            self._connection.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {name} ({_rows.quote(column)})")
        return not info

    def _forget_partitions(self) -> None:
        """Forget the states of all partitions: the table, or what is fetched into it, is new."""
        source, prefix = self._table.source, self._table.stream + PARTITION_MARK
        for table in ("tidemill_ingest_pages", "tidemill_ingest_streams"):
            sql = f"DELETE FROM {table} WHERE source = ? AND substr(stream, 1, ?) = ?"  # noqa: S608  # our own names
            self._connection.execute(sql, (source, len(prefix), prefix))

    def _reset(self, version: int) -> None:
        """Forget pages and cursor: the table, or what is fetched into it, is new."""
        self._connection.execute("DELETE FROM tidemill_ingest_pages WHERE source = ? AND stream = ?", self._scope)
        self._connection.execute(
            "INSERT OR REPLACE INTO tidemill_ingest_streams VALUES (?, ?, ?, ?, ?, NULL)",
            (*self._scope, self._table.table, self._table.fingerprint, version),
        )
        self._state = StreamState(version=version)


def _read_state(connection: sqlite3.Connection, scope: tuple[str, str]) -> StreamState | None:
    row = connection.execute(
        "SELECT version, cursor FROM tidemill_ingest_streams WHERE source = ? AND stream = ?", scope
    ).fetchone()
    sql = (
        "SELECT key, etag, last_modified, next, records, cursor FROM tidemill_ingest_pages"
        " WHERE source = ? AND stream = ?"
    )
    pages = [PageState(**dict(zip(_PAGE, each, strict=True))) for each in connection.execute(sql, scope)]
    return StreamState(cursor=row[1], pages={page.key: page for page in pages}, version=row[0]) if row else None


def _name(table: TableSpec) -> str:
    return _rows.quote(table.table.replace(".", "_"))


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error as error:
        raise StoreUnavailable(f"sqlite:///{path}", str(error)) from error
    return connection


@contextmanager
def _file_lock(path: Path, wait_s: float, url: str, table: str) -> Iterator[None]:
    """Hold an exclusive lock; the system drops it when the process dies."""
    import fcntl

    deadline = time.monotonic() + wait_s
    with path.open("a") as handle:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= deadline:
                raise StoreBusy(url, table)
            time.sleep(_POLL_S)
        yield
