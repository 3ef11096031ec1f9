"""The graph: merging runs, questions, and what stays after failures and idle reruns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.document import dump_graph, faults, parse_graph, stale
from tidemill_lineage.errors import GraphError
from tidemill_lineage.graph import Graph, diff, merge
from tidemill_lineage.model import Column, Dataset, Run, asset_urn, stable_urn

RAW = declare(job="load", output="pg://db/raw", columns={"a": ["file:///x#a"], "b": ["file:///x#b"]}, run_id="1", at=1)
MART = declare(
    job="mart", output="pg://db/mart", columns={"total": ["pg://db/raw#a"]}, rows=["pg://db/raw#b"], run_id="1", at=2
)


def graph() -> Graph:
    return merge(Graph(), [RAW, MART])


def test_upstream_lists_the_nearest_first() -> None:
    assert graph().upstream("pg://db/mart#total") == ["pg://db/raw#a", "pg://db/raw#b", "file:///x#a", "file:///x#b"]


def test_depth_limits_how_far_upstream_goes() -> None:
    assert graph().upstream("pg://db/mart", depth=1) == ["pg://db/raw"]


def test_impact_tells_direct_from_indirect() -> None:
    assert graph().impact("file:///x#a") == {"pg://db/mart#total": "DIRECT", "pg://db/raw#a": "DIRECT"}
    assert graph().impact("file:///x#b") == {"pg://db/mart#total": "INDIRECT", "pg://db/raw#b": "DIRECT"}


def test_counting_rows_carries_no_columns_values() -> None:
    counted = capture_sql(
        "SELECT b, count(*) AS n FROM raw GROUP BY b",
        output="pg://db/mart",
        tables={"raw": "pg://db/raw"},
        catalog={"raw": {"a": "int", "b": "int"}},
    )

    found = merge(Graph(), [RAW, counted])

    assert found.impact("pg://db/raw#b") == {"pg://db/mart#b": "DIRECT", "pg://db/mart#n": "INDIRECT"}


def test_path_is_a_shortest_chain_of_edges() -> None:
    found = graph().path("file:///x#a", "pg://db/mart#total")

    assert [(edge.source, edge.target) for edge in found] == [
        ("file:///x", "pg://db/raw"),
        ("pg://db/raw", "pg://db/mart"),
    ]


def test_path_between_strangers_is_empty() -> None:
    assert graph().path("pg://db/mart", "file:///x") == []


def test_a_dataset_is_found_by_the_end_of_its_name() -> None:
    assert graph().resolve("raw#a") == "pg://db/raw#a"


def test_an_unknown_column_is_refused_with_the_known_ones() -> None:
    with pytest.raises(GraphError, match="known: a, b"):
        graph().resolve("raw#z")


def test_an_ambiguous_name_is_refused() -> None:
    other = declare(job="o", output="pg://other/raw", columns={"a": ["file:///x#a"]})

    with pytest.raises(GraphError, match="more than one"):
        merge(graph(), [other]).resolve("raw")


def test_a_failed_run_changes_nothing() -> None:
    failed = replace(MART, state="FAIL", edges=(), writes=(), ended_at=9.0, id="2")

    assert merge(graph(), [failed]) == graph()


def test_a_rerun_gives_the_same_graph_and_its_edges_name_it() -> None:
    again = [replace(RAW, id="2", ended_at=11.0), replace(MART, id="2", ended_at=12.0)]

    after = merge(graph(), again)

    assert graph() == after
    assert {edge.run for edge in after.edges} == {"2"}
    assert dump_graph(after) == dump_graph(merge(after, again))


def test_a_rerun_that_did_no_work_keeps_the_edges() -> None:
    idle = Run(id="2", job="load", ended_at=11.0, writes=(Dataset(urn="pg://db/raw"),))

    assert merge(graph(), [idle]) == graph()


def test_a_new_run_drops_what_its_job_no_longer_does() -> None:
    changed = declare(job="mart", output="pg://db/mart", columns={"total": ["pg://db/raw#b"]}, run_id="2", at=9)

    found = merge(graph(), [changed])

    assert found.upstream("pg://db/mart#total", depth=1) == ["pg://db/raw#b"]


def test_several_events_of_one_run_add_up() -> None:
    parts = [
        declare(job="j", output="o://x", columns={name: [f"i://x#{name}"]}, run_id="1", at=at)
        for at, name in enumerate("abc")
    ]

    assert len(merge(Graph(), parts).edges) == 3


def test_an_asset_name_becomes_the_stored_dataset_whoever_comes_first() -> None:
    stored = Run(id="1", job="io", ended_at=1, writes=(Dataset(urn="s3://lake/raw/w", asset_key="raw/w"),))
    used = declare(job="m", output="pg://m", columns={"z": [f"{asset_urn('raw/w')}#a"]}, run_id="1", at=2)

    for runs in ([stored, used], [used, stored]):
        found = merge(Graph(), runs)

        assert found.upstream("pg://m#z") == ["s3://lake/raw/w#a"]
        assert asset_urn("raw/w") not in found.datasets


def test_an_asset_in_two_stores_is_tied_to_both() -> None:
    columns = (Column(name="a"),)
    stored = [
        Run(id="1", job="io", ended_at=1, writes=(Dataset(urn=urn, asset_key="raw/w", columns=columns),))
        for urn in ("s3://lake/w", "pg://db/w")
    ]
    used = Run(
        id="1",
        job="m",
        ended_at=2,
        reads=(Dataset(urn=asset_urn("raw/w"), columns=columns),),
        edges=declare(job="m", output="pg://m", columns={"z": [f"{asset_urn('raw/w')}#a"]}).edges,
    )

    found = merge(Graph(), [*stored, used])

    assert set(found.upstream("pg://m#z")) >= {"s3://lake/w#a", "pg://db/w#a"}


def test_what_a_job_only_read_and_wrote_is_linked_as_a_whole() -> None:
    read = Run(id="1", job="copy", ended_at=1, reads=(Dataset(urn="a://x"),))
    wrote = Run(id="1", job="copy", ended_at=2, writes=(Dataset(urn="b://x"),))

    assert merge(Graph(), [read, wrote]).upstream("b://x") == ["a://x"]


def test_diff_names_added_and_removed_columns_and_edges() -> None:
    changed = declare(job="mart", output="pg://db/mart", columns={"n": ["pg://db/raw#a"]}, run_id="2", at=9)

    found = diff(merge(Graph(), [MART]), merge(Graph(), [changed]))

    assert found.columns_added == ("pg://db/mart#n",)
    assert found.columns_removed == ("pg://db/mart#total",)
    assert [edge.target_column for edge in found.edges_added] == ["n"]


def test_orphans_are_datasets_nothing_touches() -> None:
    lonely = Graph({"a://x": Dataset(urn="a://x")})

    assert lonely.orphans() == ["a://x"]
    assert graph().orphans() == []


def test_a_document_is_read_back_as_it_was() -> None:
    assert parse_graph(dump_graph(graph())) == graph()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "tidemill-lineage/1"}', b'{"format": "x"}'])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError):
        parse_graph(data)


def test_a_consistent_graph_has_no_faults() -> None:
    assert faults(graph()) == []


def test_an_edge_to_nowhere_is_a_fault() -> None:
    broken = replace(graph().edges[0], source="gone://x", source_column="")

    assert "edge names unknown dataset gone://x" in faults(replace(graph(), edges=(broken,)))


names = st.sampled_from("abcd")
runs = st.builds(
    lambda job, out, src, col, run_id, at: declare(
        job=job, output=f"o://{out}", columns={col: [f"o://{src}#{col}"]}, run_id=run_id, at=at
    ),
    names, names, names, names, names, st.integers(0, 20),
)  # fmt: skip


@given(st.lists(runs, max_size=12))
def test_merging_twice_is_merging_once(found: list[Run]) -> None:
    once = merge(Graph(), found)

    assert merge(once, found) == once


@given(st.lists(runs, max_size=12), st.integers(0, 12))
def test_merging_in_two_portions_ends_the_same(found: list[Run], cut: int) -> None:
    ordered = sorted(found, key=lambda run: (run.ended_at, run.id, run.job))
    ids = [run.id for run in ordered]
    cut = min(cut, len(ordered))
    if set(ids[:cut]) & set(ids[cut:]):
        return  # a run's file is merged as a whole

    assert merge(merge(Graph(), ordered[:cut]), ordered[cut:]) == merge(Graph(), ordered)


@given(st.lists(runs, max_size=12))
def test_every_merged_document_is_consistent_and_read_back(found: list[Run]) -> None:
    merged = merge(Graph(), found)

    assert faults(merged) == []
    assert parse_graph(dump_graph(merged)) == merged


def test_columns_that_a_newer_schema_dropped_are_called_stale() -> None:
    narrower = Run(id="9", job="load", ended_at=9, writes=(Dataset(urn="pg://db/raw", columns=(Column(name="a"),)),))

    assert stale(graph()) == []
    assert stale(merge(graph(), [narrower])) == ["pg://db/raw#b"]


def test_an_embedded_server_on_another_port_is_the_same_dataset() -> None:
    def load(port: int, at: float) -> Run:
        columns = {"a": [f"http://127.0.0.1:{port + 1}/v1/weather#a"]}
        return declare(job="load", output=f"postgres://127.0.0.1:{port}/db/t", columns=columns, run_id=str(port), at=at)

    found = merge(merge(Graph(), [load(40_001, 1)]), [load(50_001, 2)])

    assert list(found.datasets) == ["http://localhost/v1/weather", "postgres://localhost/db/t"]
    assert found.resolve("postgres://127.0.0.1:40001/db/t#a") == "postgres://localhost/db/t#a"


@pytest.mark.parametrize("urn", ["postgres://127.0.0.1:5433/db/t", "postgres://db.example:40001/db/t", "s3://b/k"])
def test_a_port_that_somebody_chose_stays(urn: str) -> None:
    assert stable_urn(urn) == urn


def test_what_lies_in_a_folder_that_is_read_as_a_whole_flows_through_it() -> None:
    mart = declare(job="mart", output="s3://lake/mart/t.parquet", columns={"a": ["pg://db/raw#a"]}, at=1)
    sync = Run(id="1", job="sync", ended_at=2, reads=(Dataset(urn="s3://lake"),), writes=(Dataset(urn="gs://mirror"),))

    found = merge(Graph(), [mart, sync])

    assert found.downstream("pg://db/raw") == ["s3://lake/mart/t.parquet", "s3://lake", "gs://mirror"]
    assert "gs://mirror" in found.impact("pg://db/raw#a")
    assert merge(found, [mart, sync]) == found


def test_a_reader_that_names_columns_without_types_does_not_erase_them() -> None:
    wrote = Run(id="1", job="w", ended_at=1, writes=(Dataset(urn="s3://t", columns=(Column(name="a", type="int"),)),))
    read = Run(id="2", job="r", ended_at=2, reads=(Dataset(urn="s3://t", columns=(Column(name="a"),)),))

    assert merge(Graph(), [wrote, read]).datasets["s3://t"].columns == (Column(name="a", type="int"),)


def test_a_folder_is_the_same_with_and_without_its_slash() -> None:
    assert stable_urn("s3://lake/events/flights/") == "s3://lake/events/flights"
    assert stable_urn("s3://lake/") == "s3://lake"
