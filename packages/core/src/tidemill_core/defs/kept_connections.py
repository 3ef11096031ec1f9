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
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite import SqliteRunStorage
from sqlalchemy.pool import QueuePool

BUSY_TIMEOUT_S = 60
_OVERRIDES = ((SqliteEventLogStorage, "_connect"), (SqliteRunStorage, "connect"))


@contextmanager
def kept_connections(instance: dg.DagsterInstance) -> Iterator[None]:
    """Keep the SQLite connections of `instance` inside the block; nested blocks change nothing."""
    storages: list[Any] = [instance.event_log_storage, instance.run_storage]
    engines: dict[str, sa.Engine] = {}
    changed = []
    for storage in storages:
        for kind, name in _OVERRIDES:
            if type(storage) is kind and name not in vars(storage):
                make = _event_log_connect if kind is SqliteEventLogStorage else _run_connect
                setattr(storage, name, make(storage, engines))
                changed.append((storage, name))
    try:
        yield
    finally:
        for storage, name in changed:
            delattr(storage, name)
        for engine in engines.values():
            engine.dispose()


def _event_log_connect(storage: Any, engines: dict[str, sa.Engine]) -> Any:
    @contextmanager
    def connect(shard: str) -> Iterator[sa.Connection]:
        with storage._db_lock:  # noqa: SLF001 - Dagster's own lock, which its method takes too
            engine = _engine(storage.conn_string_for_shard(shard), engines)
            if shard not in storage._initialized_dbs:  # noqa: SLF001 - as its method does
                storage._initdb(engine)  # noqa: SLF001 - as above
                storage._initialized_dbs.add(shard)  # noqa: SLF001 - as above
            with engine.connect() as connection, connection.begin():
                yield connection

    return connect


def _run_connect(storage: Any, engines: dict[str, sa.Engine]) -> Any:
    @contextmanager
    def connect() -> Iterator[sa.Connection]:
        with _engine(storage._conn_string, engines).connect() as connection, connection.begin():  # noqa: SLF001
            yield connection

    return connect


def _engine(url: str, engines: dict[str, sa.Engine]) -> sa.Engine:
    found = engines.get(url)
    if found is None:
        arguments = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        found = sa.create_engine(url, poolclass=QueuePool, connect_args=arguments)
        sa.event.listen(found, "connect", _on_connect)
        engines[url] = found
    return found


def _on_connect(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
