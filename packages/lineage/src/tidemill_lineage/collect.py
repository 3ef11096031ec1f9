"""Bring the events of many processes together: one graph document, one page, and the servers that want it."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tidemill_lineage.delivery.appending import replace_file
from tidemill_lineage.delivery.database import free_name
from tidemill_lineage.delivery.dispatch import Dispatch
from tidemill_lineage.delivery.faults import Faults, say
from tidemill_lineage.document import dump_run, graph_value, parse_graph
from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.errors import GraphError
from tidemill_lineage.events import EventLog
from tidemill_lineage.graph import Graph, renamed, with_stable_names
from tidemill_lineage.model import DatasetUrn, Run
from tidemill_lineage.stored_graph import StoredGraph

_EXPORTED = "exported"
"""Note of the store: the revision that was exported last, and its figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was brought together.

    Attributes:
        store: The file of the whole graph.
        facts: How many datasets, columns, jobs, edges, direct and indirect edges the graph has.
        changed: Whether the graph differs from what was exported before, in more than times.
        runs: The runs of the asked id, with assets named by where they are stored.
        pushed: Emitter -> runs it took; where two are of one kind, by what tells them apart.
        failed: Emitter -> why it took none.
    """

    store: Path
    facts: dict[str, int]
    changed: bool
    runs: tuple[Run, ...]
    pushed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def graph(self) -> Graph:
        """Read the whole graph."""
        store = StoredGraph(self.store)
        try:
            return store.graph()
        finally:
            store.close()


def collect(
    log: EventLog, path: Path, *, run_id: str | None = None, page: Path | None = None,
    emitters: Sequence[Emitter] = (), keep_runs: int = 100, push_s: float = 30.0,
) -> Collected:  # fmt: skip
    """Merge all events into the stored graph, then export it, and push the runs of one id.

    Idempotent: the graph depends on what was announced, not on how often this is called.

    Args:
        log: Where the events are.
        path: The graph document that is exported; the store lies beside it, as ``.sqlite``.
        run_id: Whose runs are pushed; default those of every event kept.
        page: Where the HTML page goes; None writes none.
        emitters: Servers to push to. What one does not take now waits in the outbox beside the
            events, and goes out with the next collection.
        keep_runs: Event files to keep; older ones are in the graph document already.
        push_s: Wait at most this long, in seconds, for the servers.
    """
    events = list(log.read())
    store = open_store(path, log)
    try:
        store.add(events)
        facts, changed = _exported(store, path, page)
        names = store.asset_names()
    finally:
        store.close()
    asked = [run for run in events if run_id in (None, run.id)]
    runs = tuple(resolved(asked, names))
    pushed, failed = _push(runs, [dump_run(run) for run in asked], emitters, log.folder.parent, push_s)
    log.prune(keep_runs)
    return Collected(store=store_path(path), facts=facts, changed=changed, runs=runs, pushed=pushed, failed=failed)


def _exported(store: StoredGraph, path: Path, page: Path | None) -> tuple[dict[str, int], bool]:
    """Write the exports that are missing or older than the graph; whether it had changed since the last.

    The whole graph is read only then: what changed is counted by the store, whoever writes to it.
    """
    told = orjson.loads(store.note(_EXPORTED) or b"{}")
    revision = store.revision()
    is_changed = told.get("revision") != revision
    if not is_changed and path.exists() and (page is None or page.exists()):
        return told["facts"], False
    graph = store.graph()
    if is_changed or not path.exists():
        write_document(graph, path)
    if page is not None:
        from tidemill_lineage.html import write_page

        write_page(graph, page)
    facts, digest = _facts(graph), _digest(graph)
    # the revision was read before the graph: what came between is exported the next time
    store.keep_note(_EXPORTED, orjson.dumps({"revision": revision, "digest": digest, "facts": facts}).decode())
    return facts, is_changed and told.get("digest") != digest


def _digest(graph: Graph) -> str:
    """Tell graphs apart that differ in more than times.

    The store counts what its subjects say. Two may say one thing in turn, such as an asset and the
    table that keeps it, whose rows a run without work writes no more: then nothing else is shown.
    """
    value = graph_value(graph)
    for edge in value["edges"]:
        edge.pop("run", None)
        edge.pop("at", None)
    return hashlib.sha256(orjson.dumps(value)).hexdigest()


def _facts(graph: Graph) -> dict[str, int]:
    direct = sum(edge.kind == "DIRECT" for edge in graph.edges)
    return {
        "datasets": len(graph.datasets),
        "columns": sum(len(each.columns) for each in graph.datasets.values()),
        "jobs": len(graph.jobs),
        "edges": len(graph.edges),
        "direct_edges": direct,
        "indirect_edges": len(graph.edges) - direct,
    }


def _push(
    runs: Sequence[Run], told: Sequence[bytes], emitters: Sequence[Emitter], folder: Path, push_s: float
) -> tuple[dict[str, int], dict[str, str]]:
    """Deliver runs, and what emitters missed before, through the outbox; each run as told goes out once."""
    if not emitters:
        return {}, {}
    deadline = time.monotonic() + push_s
    faults = Faults()
    dispatch = Dispatch(emitters, folder / "outbox.sqlite", faults)
    try:
        dispatch.put(runs, keys=[hashlib.sha256(each).digest() for each in told])
        dispatch.end()
        dispatch.wait(deadline, attempts=1)
    except (OSError, sqlite3.Error) as error:
        faults.count("outbox", error)
    labels = _labels(emitters)
    waiting = {label: (each, dispatch.waits_for(each)) for label, each in labels.items()}
    dispatch.stop(deadline)
    failed = {}
    for label, (emitter, count) in waiting.items():
        if count or "outbox" in faults.last:
            reason = faults.last.get(emitter.identity or emitter.name) or faults.last.get("outbox") or "no answer"
            failed[label] = f"{count} records wait in the outbox: {reason}"
            say("lineage_push_failed", emitter=label, error=failed[label])
    return {label: len(runs) for label in labels if label not in failed}, failed


def _labels(emitters: Sequence[Emitter]) -> dict[str, Emitter]:
    """Name emitters: by kind, and where two are of one kind, by what tells them apart."""
    kinds = Counter(each.name for each in emitters)
    return {
        each.name if kinds[each.name] == 1 else each.identity or f"{each.name} {number}": each
        for number, each in enumerate(emitters)
    }


def store_path(path: Path) -> Path:
    """Name the store of a graph document: beside it."""
    return path.with_suffix(".sqlite")


def open_store(path: Path, log: EventLog) -> StoredGraph:
    """Open the store of a graph document.

    One that was damaged is rebuilt from the kept events; one that is new begins with the document
    that a version before it may have left.
    """

    def rebuilt(empty: StoredGraph) -> None:
        runs = list(log.read())
        empty.add(runs)
        say("lineage_rebuilt", file=str(store_path(path)), events=len(runs))

    store = StoredGraph(store_path(path), on_damage=rebuilt)
    if path.exists() and store.is_empty():
        try:
            store.add_state(parse_graph(path.read_bytes(), name=str(path)).state)
        except GraphError as error:
            aside = free_name(path)
            path.rename(aside)
            say("lineage_file_damaged", file=str(path), set_aside=str(aside), error=str(error))
    return store


def write_document(graph: Graph, path: Path) -> None:
    """Export a graph as a JSON document, replacing an older one at once."""
    replace_file(path, orjson.dumps(graph_value(graph), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def resolved(runs: Iterable[Run], names: Mapping[DatasetUrn, DatasetUrn]) -> Iterable[Run]:
    """Name ``asset://key`` by the stored URN that the graph knows for it."""
    for run in with_stable_names(list(runs)):
        yield renamed(run, names)
