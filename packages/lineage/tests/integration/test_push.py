"""Dagster's lineage asset and the tracer, with servers that are there and servers that are not."""

from pathlib import Path
from typing import Any

import dagster as dg
import neo4j
import polars as pl
import pytest
from tidemill_core.retry import RetryPolicy
from tidemill_core.settings import Settings
from tidemill_lineage import EventLog, JsonFileEmitter, Neo4jEmitter, OpenLineageEmitter, Tracer, hooks, load_graph
from tidemill_lineage.defs import LineageConfig, LineageResource, install
from tidemill_lineage.defs.component import lineage_asset


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.delenv("TIDEMILL_OPENLINEAGE_URL", raising=False)
    install()
    yield tmp_path
    hooks.uninstall(Settings.from_env())


@dg.asset(key=["mart", "solo"])
def solo(context: dg.AssetExecutionContext, lineage: LineageResource) -> None:
    """Trace one column."""
    frame = pl.LazyFrame({"temp": [1.0]})
    lineage.traced(context, lambda x: x.select(t=pl.col("temp") * 2), inputs={"x": "raw/weather"})(frame)


def test_the_lineage_asset_pushes_to_the_neo4j_of_the_settings(
    home: Path, neo4j_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_NEO4J_URL", neo4j_url)
    graph = lineage_asset(LineageConfig(deps=["mart/solo"], strict=True))

    result = dg.materialize([solo, graph], resources={"lineage": LineageResource()})

    assert result.success
    with neo4j.GraphDatabase.driver(neo4j_url) as driver:
        found = driver.execute_query(
            "MATCH (s:Column)-[d:DERIVES]->(t:Column) RETURN s.urn AS s, t.urn AS t, d.via_job AS job"
        ).records
    assert [record.values() for record in found] == [["asset://raw/weather#temp", "asset://mart/solo#t", "mart__solo"]]


def test_a_pipeline_with_every_endpoint_dead_does_its_work(tmp_path: Path) -> None:
    once = RetryPolicy(attempts=1)
    tracer = Tracer(
        [
            Neo4jEmitter("bolt://127.0.0.1:9", connect_s=0.3, retry_s=0.3),
            OpenLineageEmitter("http://127.0.0.1:9", timeout_s=0.3, retry=once),
            JsonFileEmitter(tmp_path / "lineage.json"),
            EventLog(tmp_path / "events"),
        ]
    )
    traced = tracer.trace(inputs={"x": "t://in"}, output="t://out")(lambda x: x.select(b="a"))

    with tracer.run("nightly"):
        found = traced(pl.LazyFrame({"a": [1]})).collect()
    tracer.close(timeout_s=5)

    assert found["b"].to_list() == [1]
    assert tracer.stats.errors.keys() == {"neo4j:EmitterDown", "openlineage:EmitterDown"}
    assert load_graph(tmp_path / "lineage.json").upstream("t://out#b") == ["t://in#a"]
    assert len(EventLog(tmp_path / "events").run_ids()) == 1
