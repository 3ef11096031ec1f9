"""A lock in PostgreSQL whose holder notices when its connection, and with it the lock, is gone."""

import hashlib
import uuid
from typing import Any

from tidemill_core.postgres.errors import PostgresRefused, PostgresUnavailable

_CONNECTION = {
    # A machine that is gone loses its lock after about a minute.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # A holder whose server is gone hears of it within 20 s.
    "tcp_user_timeout": 20_000,
    "connect_timeout": 10,
    "application_name": "tidemill lock",
}
_TABLE = """
SELECT pg_advisory_xact_lock(hashtextextended('tidemill:schema:tidemill', 0));
SELECT 1 FROM pg_namespace LIMIT 1;  -- refreshes the cache that CREATE asks
CREATE SCHEMA IF NOT EXISTS tidemill;
CREATE TABLE IF NOT EXISTS tidemill.turn (
    name text PRIMARY KEY, holder text NOT NULL, taken_at timestamptz NOT NULL DEFAULT now()
)
"""
_SIGN = """
INSERT INTO tidemill.turn (name, holder) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, taken_at = now()
"""
_IS_MINE = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid = ((%(key)s::bigint >> 32) & 4294967295)::oid AND objid = (%(key)s::bigint & 4294967295)::oid
)
"""


class PostgresLock:
    """A session-level advisory lock: the server frees it when the connection is gone.

    Whoever takes it signs in ``tidemill.turn``. A holder whose connection was cut takes the lock
    again, and knows by its own signature that nobody else had it meanwhile. The connection must reach
    the server itself or a pooler in session mode.

    Args:
        url: Of the database, as libpq or SQLAlchemy write it.
        name: What is locked; one of each name in a database.
        setting: The variable that the URL is from, for messages.
    """

    def __init__(self, url: str, name: str, *, setting: str = "TIDEMILL_DAGSTER_POSTGRES_URL") -> None:
        self._url = url.replace("+psycopg2", "", 1)
        self._setting, self._name, self._holder = setting, name, uuid.uuid4().hex
        digest = hashlib.blake2b(f"tidemill {name}".encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, "big", signed=True)
        self._connection: Any = None
        self._is_signed = False

    def try_take(self) -> bool:
        """Take it if it is free.

        Raises:
            PostgresUnavailable: The server does not answer.
        """
        is_taken = self._lock()
        if is_taken:
            self._sign()
        return is_taken

    def is_held(self) -> bool:
        """Tell whether nobody else can have had it since it was taken; a lost connection is made again.

        Raises:
            PostgresUnavailable: That cannot be known now: the server does not answer, or has not yet
                noticed that the old connection is gone.
        """
        try:
            if self._ask(_IS_MINE, {"key": self._key}):
                return True
        except PostgresUnavailable:
            pass  # the connection is lost, which says nothing about the lock: below it is taken again, or not
        if not self._is_signed:
            return False
        self.release()
        if not self._lock():
            if self._holder_now() != self._holder:
                return False
            raise PostgresUnavailable("the server has not yet let go of the connection that is gone")
        if self._holder_now() == self._holder:
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give it back by closing the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _lock(self) -> bool:
        return bool(self._ask("SELECT pg_try_advisory_lock(%s)", (self._key,)))

    def _holder_now(self) -> str | None:
        found: str | None = self._ask("SELECT holder FROM tidemill.turn WHERE name = %s", (self._name,))
        return found

    def _sign(self) -> None:
        """Write down who holds it. Who may not make the table does without: a lost connection then ends the run."""
        try:
            if self._ask("SELECT to_regclass('tidemill.turn')") is None:
                self._ask(_TABLE)
            self._ask(_SIGN, (self._name, self._holder))
            self._is_signed = True
        except PostgresRefused:
            self._is_signed = False

    def _ask(self, query: str, arguments: Any = None) -> Any:
        """Run one statement in its own transaction; return the first value of its answer, if it has one."""
        import psycopg2

        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._url, **_CONNECTION)
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(query, arguments)
                row = cursor.fetchone() if cursor.description else None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            self.release()
            reason = str(error).strip().splitlines()[0]
            raise PostgresUnavailable(f"the lock of {self._name} cannot be had ({self._setting}): {reason}") from error
        except psycopg2.Error as error:
            raise PostgresRefused(f"{self._setting}: {str(error).strip()}", sqlstate=error.pgcode) from error
        return None if row is None else row[0]
