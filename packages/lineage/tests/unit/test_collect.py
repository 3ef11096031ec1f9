"""Collecting costs what changed: exports are written when the graph differs, whoever changed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_lineage import EventLog, Graph, SqliteEmitter, StoredGraph, declare, merge
from tidemill_lineage.collect import collect
from tidemill_lineage.document import parse_graph
from tidemill_lineage.model import Dataset, Run, asset_urn

from .test_merging import runs as any_run


def a_run(run: str, at: float, source: str = "i://a", job: str = "j") -> Run:
    return declare(job=job, output="o://t", columns={"a": [f"{source}#a"]}, run_id=run, at=at)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


@given(st.lists(any_run, max_size=5))
def test_a_graph_that_differs_has_another_revision(told: list[Run]) -> None:
    store = StoredGraph(None)
    before, revision = store.graph(), store.revision()
    for run in told:
        differs = store.add([run])
        after = store.graph()

        assert differs or after == before
        assert differs == (store.revision() != revision)
        assert not store.add([run])  # the same again is no change
        before, revision = after, store.revision()
    store.close()


def test_the_same_edges_of_a_newer_run_are_no_change_and_write_nothing(log: EventLog, tmp_path: Path) -> None:
    path, page = tmp_path / "lineage.json", tmp_path / "lineage.html"
    log.append(a_run("1", 1))
    assert collect(log, path, page=page).changed
    written = path.stat().st_mtime_ns, page.stat().st_mtime_ns
    log.append(a_run("2", 2))

    again = collect(log, path, page=page)

    assert not again.changed
    assert (path.stat().st_mtime_ns, page.stat().st_mtime_ns) == written
    assert again.graph().edges[0].run == "2"


def _shown(path: Path) -> object:
    value = orjson.loads(path.read_bytes())
    for edge in value["edges"]:
        edge.pop("run", None)
        edge.pop("at", None)
    return value


@given(told=st.lists(any_run, min_size=1, max_size=6))
def test_a_collection_tells_of_a_change_when_the_document_shows_another_graph(
    told: list[Run], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("home")
    log, path = EventLog(folder / "events"), folder / "lineage.json"
    collect(log, path)
    before = _shown(path)
    for run in told:
        log.append(run)

        found = collect(log, path)

        assert found.changed == (_shown(path) != before)
        before = _shown(path)


def test_a_step_that_traced_its_plan_and_wrote_nothing_is_no_change(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    asset, table = asset_urn("mart"), "postgres://db/mart"
    told = a_run("1", 1)
    edges = tuple(replace(each, target=asset) for each in told.edges)
    kept = Dataset(urn=table, asset_key="mart")
    log.append(replace(told, edges=edges, writes=(Dataset(urn=asset), kept)))
    assert collect(log, path).changed

    # traced again, and found unchanged: the asset is spoken of, the table that stores it is not
    again = [replace(each, run="2", at=2.0) for each in edges]
    log.append(replace(told, id="2", ended_at=2.0, edges=tuple(again), writes=(Dataset(urn=asset),)))

    assert not collect(log, path).changed
    log.append(a_run("3", 3, "i://b"))  # the negative control
    assert collect(log, path).changed


def test_the_whole_graph_is_read_only_when_it_changed(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lineage.json"
    log.append(a_run("1", 1))
    first = collect(log, path)
    log.append(a_run("2", 2))
    read: list[StoredGraph] = []
    whole = StoredGraph.graph
    monkeypatch.setattr(StoredGraph, "graph", lambda store: read.append(store) or whole(store))

    again = collect(log, path)
    assert (read, again.facts) == ([], first.facts)

    log.append(a_run("3", 3, "i://b"))  # the negative control
    assert collect(log, path).changed
    assert len(read) == 1


def test_what_an_emitter_wrote_into_the_store_is_exported_at_the_next_collection(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    log.append(a_run("1", 1))
    collect(log, path)
    emitter = SqliteEmitter(tmp_path / "lineage.sqlite")
    emitter.emit([a_run("2", 2, "i://b", job="k")])
    emitter.close()

    found = collect(log, path)

    assert found.changed
    assert parse_graph(path.read_bytes()).upstream("o://t") == ["i://a", "i://b"]
    assert found.facts == {
        "datasets": 3, "columns": 1, "jobs": 2, "edges": 2, "direct_edges": 2, "indirect_edges": 0
    }  # fmt: skip


def test_an_export_that_is_gone_is_written_again(log: EventLog, tmp_path: Path) -> None:
    path, page = tmp_path / "lineage.json", tmp_path / "lineage.html"
    log.append(a_run("1", 1))
    collect(log, path, page=page)
    for each in (path, page):
        each.unlink()

        again = collect(log, path, page=page)

        assert each.exists()
        assert not again.changed


def test_a_graph_begun_anew_is_a_change(tmp_path: Path) -> None:
    store = StoredGraph(tmp_path / "lineage.sqlite")
    store.add([a_run("1", 1)])
    revision = store.revision()

    store.replace([])

    assert store.revision() != revision
    assert store.graph() == merge(Graph(), [])
    store.close()
