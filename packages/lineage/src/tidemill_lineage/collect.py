"""Bring the events of many processes together: one graph document, one page, and the servers that want it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_core.telemetry import get_logger

from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.emitters.json_file import JsonFileEmitter
from tidemill_lineage.errors import LineageError
from tidemill_lineage.events import EventLog
from tidemill_lineage.graph import Graph, renamed, with_stable_names
from tidemill_lineage.model import ASSET_SCHEME, DatasetUrn, Run, asset_urn


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was brought together.

    Attributes:
        graph: The whole graph.
        runs: The runs of the asked id, with assets named by where they are stored.
        pushed: Emitter -> runs it took.
        failed: Emitter -> why it took none.
    """

    graph: Graph
    runs: tuple[Run, ...]
    pushed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def collect(
    log: EventLog, path: Path, *, run_id: str | None = None, page: Path | None = None,
    emitters: Sequence[Emitter] = (), keep_runs: int = 100,
) -> Collected:  # fmt: skip
    """Merge all events into the graph document, then write the page and push the runs of one id.

    Idempotent: the graph depends on what was announced, not on how often this is called.

    Args:
        log: Where the events are.
        path: The graph document.
        run_id: Whose runs are pushed; default those of every event kept.
        page: Where the HTML page goes; None writes none.
        emitters: Servers to push to; one that fails is noted and the others go on.
        keep_runs: Event files to keep; older ones are in the graph document already.

    Raises:
        GraphError: The document at `path` is something else.
    """
    events = list(log.read())
    graph = JsonFileEmitter(path).update(events)
    if page is not None:
        from tidemill_lineage.html import write_page

        write_page(graph, page)
    runs = tuple(resolved((run for run in events if run_id in (None, run.id)), graph))
    pushed, failed = {}, {}
    for emitter in emitters:
        try:
            emitter.emit(runs)
            pushed[emitter.name] = len(runs)
        except LineageError as error:
            failed[emitter.name] = str(error)
            get_logger(__name__).warning("lineage_push_failed", emitter=emitter.name, error=str(error))
        finally:
            emitter.close()
    log.prune(keep_runs)
    return Collected(graph=graph, runs=runs, pushed=pushed, failed=failed)


def resolved(runs: Iterable[Run], graph: Graph) -> Iterable[Run]:
    """Name ``asset://key`` by the stored URN that the graph knows for it."""
    stored: dict[str, list[DatasetUrn]] = {}
    for urn, dataset in graph.datasets.items():
        if dataset.asset_key and not urn.startswith(ASSET_SCHEME):
            stored.setdefault(asset_urn(dataset.asset_key), []).append(urn)
    names = {alias: urns[0] for alias, urns in stored.items() if len(urns) == 1}
    for run in with_stable_names(list(runs)):
        yield renamed(run, names)
