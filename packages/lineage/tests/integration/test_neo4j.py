"""The Neo4j emitter on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.emitters.neo4j import Neo4jEmitter
from tidemill_lineage.errors import EmitterDown
from tidemill_lineage.model import Dataset, Run

CATALOG = {"orders": {"id": "int", "cust": "int", "amount": "int"}, "customers": {"id": "int", "name": "text"}}
SQL = """
SELECT c.name, SUM(o.amount) AS total FROM orders o JOIN customers c ON o.cust = c.id WHERE o.amount > 3 GROUP BY c.name
"""


def a_run(at: float = 10.0, run_id: str = "r1", sql: str = SQL) -> Run:
    return capture_sql(sql, output="pg://db/mart", catalog=CATALOG, job="mart", run_id=run_id, at=at)


@pytest.fixture
def emitter(neo4j_url: str) -> Iterator[Neo4jEmitter]:
    emitter = Neo4jEmitter(neo4j_url)
    yield emitter
    emitter.close()


@pytest.fixture
def ask(neo4j_url: str) -> Iterator[Any]:
    import neo4j

    with neo4j.GraphDatabase.driver(neo4j_url) as driver:
        yield lambda query, **values: [r.values() for r in driver.execute_query(query, values).records]


def test_columns_derive_from_columns_through_the_job(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    found = ask(
        "MATCH (s:Column)-[d:DERIVES]->(t:Column {urn: 'pg://db/mart#total'}) RETURN s.urn, d.kind, d.subtype, d.via_job"
    )
    assert found == [["table://orders#amount", "DIRECT", "AGGREGATION", "mart"]]


def test_deciding_columns_point_at_the_dataset(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    found = ask(
        "MATCH (s:Column)-[d:DERIVES {kind: 'INDIRECT'}]->(t:Dataset) RETURN s.urn, d.subtype ORDER BY s.urn, d.subtype"
    )
    assert found == [
        ["table://customers#id", "JOIN"],
        ["table://customers#name", "GROUP_BY"],
        ["table://orders#amount", "FILTER"],
        ["table://orders#cust", "JOIN"],
    ]


def test_a_run_reads_and_writes_versions_of_datasets(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    query = "MATCH (j:Job)<-[:OF]-(r:Run)-[k]->(v:DatasetVersion)-[:OF]->(d:Dataset) RETURN j.name, r.state, type(k), d.urn ORDER BY d.urn"
    assert ask(query) == [
        ["mart", "COMPLETE", "WROTE", "pg://db/mart"],
        ["mart", "COMPLETE", "READ", "table://customers"],
        ["mart", "COMPLETE", "READ", "table://orders"],
    ]


def test_emitting_the_same_runs_again_changes_nothing(emitter: Neo4jEmitter) -> None:
    emitter.emit([a_run(), a_run(11.0, "r2")])
    first = emitter.last_changes

    emitter.emit([a_run(), a_run(11.0, "r2")])

    assert first > 0
    assert emitter.last_changes == 0


def test_a_newer_run_replaces_the_edges_of_its_job(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    emitter.emit([a_run(20.0, "r2", SQL.replace("SUM(o.amount)", "SUM(o.id)"))])

    query = "MATCH (s)-[:DERIVES]->(:Column {urn: 'pg://db/mart#total'}) RETURN s.urn"
    assert ask(query) == [["table://orders#id"]]


def test_an_older_run_sent_late_does_not_bring_old_edges_back(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run(20.0, "r2", SQL.replace("SUM(o.amount)", "SUM(o.id)"))])

    emitter.emit([a_run()])

    query = "MATCH (s)-[:DERIVES]->(:Column {urn: 'pg://db/mart#total'}) RETURN s.urn"
    assert ask(query) == [["table://orders#id"]]


def test_a_failed_run_is_kept_but_its_edges_are_not(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    emitter.emit([replace(a_run(20.0, "r2"), state="FAIL", edges=(), error="ValueError: no")])

    assert ask("MATCH (r:Run {state: 'FAIL'}) RETURN r.error") == [["ValueError: no"]]
    assert ask("MATCH ()-[d:DERIVES]->() RETURN count(d) > 4") == [[True]]


def test_more_columns_than_one_batch_are_all_written(emitter: Neo4jEmitter, ask: Any) -> None:
    wide = {f"c{i}": [f"pg://db/wide#c{i}"] for i in range(2_500)}

    emitter.emit([declare(job="wide", output="pg://db/out", columns=wide)])

    assert ask("MATCH (:Column)-[d:DERIVES]->(:Column) RETURN count(d)") == [[2_500]]


def test_a_name_with_quotes_and_emoji_stays_data(emitter: Neo4jEmitter, ask: Any) -> None:
    urn = "file:///tmp/it's \"odd\" \N{GRINNING FACE}'}) DETACH DELETE n -- x"

    emitter.emit([Run(id="r", job="j", writes=(Dataset(urn=urn),))])

    assert ask("MATCH (d:Dataset) RETURN d.urn") == [[urn]]


def test_a_dead_server_is_a_transient_error() -> None:
    emitter = Neo4jEmitter("bolt://127.0.0.1:9", connect_s=0.5, retry_s=0.5)

    with pytest.raises(EmitterDown):
        emitter.emit([a_run()])
