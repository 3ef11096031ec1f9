"""Sort a listing of any length on disk, for stores that do not list in the order of UTF-8 keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime

from tidemill_core.storage import ObjectInfo

_COLUMNS = "key, size_bytes, etag, modified_at"


def sorted_on_disk(items: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Read a listing to its end, then yield it ascending by UTF-8 key; memory stays small."""
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as spill:
        spill.execute(
            "CREATE TABLE listed (key TEXT PRIMARY KEY, size_bytes INTEGER, etag TEXT, modified_at TEXT) WITHOUT ROWID"
        )
        spill.execute("BEGIN")
        spill.executemany(
            "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?)",
            ((each.key, each.size_bytes, each.etag, each.modified_at.isoformat()) for each in items),
        )
        spill.execute("COMMIT")
        for key, size, etag, modified in spill.execute(f"SELECT {_COLUMNS} FROM listed ORDER BY key"):  # noqa: S608
            yield ObjectInfo(key=key, size_bytes=size, etag=etag, modified_at=datetime.fromisoformat(modified))
