"""Lineage in Dagster: traced assets, what they announce, and the asset that collects it all."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from tidemill_core.errors import ConfigError
from tidemill_core.lineage_hooks import Column, announce_wrote
from tidemill_core.plugins import PluginError
from tidemill_core.settings import Settings
from tidemill_lineage import hooks
from tidemill_lineage.defs import LineageComponent, LineageConfig, LineageResource, install
from tidemill_lineage.defs.component import lineage_asset
from tidemill_lineage.emitters.json_file import load_graph
from tidemill_lineage.events import EventLog

WAREHOUSE = "postgres://h:5432/db"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    for name in ("TIDEMILL_NEO4J_URL", "TIDEMILL_OPENLINEAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    install()
    yield tmp_path
    hooks.uninstall(Settings.from_env())


@dg.asset(key=["raw", "weather"])
def weather() -> pl.LazyFrame:
    """Announce what an ingest would."""
    announce_wrote(
        f"{WAREHOUSE}/raw.weather",
        job="ingest",
        inputs=["http://api/weather"],
        columns=[Column(name=name) for name in ("origin", "hour", "temp")],
        asset_key="raw/weather",
    )
    return pl.LazyFrame({"origin": ["a", "b"], "hour": [1, 2], "temp": [-1.0, 2.0]})


@dg.asset(key=["events", "departures"])
def departures() -> pl.LazyFrame:
    """Have some departures."""
    return pl.LazyFrame({"origin": ["a", "b"], "hour": [1, 2], "n": [3, 4], "delay": [1.5, 2.5]})


def by_weather(weather: pl.LazyFrame, departures: pl.LazyFrame) -> pl.LazyFrame:
    return (
        departures.join(weather, on=["origin", "hour"])
        .with_columns(sky=pl.when(pl.col("temp") < 0).then(pl.lit("cold")).otherwise(pl.lit("warm")))
        .group_by("sky")
        .agg(pl.col("n").sum(), mean=pl.col("delay").sum() / pl.col("n").sum())
        .sort("sky")
    )


INS = {"weather": dg.AssetIn(key=["raw", "weather"]), "departures": dg.AssetIn(key=["events", "departures"])}


def a_mart(function: Any = by_weather) -> dg.AssetsDefinition:
    @dg.asset(key=["mart", "by_weather"], ins=INS)
    def mart(
        context: dg.AssetExecutionContext, weather: pl.LazyFrame, departures: pl.LazyFrame, lineage: LineageResource
    ) -> pl.LazyFrame:
        result: pl.LazyFrame = lineage.traced(context, function)(weather, departures)
        return result

    return mart


class FramesInMemory(dg.IOManager):
    """Keep frames; the real IO managers have tests of their own."""

    def __init__(self) -> None:
        self.frames: dict[Any, Any] = {}

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is not None:
            self.frames[context.asset_key] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        return self.frames[context.asset_key]


def materialize(*assets: Any, instance: dg.DagsterInstance | None = None, **more: Any) -> dg.ExecuteInProcessResult:
    resources = {"lineage": LineageResource(), "io_manager": FramesInMemory(), **more}
    return dg.materialize(list(assets), resources=resources, instance=instance, raise_on_error=False)


def metadata_of(result: dg.ExecuteInProcessResult, *key: str) -> dict[str, Any]:
    (found,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(list(key))]
    return {name: value.value for name, value in found.materialization.metadata.items()}


def test_a_traced_asset_carries_dagsters_column_lineage() -> None:
    result = materialize(weather, departures, a_mart())

    found = metadata_of(result, "mart", "by_weather")["dagster/column_lineage"].deps_by_column
    assert {
        name: sorted((d.asset_key.to_user_string(), d.column_name) for d in deps) for name, deps in found.items()
    } == {
        "sky": [("raw/weather", "temp")],
        "n": [("events/departures", "n")],
        "mean": [("events/departures", "delay"), ("events/departures", "n")],
    }


def test_our_metadata_tells_direct_from_indirect() -> None:
    result = materialize(weather, departures, a_mart())

    found = metadata_of(result, "mart", "by_weather")["tidemill/column_lineage"]
    assert {(each["from"], each["kind"], each["subtype"]) for each in found["sky"]} == {
        ("raw/weather#temp", "INDIRECT", "CONDITIONAL")
    }
    assert ("events/departures#hour", "JOIN") in {(each["from"], each["subtype"]) for each in found["*"]}


def test_the_component_collects_what_the_run_announced(home: Path) -> None:
    result = materialize(weather, departures, a_mart(), lineage_asset(LineageConfig(deps=["mart/by_weather"])))

    assert result.success
    graph = load_graph(home / "lineage" / "lineage.json")
    assert "http://api/weather" in graph.upstream("mart/by_weather")
    assert f"{WAREHOUSE}/raw.weather#temp" in graph.upstream("mart/by_weather#sky")
    facts = metadata_of(result, "lineage", "graph")
    assert facts["datasets"] == len(graph.datasets)
    assert "<html" in (home / "lineage" / "lineage.html").read_text()


def test_a_second_run_gives_the_same_document(home: Path) -> None:
    assets = (weather, departures, a_mart(), lineage_asset(LineageConfig(deps=["mart/by_weather"])))
    materialize(*assets)
    first = (home / "lineage" / "lineage.json").read_bytes()

    materialize(*assets)

    assert (home / "lineage" / "lineage.json").read_bytes() == first


def test_a_run_of_the_graph_alone_keeps_all_edges(home: Path) -> None:
    graph = lineage_asset(LineageConfig(deps=["mart/by_weather"]))
    materialize(weather, departures, a_mart(), graph)
    first = (home / "lineage" / "lineage.json").read_bytes()

    materialize(graph)

    assert (home / "lineage" / "lineage.json").read_bytes() == first


def test_the_users_exception_fails_the_asset_and_only_it() -> None:
    def breaks(weather: pl.LazyFrame, departures: pl.LazyFrame) -> pl.LazyFrame:
        raise ValueError("mine")

    result = materialize(weather, departures, a_mart(breaks))

    assert not result.success
    assert "mine" in str(result.failure_data_for_node("mart__by_weather"))


def test_lineage_that_breaks_leaves_the_asset_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no lineage today")

    monkeypatch.setattr("tidemill_lineage.observed.to_run", broken)

    result = materialize(weather, departures, a_mart())

    assert result.success


def test_an_unreachable_server_is_told_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lineage = LineageResource(openlineage_url="http://127.0.0.1:9")

    result = materialize(weather, lineage_asset(LineageConfig(deps=["raw/weather"])), lineage=lineage)

    assert result.success
    assert "not answering" in metadata_of(result, "lineage", "graph")["push_failed"]["openlineage"]


def test_strict_makes_an_unreachable_server_a_failure() -> None:
    lineage = LineageResource(openlineage_url="http://127.0.0.1:9")

    config = LineageConfig(deps=["raw/weather"], strict=True)

    assert not materialize(weather, lineage_asset(config), lineage=lineage).success


def test_explicit_inputs_and_output_are_used_as_urns(home: Path) -> None:
    @dg.asset(key=["mart", "plain"])
    def plain(context: dg.AssetExecutionContext, lineage: LineageResource) -> None:
        frame = pl.LazyFrame({"a": [1]})
        lineage.traced(context, lambda x: x.select(b="a"), inputs={"x": "s3://b/x"}, output="s3://b/y")(frame)

    materialize(plain, lineage_asset(LineageConfig(deps=["mart/plain"])))

    assert load_graph(home / "lineage" / "lineage.json").upstream("s3://b/y#b") == ["s3://b/x#a"]


def test_a_tracer_of_the_resource_records_into_the_dagster_run(home: Path) -> None:
    @dg.asset
    def own(context: dg.AssetExecutionContext, lineage: LineageResource) -> None:
        tracer = lineage.tracer(context)
        tracer.trace(inputs={"x": "s3://b/x"}, output="s3://b/y")(lambda x: x.select(b="a"))(pl.LazyFrame({"a": [1]}))
        tracer.close()

    result = materialize(own)

    assert LineageResource().log().run_ids() == [result.run_id]


def test_the_component_is_made_from_yaml_attributes() -> None:
    component = LineageComponent.from_attributes_dict(
        attributes={"asset_key": "lineage/graph", "deps": ["mart/by_weather"], "html": "out/page.html"}
    )

    assert component.config == LineageConfig(deps=["mart/by_weather"], html=Path("out/page.html"))


MULTIPROCESS = """
import dagster as dg
import polars as pl
from tidemill_core.lineage_hooks import announce_wrote
from tidemill_lineage.defs import LineageConfig, LineageResource, install
from tidemill_lineage.defs.component import lineage_asset

