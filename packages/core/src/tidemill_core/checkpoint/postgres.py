"""Checkpoints in PostgreSQL: shared by workers, and saved in a caller's own transaction if wanted."""
# ruff: noqa: S608 - only the constant table name is formatted into statements

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from threading import RLock
from typing import TYPE_CHECKING, Any

from tidemill_core.checkpoint._base import Checkpoint
from tidemill_core.checkpoint._values import check_name, decoded, encoded
from tidemill_core.checkpoint.errors import CheckpointUnavailable
from tidemill_core.errors import CheckpointConflict, CheckpointError

if TYPE_CHECKING:
    import psycopg

_TABLE = "tidemill.checkpoint"
_SCHEMA = f"""
SELECT pg_advisory_xact_lock(hashtext('{_TABLE}'));
SELECT pg_advisory_xact_lock(hashtextextended('tidemill:schema:tidemill', 0));
SELECT 1 FROM pg_namespace LIMIT 1;  -- refreshes the cache that CREATE asks
CREATE SCHEMA IF NOT EXISTS tidemill;
CREATE TABLE IF NOT EXISTS {_TABLE} (
    scope text NOT NULL, key text COLLATE "C" NOT NULL, value text NOT NULL,
    version bigint NOT NULL, saved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, key)
)
"""
_RETURNING = "RETURNING version, saved_at"
_UPSERT = f"""
INSERT INTO {_TABLE} AS saved (scope, key, value, version) VALUES (%(scope)s, %(key)s, %(value)s, 1)
ON CONFLICT (scope, key) DO UPDATE
SET value = excluded.value, version = saved.version + 1, saved_at = excluded.saved_at {_RETURNING}
"""
_INSERT = f"""
INSERT INTO {_TABLE} (scope, key, value, version) VALUES (%(scope)s, %(key)s, %(value)s, 1)
ON CONFLICT DO NOTHING {_RETURNING}
"""
_UPDATE = f"""
UPDATE {_TABLE} SET value = %(value)s, version = version + 1, saved_at = clock_timestamp()
WHERE scope = %(scope)s AND key = %(key)s AND version = %(expected)s {_RETURNING}
"""


def open_postgres(url: str) -> PostgresCheckpoints:
    """Open ``postgresql://user:password@host:port/database``; schema ``tidemill`` and table are made.

    Raises:
        CheckpointUnavailable: The server is not reachable.
    """
    checkpoints = PostgresCheckpoints(url)
    checkpoints.create_table()
    return checkpoints


class PostgresCheckpoints:
    """A checkpoint store in a table; see `CheckpointStore` for the contract.

    It holds one connection, opened when needed and again after it was lost. `bind`
    gives a twin that works inside a caller's transaction instead.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = RLock()
        self._own: psycopg.Connection[Any] | None = None

    def create_table(self) -> None:
        """Make schema and table where they are missing; takes a lock, so that many may start at once."""
        with self._asking() as connection, connection.transaction():
            connection.execute(_SCHEMA)

    def bind(self, connection: psycopg.Connection[Any]) -> BoundCheckpoints:
        """Save through `connection`, in its open transaction: the caller's commit makes it durable."""
        return BoundCheckpoints(connection)

    def load(self, scope: str, key: str) -> Checkpoint | None:
        """Read one value, or None."""
        with self._asking() as connection:
            return BoundCheckpoints(connection).load(scope, key)

    def save(
        self, scope: str, key: str, value: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Checkpoint:
        """Write one value; on return it is committed."""
        with self._asking() as connection:
            return BoundCheckpoints(connection).save(scope, key, value, expected_version=expected_version)

    def delete(self, scope: str, key: str) -> None:
        """Forget one value."""
        with self._asking() as connection:
            BoundCheckpoints(connection).delete(scope, key)

    def scan(self, scope: str) -> Iterator[Checkpoint]:
        """Yield every value of a scope at one instant, ascending by key."""
        with self._asking() as connection:
            return BoundCheckpoints(connection).scan(scope)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._own is not None:
                self._own.close()
                self._own = None

    @contextmanager
    def _asking(self) -> Iterator[psycopg.Connection[Any]]:
        import psycopg

        with self._lock:
            try:
                if self._own is None or self._own.closed:
                    self._own = psycopg.connect(self._url, autocommit=True)
                yield self._own
            except psycopg.OperationalError as error:
                raise CheckpointUnavailable(_where(self._url), str(error)) from error
            except psycopg.Error as error:
                raise CheckpointError(f"checkpoints in {_where(self._url)} failed: {error}") from error


class BoundCheckpoints:
    """Checkpoints on a connection of the caller's, who commits; psycopg's errors pass through."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def load(self, scope: str, key: str) -> Checkpoint | None:
        """Read one value, or None."""
        check_name(scope, key)
        row = self._connection.execute(
            f"SELECT value, version, saved_at FROM {_TABLE} WHERE scope = %s AND key = %s", (scope, key)
        ).fetchone()
        return _checkpoint(scope, key, *row) if row else None

    def save(
        self, scope: str, key: str, value: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Checkpoint:
        """Write one value; durable once the caller commits."""
        check_name(scope, key)
        text = encoded(value)
        statement = _UPSERT if expected_version is None else _UPDATE if expected_version else _INSERT
        given = {"scope": scope, "key": key, "value": text, "expected": expected_version}
        row = self._connection.execute(statement, given).fetchone()
        if row is None:
            found = self.load(scope, key)
            raise CheckpointConflict(scope, key, expected_version or 0, found.version if found else 0)
        return _checkpoint(scope, key, text, *row)

    def delete(self, scope: str, key: str) -> None:
        """Forget one value."""
        check_name(scope, key)
        self._connection.execute(f"DELETE FROM {_TABLE} WHERE scope = %s AND key = %s", (scope, key))

    def scan(self, scope: str) -> Iterator[Checkpoint]:
        """Yield every value of a scope, ascending by key."""
        rows = self._connection.execute(
            f"SELECT key, value, version, saved_at FROM {_TABLE} WHERE scope = %s ORDER BY key", (scope,)
        ).fetchall()
        return iter([_checkpoint(scope, *row) for row in rows])

    def close(self) -> None:
        """The connection is the caller's; nothing is closed."""


def _checkpoint(scope: str, key: str, value: str, version: int, saved_at: datetime) -> Checkpoint:
    return Checkpoint(scope=scope, key=key, value=decoded(value), version=version, saved_at=saved_at)


def _where(url: str) -> str:
    """Name host and database of a URL, without user, password and parameters."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    return f"postgresql://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
