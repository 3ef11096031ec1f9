"""Let Dagster's SQLite storages keep their connections while a run goes on.

Stock Dagster makes an SQLAlchemy engine and opens the database anew for every read and
write, which is most of what a small step costs; closing the last connection also makes
SQLite write its whole log back each time. Here one engine per database is kept, for
one instance object and for as long as the block lasts. Other storages are left alone.

Kept connections use ``synchronous=NORMAL``: with the write-ahead log that Dagster turns
on, a killed process loses nothing; a power cut may lose the last events, never the database.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import sqlalchemy as sa

BUSY_TIMEOUT_S = 60


@contextmanager
def kept_connections(instance: dg.DagsterInstance) -> Iterator[None]:
    """Keep the SQLite connections of `instance` inside the block; nested blocks change nothing."""
    engines: dict[str, sa.Engine] = {}
    changed: list[tuple[Any, str]] = []
    for storage in (instance.event_log_storage, instance.run_storage):
        name, make = _OVERRIDES.get(type(storage).__qualname__, ("", None))
        if make is not None and name not in vars(storage):
            setattr(storage, name, make(storage, engines))
            changed.append((storage, name))
    try:
        yield
    finally:
        for storage, name in changed:
            delattr(storage, name)
        for engine in engines.values():
            engine.dispose()


def _event_log_connect(storage: Any, engines: "dict[str, sa.Engine]") -> Any:
    @contextmanager
    def connect(shard: str) -> "Iterator[sa.Connection]":
        with storage._db_lock:  # noqa: SLF001 - Dagster's own lock, which its method takes too
            engine = _engine(storage.conn_string_for_shard(shard), engines)
            if shard not in storage._initialized_dbs:  # noqa: SLF001 - as its method does
                storage._initdb(engine)  # noqa: SLF001 - as above
                storage._initialized_dbs.add(shard)  # noqa: SLF001 - as above
            with engine.connect() as connection, connection.begin():
                yield connection

    return connect


def _run_connect(storage: Any, engines: "dict[str, sa.Engine]") -> Any:
    @contextmanager
    def connect() -> "Iterator[sa.Connection]":
        with _engine(storage._conn_string, engines).connect() as connection, connection.begin():  # noqa: SLF001
            yield connection

    return connect


def _engine(url: str, engines: "dict[str, sa.Engine]") -> "sa.Engine":
    import sqlalchemy as sa
    from sqlalchemy.pool import QueuePool

    found = engines.get(url)
    if found is None:
        arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        found = sa.create_engine(url, poolclass=QueuePool, connect_args=arguments)
        sa.event.listen(found, "connect", _on_connect)
        engines[url] = found
    return found


def _on_connect(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


_OVERRIDES = {
    "SqliteEventLogStorage": ("_connect", _event_log_connect),
    "SqliteRunStorage": ("connect", _run_connect),
}
"""By class name, so that nothing of SQLite is imported where another storage is used."""
