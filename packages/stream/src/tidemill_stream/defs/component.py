"""A Dagster component that drains a pipeline: everything that is in its topics now, exactly once."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import dagster as dg
from tidemill_core.defs import ConfigComponent, dagster_errors

from tidemill_stream.defs.outputs import (
    StreamAssetsConfig,
    asset_keys,
    asset_specs,
    bootstrap_of,
    context_of,
    needed_resources,
    output_metadata,
    with_client,
)
from tidemill_stream.plan import Plan
from tidemill_stream.running.draining import DrainResult, drain
from tidemill_stream.running.status import Holding, verify

_CHECKS = {
    "no_lag": "Everything that was in the topics when the drain began has been processed. It does not see what a "
    "publisher never sent, or what a log dropped before: such a drain fails (OffsetLost, RecordsDropped).",
    "every_record_accounted_for": "Records read = rows + filtered + invalid + deleted. It counts what was read, "
    "and does not see records that were not; those are the matter of no_lag.",
    "outputs_match_checkpoint": "Every sink holds exactly the rows and windows that its checkpoints account for. It "
    "counts, and does not see whether a value is right.",
}


class StreamDrainConfig(StreamAssetsConfig):
    """A pipeline that a Dagster run drains."""

    pool: str | None = "kafka"
    """Concurrency pool of the drain."""
    takeover: bool = False
    """Drain although a live service holds the pipeline; the service will be fenced."""


class StreamDrainComponent(ConfigComponent):
    """Drain Kafka topics through a pipeline into PostgreSQL and an object store, exactly once.

    One multi-asset: the rows that passed, the closed windows and the dead letters. Servers that
    the pipeline does not name come from the resources `kafka`, `postgres` and `lake`.
    """

    config_type = StreamDrainConfig
    produces: ClassVar = ("asset", "asset_check")
    tags: ClassVar = ("kafka", "stream", "postgres", "parquet", "exactly once")
    needs_resources: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "pipeline": {
            "name": "clicks",
            "source": {"topics": "clicks"},
            "schema": {
                "inline": {
                    "type": "object",
                    "required": ["at", "page"],
                    "properties": {"at": {"type": "string"}, "page": {"type": "string"}, "ms": {"type": "integer"}},
                }
            },
            "where": "page <> '/health'",
            "window": {
                "type": "tumbling",
                "size_s": 3600,
                "time": {"field": "at"},
                "key": ["page"],
                "aggs": {"clicks": {"op": "count"}, "mean_ms": {"op": "mean", "field": "ms"}},
            },
            "sinks": [
                {
                    "type": "postgres",
                    "rows_table": "events.clicks",
                    "windows_table": "events.clicks_hourly",
                    "dlq_table": "events.dead_letters",
                }
            ],
        },
        "assets": {"rows": "events/clicks", "windows": "events/clicks_hourly", "dlq": "events/dead_letters"},
    }

    def build(self, config: Any, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the multi-asset; the pipeline is compiled now, so that what does not fit is found at load."""
        config = config if isinstance(config, StreamDrainConfig) else StreamDrainConfig(**dict(config))
        return dg.Definitions(assets=[build_drain(config, Plan(config.pipeline, base=getattr(context, "path", None)))])


def build_drain(config: StreamDrainConfig, plan: Plan) -> dg.AssetsDefinition:
    """Make the drain of one pipeline; its checks run in the same step."""
    keys = asset_keys(config, plan)
    first = next(iter(keys.values()))

    @dg.multi_asset(
        name=_op_name(config.pipeline.name),
        specs=asset_specs(config, plan),
        check_specs=[dg.AssetCheckSpec(name, asset=first, description=text) for name, text in _CHECKS.items()],
        required_resource_keys=needed_resources(config.pipeline),
        pool=config.pool,
        can_subset=False,
    )
    def drained(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        with dagster_errors():
            sinks = context_of(plan, context.resources)
            connected = with_client(plan, context.resources)
            names = {name: "/".join(key.path) for name, key in keys.items()}
            servers = bootstrap_of(config.pipeline, context.resources)
            result = drain(connected, servers, sinks, takeover=config.takeover, asset_keys=names)
            held = verify(plan, sinks)
        context.log.info(result.sentence())
        for name, key in keys.items():
            metadata = output_metadata(plan, name, result.totals, _facts(result, name))
            checks = _checks(result, held) if key == first else []
            version = dg.DataVersion(result.version)
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=checks, data_version=version)

    return drained


def _checks(result: DrainResult, held: list[Holding]) -> list[dg.AssetCheckResult]:
    totals = result.totals
    accounted = totals.rows + totals.filtered + totals.invalid + totals.deleted
    outputs = {f"{each.sink} {each.output}": f"{each.rows} of {each.expected}" for each in held}
    return [
        dg.AssetCheckResult(check_name="no_lag", passed=result.lag == 0, metadata={"lag": result.lag}),
        dg.AssetCheckResult(
            check_name="every_record_accounted_for",
            passed=totals.consumed == accounted,
            metadata={"consumed": totals.consumed, "accounted": accounted},
        ),
        dg.AssetCheckResult(
            check_name="outputs_match_checkpoint",
            passed=all(each.is_exact for each in held),
            metadata={"held": dg.MetadataValue.json(outputs)},
        ),
    ]


def _facts(result: DrainResult, output: str) -> dict[str, Any]:
    written = {sink: rows for sink, rows in result.written.items() if sink.endswith(f" {output}")}
    return {
        "seconds": result.seconds,
        "did_work": result.did_work,
        "lag": result.lag,
        "offsets": {f"{p.topic}[{p.partition}]": f"{p.start}..{p.end}" for p in result.partitions},
        "this_run": result.done.as_dict(),
        "since_the_beginning": result.totals.as_dict(),
        "written": written,
        "invalid_by_reason": dict(result.reasons) or None,
        "restarted_topics": list(result.restarted) or None,
    }


def _op_name(pipeline: str) -> str:
    return "drain_" + "".join(char if char.isalnum() else "_" for char in pipeline)
