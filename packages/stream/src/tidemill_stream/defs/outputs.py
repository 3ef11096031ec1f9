"""What the stream's components share: asset keys, resources, metadata."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field
from tidemill_core.config import Config
from tidemill_core.defs import PACKAGE_TAG, layer, materialization
from tidemill_core.settings import Settings

from tidemill_stream.config import PipelineConfig
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Counts
from tidemill_stream.sink_settings import OUTPUTS
from tidemill_stream.sinks._base import SinkContext, sink_context

if TYPE_CHECKING:
    from tidemill_core.storage._base import ObjectStore


class AssetKeys(Config):
    """Asset keys of the outputs, parts joined by ``/``; an output without a key is no asset."""

    rows: str | None = None
    """Key of the rows that pass, such as ``events/flights``."""
    windows: str | None = None
    """Key of the closed windows."""
    dlq: str | None = None
    """Key of the dead letters."""


class StreamAssetsConfig(Config):
    """A pipeline and the assets that stand for its outputs."""

    pipeline: PipelineConfig
    """The pipeline."""
    assets: AssetKeys = Field(default=AssetKeys())
    """Asset keys of its outputs; by default ``stream/PIPELINE_OUTPUT``."""
    deps: tuple[str, ...] = ()
    """Asset keys (parts joined by ``/``) that must be there first, such as that of the topic."""
    group: str | None = None
    """Asset group; unset means the layer of the data, the first part of the asset key."""


def asset_keys(config: StreamAssetsConfig, plan: Plan) -> dict[str, dg.AssetKey]:
    """Choose the asset key of each output, by output name."""
    given = config.assets.model_dump()
    if not any(given.values()):
        given = {name: f"stream/{config.pipeline.name}_{name}" for name in OUTPUTS}
    return {name: dg.AssetKey(given[name].split("/")) for name in OUTPUTS if given[name] and name in plan.outputs}


def asset_specs(config: StreamAssetsConfig, plan: Plan) -> list[dg.AssetSpec]:
    """Describe the outputs as assets."""
    about = {"rows": "Records that passed", "windows": "Closed windows", "dlq": "Dead letters"}
    kinds = {"kafka"}.union(*(sink.kinds() for sink in config.pipeline.sinks))
    return [
        dg.AssetSpec(
            key,
            deps=[dg.AssetKey(dep.split("/")) for dep in config.deps],
            description=f"{about[name]} of pipeline {config.pipeline.name!r}.",
            group_name=config.group or layer(key),
            tags={PACKAGE_TAG: "stream"},
            kinds=kinds,
        )
        for name, key in asset_keys(config, plan).items()
    ]


def needed_resources(pipeline: PipelineConfig) -> set[str]:
    """Name the resources a pipeline takes its servers from."""
    needed = set() if pipeline.source.bootstrap_servers else {"kafka"}
    return needed.union(*(sink.resources() for sink in pipeline.sinks))


def context_of(plan: Plan, resources: Any, **more: Any) -> SinkContext:
    """Give the sinks Dagster's resources."""

    def open_store(url: str) -> "ObjectStore":
        from tidemill_core.storage import open_store

        if url.startswith("lake://"):
            found: ObjectStore = resources.lake.open(url.removeprefix("lake://"))
            return found
        return open_store(url, resources.lake.options() if hasattr(resources, "lake") else Settings.from_env().storage)

    return sink_context(plan, postgres_url=lambda: str(resources.postgres.get_url()), open_store=open_store, **more)


def with_client(plan: Plan, resources: Any) -> Plan:
    """Give a plan the client properties of the `kafka` resource, such as those for signing in."""
    client = getattr(getattr(resources, "kafka", None), "client", None)
    if plan.config.source.bootstrap_servers or not client:
        return plan
    properties = {**client, **plan.config.source.properties}
    source = plan.config.source.model_copy(update={"properties": properties})
    return Plan(plan.config.model_copy(update={"source": source}), schema=plan.schema)


def bootstrap_of(pipeline: PipelineConfig, resources: Any) -> str:
    """Choose the Kafka servers."""
    return pipeline.source.bootstrap_servers or str(resources.kafka.get_bootstrap())


def output_metadata(
    plan: Plan, output: str, totals: Counts, facts: Mapping[str, Any]
) -> dict[str, dg.MetadataValue[Any]]:
    """Build an output's metadata: rows, table, columns, and what the run did."""
    places: dict[str, Any] = {}
    for sink in plan.config.sinks:
        places |= sink.asset_facts(output)
    table = places.pop("table", None)
    rows = {"rows": totals.rows, "windows": totals.windows}.get(output)
    return materialization(rows=rows, table=table, schema=plan.arrow_schemas[output], **places, **facts)
