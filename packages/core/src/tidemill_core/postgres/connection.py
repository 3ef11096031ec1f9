"""Open connections and pools; turn the driver's errors into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidemill_core.errors import PostgresError
from tidemill_core.extras import needs_extra
from tidemill_core.postgres.errors import PostgresRefused, PostgresUnavailable

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

    from tidemill_core.postgres.identifiers import TableName

APPLICATION = "tidemill"
CONNECT_TIMEOUT_S = 10
_TRANSIENT_CLASSES = ("08", "40", "53", "57P", "58")
_TRANSIENT_STATES = ("55P03", "55006", "57014", "25P03", "25P04")
_HOPELESS = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "not permitted")


def connect(url: str, *, autocommit: bool = False, application: str = APPLICATION) -> psycopg.Connection[Any]:
    """Open one connection (``application_name`` is set, text is UTF-8, nothing is prepared).

    Raises:
        PostgresUnavailable: The server does not answer.
        PostgresRefused: It refuses this user, password or database.
    """
    with needs_extra():
        import psycopg

    with postgres_errors(redact(url)):
        return psycopg.connect(url, autocommit=autocommit, **_options(url, application))


def open_pool(
    url: str, *, min_size: int = 1, max_size: int = 4, application: str = APPLICATION
) -> ConnectionPool[psycopg.Connection[Any]]:
    """Open a pool of connections; close it when done (it is a context manager)."""
    with needs_extra():
        from psycopg_pool import ConnectionPool

    return ConnectionPool(url, min_size=min_size, max_size=max_size, kwargs=_options(url, application), open=True)


def _options(url: str, application: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(url)
    # prepared statements break when a table is swapped ("cached plan must not change result type") and in poolers
    options: dict[str, Any] = {"client_encoding": "UTF8", "prepare_threshold": None}
    if "application_name" not in given:
        options["application_name"] = application
    if "connect_timeout" not in given:
        options["connect_timeout"] = CONNECT_TIMEOUT_S
    return options


@contextmanager
def postgres_errors(where: str) -> Iterator[None]:
    """Map every driver error inside the block to `PostgresError` with its remedy.

    Args:
        where: What was being done or reached; starts the message. No secrets.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise translate(error, where) from error


def translate(error: psycopg.Error, where: str) -> PostgresError:
    """Choose our error for one of the driver's, by SQLSTATE class."""
    import psycopg

    state = error.sqlstate
    message = f"{where}: {_describe(error)}"
    if is_transient(state):
        return PostgresUnavailable(message, sqlstate=state)
    if state is None and isinstance(error, psycopg.OperationalError):
        if any(words in str(error) for words in _HOPELESS):
            return PostgresRefused(message)
        return PostgresUnavailable(message)
    return PostgresRefused(message, sqlstate=state)


def is_transient(sqlstate: str | None) -> bool:
    """Tell whether the server may accept the same work later."""
    return sqlstate is not None and (sqlstate.startswith(_TRANSIENT_CLASSES) or sqlstate in _TRANSIENT_STATES)


def _describe(error: psycopg.Error) -> str:
    diagnosis = error.diag
    parts = [diagnosis.message_primary or str(error).strip() or type(error).__name__]
    parts += [part for part in (diagnosis.message_detail, diagnosis.message_hint, diagnosis.context) if part]
    text = "; ".join(" ".join(part.split()) for part in parts)
    return f"{text} (SQLSTATE {error.sqlstate})" if error.sqlstate else text


def redact(url: str) -> str:
    """Write a connection URL without its password, and without parameters that may hold one."""
    host, port, database, user = _address(url)
    return f"postgresql://{user + '@' if user else ''}{host}:{port}/{database}"


def dataset_urn(url: str, table: TableName | str) -> str:
    """Name a table for lineage: ``postgres://host:port/database/schema.table``."""
    from tidemill_core.postgres.identifiers import TableName

    host, port, database, _ = _address(url)
    return f"postgres://{host}:{port}/{database}/{TableName.parse(table)}"


def _address(url: str) -> tuple[str, str, str, str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # the driver's message would quote the URL, password and all
        raise PostgresRefused("the PostgreSQL URL cannot be read; write postgresql://user@host:port/database") from None
    user = str(parts.get("user") or "")
    host = str(parts.get("host") or "localhost")
    host = "localhost" if host.startswith("/") else host  # a socket folder is this machine
    return host, str(parts.get("port") or 5432), str(parts.get("dbname") or user or "postgres"), user
