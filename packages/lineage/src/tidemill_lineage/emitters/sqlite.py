"""The graph as a SQLite file: the store that the command and the page read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidemill_lineage.emitters._base import Traits
from tidemill_lineage.errors import EmitterDown
from tidemill_lineage.model import Run
from tidemill_lineage.stored_graph import StoredGraph


class SqliteEmitter:
    """Merges runs into a `StoredGraph`.

    Args:
        path: Such as ``lineage.sqlite``; its folder is made.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.graph = StoredGraph(self.path)

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters."""
        return "sqlite"

    @property
    def identity(self) -> str:
        """The file."""
        return f"sqlite {self.path.absolute()}"

    @property
    def traits(self) -> Traits:
        """A file of this machine; parts are merged."""
        return Traits(local=True)

    def emit(self, runs: Sequence[Run]) -> None:
        """Merge runs into the file, all or none of them.

        Raises:
            EmitterDown: The file cannot be written, as on a full disk.
        """
        try:
            self.graph.add(runs)
        except (sqlite3.Error, OSError) as error:
            raise EmitterDown(str(self.path), str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self.graph.close()


def open_sqlite(url: str) -> SqliteEmitter:
    """Open the emitter registered as ``sqlite``; `url` is a path or a ``file://`` URL."""
    return SqliteEmitter(unquote(urlsplit(url).path) if url.startswith("file://") else url)
