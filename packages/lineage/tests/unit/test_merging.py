"""One merge rule: the graph depends on what was told, not on its order, its batching or where it is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill_lineage.document import dump_graph, parse_graph
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import Column, Dataset, Edge, Job, Run
from tidemill_lineage.stored_graph import StoredGraph

URNS = ["t://a", "t://b", "s3://lake/x", "s3://lake/x/part", "s3://lake", "asset://raw/w", "pg://db/w", "pg://db/w2"]
KEYS = {"pg://db/w": "raw/w", "pg://db/w2": "raw/w"}


def an_edge(source: str, target: str, columns: tuple[str, str], subtype: str = "IDENTITY") -> Edge:
    kind = "DIRECT" if subtype == "IDENTITY" else "INDIRECT"
    return Edge(source=source, source_column=columns[0], target=target, target_column=columns[1], kind=kind,  # type: ignore[arg-type]
                subtype=subtype, method="sql")  # fmt: skip


def a_run(run: str, at: float, *edges: Edge, job: str = "j", **more: object) -> Run:
    reads = tuple(Dataset(urn=urn) for urn in sorted({edge.source for edge in edges}))
    writes = tuple(Dataset(urn=urn) for urn in sorted({edge.target for edge in edges}))
    given = {"reads": reads, "writes": writes, "edges": edges, "started_at": at, "ended_at": at} | more
    return Run(id=run, job=job, **given)  # type: ignore[arg-type]


datasets = st.builds(
    lambda urn, names, known: Dataset(
        urn=urn, columns=tuple(Column(name=n, type=t) for n, t in names.items()), asset_key=KEYS.get(urn, "") * known
    ),
    st.sampled_from(URNS), st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "int"]), max_size=2), st.booleans(),
)  # fmt: skip
edges = st.builds(
    an_edge, st.sampled_from(URNS), st.sampled_from(URNS), st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["", "a", "b"])),
    st.sampled_from(["IDENTITY", "FILTER"]),
)  # fmt: skip
runs = st.builds(
    Run,
    id=st.sampled_from(["R1", "R2", "R3"]),
    job=st.sampled_from(["j", "k"]),
    state=st.sampled_from(["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]),
    ended_at=st.integers(1, 6).map(float),
    reads=st.lists(datasets, max_size=2).map(tuple),
    writes=st.lists(datasets, max_size=2).map(tuple),
    edges=st.lists(edges, max_size=3).map(tuple),
)


@settings(max_examples=60)
@given(st.lists(runs, max_size=8), st.randoms(use_true_random=False))
def test_order_and_batching_do_not_matter(told: list[Run], shuffle: random.Random) -> None:
    expected = merge(Graph(), told)
    shuffled = shuffle.sample(told, len(told)) + told[:2]

    graph, store = Graph(), StoredGraph(None)
    while shuffled:
        size = shuffle.randint(1, 3)
        batch, shuffled = shuffled[:size], shuffled[size:]
        graph = merge(parse_graph(dump_graph(graph)), batch)
        store.add(batch)

    assert expected == graph
    assert expected.edges == tuple(sorted(expected.edges))
    assert dump_graph(expected) == dump_graph(graph)
    assert expected == store.graph()
    store.close()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_of_an_edge_said_through_an_asset_and_through_its_table_the_last_is_shown(order: slice) -> None:
    source, table = Dataset(urn="t://a"), Dataset(urn="pg://db/w", asset_key="raw/w")
    told = [
        Run(id="R1", job="j", ended_at=1.0, reads=(source,), writes=(Dataset(urn="asset://raw/w"),)),
        Run(id="R1", job="j", ended_at=2.0, writes=(table,)),
    ]

    graph = merge(Graph(), told[order])

    assert [("t://a", "pg://db/w", 2.0)] == [(edge.source, edge.target, edge.at) for edge in graph.edges]


@settings(max_examples=60)
@given(st.lists(runs, max_size=8))
def test_the_stored_graph_answers_as_the_graph_in_memory(told: list[Run]) -> None:
    graph, store = merge(Graph(), told), StoredGraph(None)
    for run in told:
        store.add([run])

    for urn, dataset in graph.datasets.items():
        assert dataset == store.dataset(urn)
        for column in {"", *(each.name for each in dataset.columns), *graph.edge_columns(urn)}:
            name = f"{urn}#{column}" if column else urn
            assert graph.upstream(name) == store.upstream(name)
            assert graph.downstream(name) == store.downstream(name)
            assert graph.impact(name) == store.impact(name)
            for found in store.upstream(name):
                assert store.path(found, name), (found, name)
    store.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_a_run_that_ends_last_has_all_its_parts_though_another_came_between(order: tuple[int, ...]) -> None:
    told = [
        a_run("R", 1, an_edge("t://s", "t://o", ("x", "x"))),
        a_run("Q", 3, an_edge("t://s", "t://o", ("z", "z"))),
        a_run("R", 5, an_edge("t://s", "t://o", ("y", "y"))),
    ]

    graph = Graph()
    for number in order:
        graph = merge(graph, [told[number]])

    assert [edge.target_column for edge in graph.edges] == ["x", "y"]
    assert {(edge.run, edge.at, edge.job) for edge in graph.edges} == {("R", 5, "j")}


def test_a_job_that_stops_reading_a_source_drops_it() -> None:
    graph = merge(
        Graph(), [a_run("1", 1, an_edge("t://a", "t://o", ("a", "a")), an_edge("t://b", "t://o", ("b", "b")))]
    )

    graph = merge(graph, [a_run("2", 2, an_edge("t://a", "t://o", ("a", "a")))])

    assert graph.upstream("t://o") == ["t://a"]
    assert graph.jobs["j"] == Job(name="j", reads=("t://a",), writes=("t://o",))


@pytest.mark.parametrize(
    "later", [{"state": "FAIL"}, {"edges": (), "reads": ()}, {"edges": (), "reads": (), "writes": ()}]
)
def test_a_failed_or_idle_run_drops_nothing(later: dict[str, object]) -> None:
    first = a_run("1", 1, an_edge("t://a", "t://o", ("a", "a")))
    second = replace(a_run("2", 2, an_edge("t://b", "t://o", ("b", "b"))), **later)  # type: ignore[arg-type]

    assert merge(Graph(), [first]).edges == merge(Graph(), [first, second]).edges


def test_a_late_older_run_changes_nothing() -> None:
    newer = a_run("2", 2, an_edge("t://b", "t://o", ("b", "b")))
    older = a_run("1", 1, an_edge("t://a", "t://o", ("a", "a")))

    assert merge(merge(Graph(), [newer]), [older]).upstream("t://o") == ["t://b"]


def test_a_document_of_the_first_version_is_read_and_merged_into() -> None:
    first = b"""{"format": "tidemill-lineage/1",
        "datasets": [{"urn": "t://a", "columns": [["a", "int"]]}, {"urn": "t://o", "columns": [["a", ""]]}],
        "jobs": [{"name": "j", "reads": ["t://a"], "writes": ["t://o"]}],
        "edges": [{"target": "t://o", "target_column": "a", "source": "t://a", "source_column": "a", "kind": "DIRECT",
                   "subtype": "IDENTITY", "method": "sql", "job": "j"}]}"""

    graph = merge(parse_graph(first), [a_run("1", 1, an_edge("t://b", "t://p", ("b", "b")), job="k")])

    assert graph.upstream("t://o#a") == ["t://a#a"]
    assert graph.upstream("t://p#b") == ["t://b#b"]


def test_a_stored_graph_survives_its_process_and_forgets_what_is_too_old(tmp_path: Path) -> None:
    store = StoredGraph(tmp_path / "graph.sqlite")
    for number in range(50):
        store.add([a_run(str(number), number, an_edge("t://a", "t://o", (f"c{number}", "a")))])
    store.close()

    later = StoredGraph(tmp_path / "graph.sqlite")

    assert later.upstream("t://o#a") == ["t://a#c49"]
    assert later._rows(
        "SELECT count(*) FROM entries e JOIN subjects s ON s.id = e.subject WHERE kind = 'edges'", ()
    ) == [(16,)]
    assert later._rows("SELECT count(*) FROM bodies", ())[0][0] < 50
    later.close()


def test_a_damaged_store_is_set_aside_and_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "graph.sqlite"
    told = a_run("1", 1, an_edge("t://a", "t://o", ("a", "a")))
    StoredGraph(file).add([told])
    file.write_bytes(b"not a database at all " * 100)
    for each in tmp_path.glob("graph.sqlite-*"):
        each.unlink()

    store = StoredGraph(file, on_damage=lambda empty: empty.add([told]) and None)

    assert store.upstream("t://o") == ["t://a"]
    assert "graph.sqlite" in capsys.readouterr().err
    assert len(list(tmp_path.glob("graph.sqlite.damaged-*"))) == 1


def test_a_hash_sign_may_be_part_of_a_datasets_name() -> None:
    graph = merge(Graph(), [a_run("1", 1, an_edge("file:///odd#name.csv", "t://o", ("a", "a")))])

    assert graph.upstream("t://o") == ["file:///odd#name.csv"]
    assert graph.downstream("file:///odd#name.csv#a") == ["t://o#a"]


def told_columns(told: list[tuple[str, str, float, dict[str, str]]]) -> list[Run]:
    """Runs of (run, reads or writes, time, columns) of one table."""
    return [
        Run(id=run, job=how, ended_at=at, **{how: (  # type: ignore[arg-type]
            Dataset(urn="pg://db/t", columns=tuple(Column(name=n, type=t) for n, t in columns.items())),)})
        for run, how, at, columns in told
    ]  # fmt: skip


READER_LAST = [("1", "writes", 1.0, {"a": "int8", "b": "text"}), ("1", "reads", 2.0, {"a": "Int64", "b": "String"})]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(READER_LAST, {"a": "int8", "b": "text"}, id="the same run reads what it wrote"),
        pytest.param([*READER_LAST, ("2", "reads", 3.0, {"b": "String"})], {"a": "int8", "b": "text"}, id="a part"),
        pytest.param(
            [("1", "writes", 1.0, {"a": "", "b": "text"}), ("2", "reads", 2.0, {"a": "Int64", "b": "String"})],
            {"a": "Int64", "b": "text"},
            id="a type that the writer did not know",
        ),
        pytest.param(
            [("1", "reads", 1.0, {"a": "Int64"}), ("2", "reads", 2.0, {"a": "Int32"})], {"a": "Int32"}, id="no writer"
        ),
        pytest.param([*READER_LAST, ("2", "writes", 3.0, {"b": "json"})], {"b": "json"}, id="a newer writer"),
        pytest.param(
            [*READER_LAST, ("2", "reads", 3.0, {"a": "Int64", "c": "Date"})],
            {"a": "int8", "b": "text", "c": "Date"},
            id="a column added behind the writer's back",
        ),
        pytest.param(
            [("1", "reads", 1.0, {"a": "Int64", "old": "Date"}), ("1", "writes", 2.0, {"a": "int8"})],
            {"a": "int8"},
            id="a column that the writer dropped",
        ),
        pytest.param(
            [
                ("0", "writes", 0.0, {"a": "int8"}),
                *((f"r{n}", "reads", float(n), {"a": "Int64"}) for n in range(1, 40)),
            ],
            {"a": "int8"},
            id="many readers after one writer",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_writers_columns_and_types_win_over_a_readers(
    told: list[tuple[str, str, float, dict[str, str]]], expected: dict[str, str], seed: int
) -> None:
    runs_in_some_order = random.Random(seed).sample(told_columns(told), len(told))
    graph, store = Graph(), StoredGraph(None)

    for run in runs_in_some_order:
        graph = merge(parse_graph(dump_graph(graph)), [run])
        store.add([run])

    found = graph.datasets["pg://db/t"]
    assert expected == {each.name: each.type for each in found.columns}
    assert found == store.dataset("pg://db/t")
    store.close()
