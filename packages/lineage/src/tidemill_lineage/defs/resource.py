"""The `lineage` resource: traces the functions of assets, and knows where the graph is kept."""

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import dagster as dg
from pydantic import Field
from tidemill_core.settings import Settings
from tidemill_core.telemetry import get_logger

from tidemill_lineage.hooks import events_of, lineage_folder
from tidemill_lineage.model import ASSET_SCHEME, DatasetUrn, asset_urn

if TYPE_CHECKING:
    from tidemill_lineage.emitters._base import Emitter
    from tidemill_lineage.events import EventLog
    from tidemill_lineage.model import Run
    from tidemill_lineage.tracer import Tracer

P = ParamSpec("P")
R = TypeVar("R")


class LineageResource(dg.ConfigurableResource[Any]):
    """Where lineage is kept and sent; empty fields mean the settings."""

    path: str = Field(default="", description="The graph document; empty means lineage/lineage.json in the home.")
    events: str = Field(default="", description="Folder of the events; empty means lineage/events in the home.")
    targets: list[dict[str, Any]] = Field(
        default=[],
        description="Where runs are pushed, each {type, url, ...} of a registered emitter; empty means the settings.",
    )
    neo4j_url: str = Field(default="", description="bolt://host:port; empty means the settings, then none.")
    openlineage_url: str = Field(default="", description="http://host:port; empty means the settings, then none.")

    def graph_path(self) -> Path:
        """The graph document in force."""
        return Path(self.path) if self.path else lineage_folder(Settings.from_env()) / "lineage.json"

    def log(self) -> "EventLog":
        """The event log in force."""
        from tidemill_lineage.events import EventLog

        return EventLog(self.events) if self.events else events_of(Settings.from_env())

    def push_targets(self) -> "list[Emitter]":
        """Open what lineage is pushed to: `targets`, or those of the settings, and the two shorthands.

        Raises:
            ConfigError: A target is wrong.
        """
        from tidemill_lineage.emitters._base import open_target, parse_targets
        from tidemill_lineage.settings import targets_of

        listed = parse_targets(self.targets, where="targets")
        wanted = targets_of(listed, neo4j_url=self.neo4j_url, openlineage_url=self.openlineage_url)
        return [open_target(each) for each in wanted]

    def tracer(self, context: dg.AssetExecutionContext | dg.OpExecutionContext) -> "Tracer":
        """Make a tracer whose calls belong to this Dagster run; close it when the asset is done."""
        from tidemill_lineage.tracer import Tracer

        tracer = Tracer([self.log()])
        tracer.default_run(context.run.run_id)
        return tracer

    def traced(
        self,
        context: dg.AssetExecutionContext,
        function: Callable[P, R],
        *,
        inputs: Mapping[str, str] | None = None,
        output: str | None = None,
    ) -> Callable[P, R]:
        """Wrap the function that makes an asset: its columns are traced and become metadata.

        The result's plan is read, never collected. Nothing that goes wrong here fails the asset.

        Args:
            context: Of the asset that calls it.
            function: Takes frames and returns one; a LazyFrame gives column edges.
            inputs: Parameter -> asset key (``raw/weather``) or URN of what it holds. Default: the
                asset's own inputs, where the names are the same.
            output: Asset key or URN of the result; default the asset itself.
        """
        target = _urn(output) if output else asset_urn(context.asset_key.to_user_string())
        urns = {name: _urn(each) for name, each in inputs.items()} if inputs else _asset_inputs(context, function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            started_at = time.time()
            given, named = _lazy(function, urns, args, kwargs)
            result = function(*given, **named)
            try:
                values = inspect.signature(function).bind(*given, **named).arguments
                held = [(urn, values.get(name)) for name, urn in urns.items()]
                self._record(context, result, held, target, started_at)
            except Exception as error:  # noqa: BLE001  # lineage is never worth the asset; it says what was lost
                get_logger(__name__).warning("lineage_failed", asset=target, error=repr(error))
                context.log.warning("no lineage of %s: %r", target.removeprefix(ASSET_SCHEME), error)
            return result

        return wrapped

    def _record(
        self,
        context: dg.AssetExecutionContext,
        result: Any,
        inputs: list[tuple[DatasetUrn, Any]],
        target: DatasetUrn,
        started_at: float,
    ) -> None:
        run = _run(context, result, inputs, target, started_at)
        self.log().append(run)
        methods = sorted({edge.method for edge in run.edges})
        metadata = column_metadata_of(run, ", ".join(methods))
        context.add_asset_metadata(metadata, asset_key=_target_key(context, target))


def column_metadata_of(run: "Run", method: str) -> dict[str, Any]:
    """Make the metadata of one traced run."""
    from tidemill_lineage.defs.metadata import column_metadata

    return column_metadata(run.edges, method=method)


def _run(
    context: dg.AssetExecutionContext,
    result: Any,
    inputs: list[tuple[DatasetUrn, Any]],
    target: DatasetUrn,
    started_at: float,
) -> "Run":
    from tidemill_lineage.observed import Call, Spec, to_run

    job = context.op_execution_context.op_def.name  # as the IO managers name what they announce
    spec = Spec(job=job, output=target, inputs=())
    call = Call(spec=spec, run_id=context.run.run_id, inputs=tuple(inputs), started_at=started_at)
    call.finish((result,), None, time.time())
    return to_run(call)


def _lazy(
    function: Callable[..., Any], urns: Mapping[str, DatasetUrn], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """Give LazyFrames to a function that asks for them, whatever the IO manager loaded."""
    from tidemill_lineage.observed import Spec

    return Spec.of(function, inputs=urns, output=None, job=None).prepared(args, kwargs)


def _asset_inputs(context: dg.AssetExecutionContext, function: Callable[..., Any]) -> dict[str, DatasetUrn]:
    """Find the asset keys of the inputs whose names the function has too."""
    names = context.op_execution_context.op_def.ins
    parameters = inspect.signature(function).parameters
    return {name: asset_urn(context.asset_key_for_input(name).to_user_string()) for name in parameters if name in names}


def _target_key(context: dg.AssetExecutionContext, target: DatasetUrn) -> dg.AssetKey | None:
    keys = context.selected_asset_keys
    named = dg.AssetKey(target.removeprefix(ASSET_SCHEME).split("/"))
    return named if named in keys else next(iter(keys)) if len(keys) == 1 else None


def _urn(name: str) -> DatasetUrn:
    return name if "://" in name else asset_urn(name)
