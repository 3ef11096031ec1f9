"""Our emitters keep the contract that a stranger's must keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidemill_lineage import EventLog, JsonFileEmitter, Neo4jEmitter, OpenLineageEmitter, load_graph
from tidemill_lineage.emitters._base import EMITTERS
from tidemill_lineage.emitters.sqlite import SqliteEmitter
from tidemill_lineage.stored_graph import StoredGraph
from tidemill_lineage.testing.emitters import TARGET, EmitterSuite, MergingEmitterSuite, Open, Read, spelled


class TestJsonFile(MergingEmitterSuite):
    @pytest.fixture
    def open_emitter(self, tmp_path: Path) -> Open:
        return lambda: JsonFileEmitter(tmp_path / "lineage.json")

    @pytest.fixture
    def read_edges(self, tmp_path: Path) -> Read:
        return lambda: spelled(load_graph(tmp_path / "lineage.json").edges)


class TestSqlite(MergingEmitterSuite):
    @pytest.fixture
    def open_emitter(self, tmp_path: Path) -> Open:
        return lambda: SqliteEmitter(tmp_path / "lineage.sqlite")

    @pytest.fixture
    def read_edges(self, tmp_path: Path) -> Read:
        return lambda: spelled(StoredGraph(tmp_path / "lineage.sqlite").graph().edges)


class TestNeo4j(MergingEmitterSuite):
    @pytest.fixture
    def open_emitter(self, neo4j_url: str) -> Open:
        return lambda: Neo4jEmitter(neo4j_url)

    @pytest.fixture
    def read_edges(self, neo4j_url: str) -> Read:
        def read() -> set[tuple[str, str, str]]:
            import neo4j

            query = "MATCH (s)-[d:DERIVES]->(t) WHERE t.urn STARTS WITH $urn RETURN s.urn, t.urn, d.run"
            with neo4j.GraphDatabase.driver(neo4j_url) as driver:
                return {tuple(row.values()) for row in driver.execute_query(query, urn=TARGET).records}

        return read


class TestOpenLineageFile(EmitterSuite):
    @pytest.fixture
    def open_emitter(self, tmp_path: Path) -> Open:
        return lambda: OpenLineageEmitter((tmp_path / "events.jsonl").as_uri())


class TestEventLog(EmitterSuite):
    @pytest.fixture
    def open_emitter(self, tmp_path: Path) -> Open:
        return lambda: EventLog(tmp_path / "events")


def test_every_emitter_is_found_by_its_name() -> None:
    assert EMITTERS.names() == ["json", "neo4j", "openlineage", "sqlite"]