install()

@dg.asset(key=["raw", "weather"])
def weather() -> None:
    announce_wrote("pg://db/raw.weather", job="ingest", inputs=["http://api/weather"], asset_key="raw/weather")

@dg.asset(key=["mart", "solo"], deps=[weather])
def solo(context: dg.AssetExecutionContext, lineage: LineageResource) -> None:
    frame = pl.LazyFrame({"temp": [1.0]})
    lineage.traced(context, lambda x: x.select(t=pl.col("temp") * 2), inputs={"x": "raw/weather"})(frame)

def everything() -> dg.JobDefinition:
    return dg.Definitions(
        assets=[weather, solo, lineage_asset(LineageConfig(deps=["mart/solo"]))],
        jobs=[dg.define_asset_job("everything", executor_def=dg.multiprocess_executor)],
        resources={"lineage": LineageResource()},
    ).resolve_job_def("everything")
"""


def test_steps_in_processes_of_their_own_are_collected_too(home: Path) -> None:
    from dagster._core.definitions.reconstruct import ReconstructableJob

    (home / "multi.py").write_text(MULTIPROCESS)
    (home / "dagster").mkdir()

    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        result = dg.execute_job(ReconstructableJob.for_file(str(home / "multi.py"), "everything"), instance=instance)

        assert result.success
    graph = load_graph(home / "lineage" / "lineage.json")
    assert "http://api/weather" in graph.upstream("mart/solo")
    assert LineageResource().log().run_ids() == [result.run_id]


def pandas_mart(function: Any) -> dg.AssetsDefinition:
    @dg.asset(key=["mart", "by_weather"], ins=INS)
    def mart(context: dg.AssetExecutionContext, weather: Any, departures: Any, lineage: LineageResource) -> Any:
        return lineage.traced(context, function)(weather.collect().to_pandas(), departures.collect().to_pandas())

    return mart


def test_a_pandas_asset_carries_dagsters_column_lineage() -> None:
    def step(weather: Any, departures: Any) -> Any:
        both = departures.merge(weather, on=["origin", "hour"])
        return both[both["temp"] > 0].assign(lost=both["n"] * both["delay"])[["origin", "lost"]]

    result = materialize(weather, departures, pandas_mart(step))

    found = metadata_of(result, "mart", "by_weather")["dagster/column_lineage"].deps_by_column
    assert {
        name: sorted((d.asset_key.to_user_string(), d.column_name) for d in deps) for name, deps in found.items()
    } == {
        "origin": [("events/departures", "origin")],
        "lost": [("events/departures", "delay"), ("events/departures", "n")],
    }


def test_a_step_that_fails_is_recorded_and_fails_as_before(home: Path) -> None:
    def step(weather: Any, departures: Any) -> Any:
        raise LookupError("nothing there")

    result = materialize(weather, departures, pandas_mart(step))

    assert not result.success
    failed = [run for run in EventLog(home / "lineage" / "events").read() if run.state == "FAIL"]
    assert [(run.job, run.error, {each.urn for each in run.reads}) for run in failed] == [
        ("mart__by_weather", "LookupError: nothing there", {"asset://raw/weather", "asset://events/departures"})
    ]


def test_a_wrong_target_is_refused_where_it_is_written() -> None:
    with pytest.raises((ConfigError, PluginError), match="sqlit"):
        LineageResource(targets=[{"type": "sqlit", "url": "x"}])


def test_a_target_from_the_environment_is_judged_when_it_is_known() -> None:
    assert LineageResource(targets=[{"type": "neo4j", "url": dg.EnvVar("SOME_URL")}]).targets
