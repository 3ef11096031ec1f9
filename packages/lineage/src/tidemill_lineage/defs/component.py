"""The component that gathers a run's lineage into the graph, the page and the servers."""

import time
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field
from tidemill_core.config import Config
from tidemill_core.defs import ConfigComponent, dagster_errors, materialization

from tidemill_lineage.collect import Collected, collect
from tidemill_lineage.defs.listen import install
from tidemill_lineage.defs.resource import LineageResource


class LineageConfig(Config):
    """The attributes of a LineageComponent."""

    asset_key: str = Field(default="lineage/graph", pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$")
    """Key of the asset that stands for the graph."""
    deps: tuple[str, ...] = ()
    """Keys of the assets that must be done first: those whose lineage is wanted."""
    html: Path | None = None
    """Where the page goes; default ``lineage.html`` beside the graph document."""
    keep_runs: int = Field(default=100, ge=1)
    """Runs whose events are kept for ``tidemill lineage diff``; the graph keeps the edges of all."""
    strict: bool = False
    """Fail the asset when Neo4j or OpenLineage is set and cannot be reached."""
    group_name: str = "lineage"
    """Group of the asset."""
    resource_key: str = "lineage"
    """Key of the LineageResource; made with its defaults where the code location has none."""


class LineageComponent(ConfigComponent):
    """Collect what the assets of a run announced: a JSON graph, an HTML page, Neo4j and OpenLineage."""

    config_type = LineageConfig
    needs_resources: ClassVar[bool] = True
    example: ClassVar[dict[str, Any]] = {"asset_key": "lineage/graph", "deps": ["mart/delay_by_weather"]}
    tags: ClassVar[tuple[str, ...]] = ("lineage", "neo4j", "openlineage")

    def build(self, config: LineageConfig, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the one asset; loading it also starts listening in this process."""
        del context
        install()
        return dg.Definitions(assets=[lineage_asset(config)])


def lineage_asset(config: LineageConfig) -> dg.AssetsDefinition:
    """Make the asset of a configuration; it needs the resource under `config.resource_key`."""

    @dg.asset(
        key=dg.AssetKey(config.asset_key.split("/")),
        deps=[dg.AssetKey(each.split("/")) for each in config.deps],
        group_name=config.group_name,
        kinds={"json", "html"},
        required_resource_keys={config.resource_key},
        description="The lineage of everything that announced what it read and wrote, as JSON and as a page.",
    )
    def graph(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        resource: LineageResource = getattr(context.resources, config.resource_key)
        started = time.perf_counter()
        path = resource.graph_path()
        page = config.html or path.with_suffix(".html")
        with dagster_errors():
            found = collect(
                resource.log(), path, run_id=context.run.run_id, page=page, emitters=resource.push_targets(),
                keep_runs=config.keep_runs,
            )  # fmt: skip
        if config.strict and found.failed:
            raise dg.Failure(f"lineage was not pushed: {found.failed}")
        seconds = time.perf_counter() - started
        return dg.MaterializeResult(metadata={**_facts(found, path, page, seconds), "did_work": found.changed})

    return graph


def _facts(found: Collected, path: Path, page: Path, seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = dict(found.facts)
    return materialization(
        seconds=seconds,
        **figures,
        runs=len(found.runs),
        graph=path.absolute(),
        page=dg.MetadataValue.url(page.absolute().as_uri()),
        pushed=found.pushed or None,
        push_failed=found.failed or None,
    )
