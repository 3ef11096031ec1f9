"""Collecting costs what changed: exports are written when the graph differs, whoever changed it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_lineage import EventLog, Graph, SqliteEmitter, StoredGraph, declare, merge
from tidemill_lineage.collect import collect
from tidemill_lineage.document import parse_graph
from tidemill_lineage.model import Run

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
