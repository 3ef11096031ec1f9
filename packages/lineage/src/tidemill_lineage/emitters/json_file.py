"""The graph as one JSON file: merged on write, replaced atomically, the same bytes for the same graph."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidemill_lineage.delivery.appending import replace_file
from tidemill_lineage.delivery.database import free_name
from tidemill_lineage.delivery.faults import say
from tidemill_lineage.document import dump_graph, parse_graph
from tidemill_lineage.emitters._base import Traits
from tidemill_lineage.errors import GraphDamaged, GraphMissing
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import Run


class JsonFileEmitter:
    """Merges runs into a graph document.

    Args:
        path: Such as ``lineage.json``; its folder is made.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters."""
        return "json"

    @property
    def identity(self) -> str:
        """The file."""
        return f"json {self.path.absolute()}"

    @property
    def traits(self) -> Traits:
        """A file of this machine; parts are merged."""
        return Traits(local=True)

    def emit(self, runs: Sequence[Run]) -> None:
        """Merge runs into the file."""
        self.update(runs)

    def update(self, runs: Sequence[Run]) -> Graph:
        """Merge runs into the file and return the graph; an unchanged graph leaves the file untouched.

        A damaged document is set aside, and told; the graph begins anew with these runs.

        Raises:
            GraphError: The file holds something else; it is left as it is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            before = self.path.read_bytes() if self.path.exists() else b""
            graph = merge(self._parsed(before), runs)
            after = dump_graph(graph)
            if after != before:
                replace_file(self.path, after)
        return graph

    def _parsed(self, data: bytes) -> Graph:
        if not data:
            return Graph()
        try:
            return parse_graph(data, name=str(self.path))
        except GraphDamaged as error:
            aside = free_name(self.path)
            self.path.rename(aside)
            say("lineage_file_damaged", file=str(self.path), set_aside=str(aside), error=str(error))
            return Graph()

    def replace(self, data: bytes) -> None:
        """Put another document in the file's place, whatever it held."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            replace_file(self.path, data)

    def close(self) -> None:
        """Nothing is held open."""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time read, merge and replace."""
        with self.path.with_name(f".{self.path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def load_graph(path: Path | str) -> Graph:
    """Read a graph document.

    Raises:
        GraphMissing: The file cannot be read.
        GraphError: It holds no graph.
    """
    file = Path(path)
    try:
        return parse_graph(file.read_bytes(), name=str(file))
    except OSError as error:
        reason = f"{error.strerror}; give --graph, or run a traced job first"
        raise GraphMissing(f"{file}: cannot be read: {reason}") from error


def open_json(url: str) -> JsonFileEmitter:
    """Open the emitter registered as ``json``; `url` is a path or a ``file://`` URL."""
    from urllib.parse import unquote, urlsplit

    return JsonFileEmitter(unquote(urlsplit(url).path) if url.startswith("file://") else url)
