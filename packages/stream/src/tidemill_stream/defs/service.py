"""A Dagster component for a pipeline that runs as a service beside Dagster: its outputs, observed by a sensor."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field
from tidemill_core.defs import ConfigComponent

from tidemill_stream.defs.outputs import StreamAssetsConfig, asset_keys, asset_specs, context_of, output_metadata
from tidemill_stream.plan import Plan
from tidemill_stream.running.status import PipelineStatus, status


class StreamServiceConfig(StreamAssetsConfig):
    """A pipeline that `tidemill stream run` keeps running."""

    interval_s: int = Field(default=60, ge=10)
    """How often the sensor looks at the checkpoints, in seconds."""


class StreamServiceComponent(ConfigComponent):
    """Show a long-lived pipeline's outputs in Dagster: external assets, and a sensor over its checkpoints.

    The sensor consumes nothing; it reports a materialization when the checkpoints have moved.
    Nothing is lost while Dagster is down: the next tick reports what was missed.
    """

    config_type = StreamServiceConfig
    produces: ClassVar = ("asset", "sensor")
    tags: ClassVar = ("kafka", "stream", "sensor")
    example: ClassVar[Mapping[str, Any]] = {
        "pipeline": {
            "name": "views",
            "source": {"topics": "views"},
            "rows": {"columns": {"page": "string", "ms": "integer"}},
            "sinks": [{"type": "postgres", "rows_table": "events.views", "dlq_table": "events.views_dead"}],
        },
        "assets": {"rows": "events/views", "dlq": "events/views_dead"},
    }

    def build(self, config: Any, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the external assets and the sensor."""
        config = config if isinstance(config, StreamServiceConfig) else StreamServiceConfig(**dict(config))
        plan = Plan(config.pipeline, base=getattr(context, "path", None))
        return dg.Definitions(assets=asset_specs(config, plan), sensors=[build_sensor(config, plan)])


def build_sensor(config: StreamServiceConfig, plan: Plan) -> dg.SensorDefinition:
    """Make the sensor over a pipeline's checkpoints."""
    keys = asset_keys(config, plan)

    @dg.sensor(
        name="observe_" + "".join(char if char.isalnum() else "_" for char in config.pipeline.name),
        description=f"Reports what pipeline {config.pipeline.name!r} has committed since the last tick.",
        minimum_interval_seconds=config.interval_s,
    )
    def observe(
        context: dg.SensorEvaluationContext, postgres: dg.ResourceParam[Any], lake: dg.ResourceParam[Any]
    ) -> dg.SensorResult | dg.SkipReason:
        found = status(plan, context_of(plan, SimpleNamespace(postgres=postgres, lake=lake)))
        cursor = position_of(found)
        if cursor == context.cursor:
            return dg.SkipReason("the checkpoints have not moved")
        return dg.SensorResult(
            asset_events=[
                dg.AssetMaterialization(key, metadata=output_metadata(plan, name, found.totals, _facts(found)))
                for name, key in keys.items()
            ],
            cursor=cursor,
        )

    return observe


def position_of(found: PipelineStatus) -> str:
    """Write where a pipeline stands, as a sensor cursor."""
    return json.dumps({f"{p.topic}[{p.partition}]": [p.offset, p.open_windows] for p in found.partitions})


def _facts(found: PipelineStatus) -> dict[str, Any]:
    marks = [each.watermark for each in found.partitions if each.watermark is not None]
    return {
        "lag": sum(each.lag for each in found.partitions),
        "offsets": {f"{p.topic}[{p.partition}]": p.offset for p in found.partitions},
        "watermark": min(marks).isoformat() if marks else None,
        "since_the_beginning": found.totals.as_dict(),
        "owner": found.owner,
    }
