"""The `lineage` resource: traces the functions of assets, and knows where the graph is kept."""

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import dagster as dg
from pydantic import Field, field_validator
from tidemill_core.settings import Settings
from tidemill_core.telemetry import get_logger

from tidemill_lineage.hooks import events_of, lineage_folder
from tidemill_lineage.model import ASSET_SCHEME, DatasetUrn, asset_urn

if TYPE_CHECKING:
    from tidemill_lineage.emitters._base import Emitter
    from tidemill_lineage.events import EventLog
    from tidemill_lineage.model import Edge
    from tidemill_lineage.observed import Call
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

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Refuse a wrong target where it is written, not when the first run is pushed.

        Raises:
            ConfigError: A target is wrong; one with a value from the environment is judged when it is opened.
        """
        from tidemill_lineage.emitters._base import parse_targets

        known = [each for each in targets if not any(isinstance(value, dg.EnvVar) for value in each.values())]
        parse_targets(known, where="targets")
        return targets

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

        A plan is read, never collected; what is done to frames of other libraries is watched. A step that fails
        is recorded as failed. Nothing that goes wrong here fails the asset.

        Args:
            context: Of the asset that calls it.
            function: Takes frames and returns one, of polars, pandas, pyarrow or DuckDB.
            inputs: Parameter -> asset key (``raw/weather``) or URN of what it holds. Default: the
                asset's own inputs, where the names are the same.
            output: Asset key or URN of the result; default the asset itself.
        """
        target = _urn(output) if output else asset_urn(context.asset_key.to_user_string())
        urns = {name: _urn(each) for name, each in inputs.items()} if inputs else _asset_inputs(context, function)

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            given, named = _lazy(function, urns, args, kwargs)
            call = _begun(context, function, (given, named), urns, target)
            try:
                result = function(*given, **named)
            except BaseException as error:  # recorded and raised again
                self._record(context, call, (), target, error)
                raise
            self._record(context, call, (result,), target)
            return result

        return wrapped

    def _record(
        self,
        context: dg.AssetExecutionContext,
        call: "Call | None",
        results: tuple[Any, ...],
        target: DatasetUrn,
        error: BaseException | None = None,
    ) -> None:
        """Write down what a call did; nothing that goes wrong here fails the asset."""
        from tidemill_lineage.observed import to_run

        if call is None:
            return
        try:
            for fault in call.unwatch():
                get_logger(__name__).warning("lineage_failed", asset=target, error=repr(fault))
            call.finish(results, error, time.time())
            run = to_run(call)
            self.log().append(run)
            if error is None:
                methods = sorted({edge.method for edge in run.edges})
                own = [edge for edge in run.edges if edge.target == target]
                context.add_asset_metadata(
                    column_metadata_of(own, ", ".join(methods)), asset_key=_target_key(context, target)
                )
        except Exception as failed:  # noqa: BLE001  # lineage is never worth the asset; it says what was lost
            _say_lost(context, target, failed)


def column_metadata_of(edges: "list[Edge]", method: str) -> dict[str, Any]:
    """Make the metadata of one traced asset."""
    from tidemill_lineage.defs.metadata import column_metadata

    return column_metadata(edges, method=method)


def _begun(
    context: dg.AssetExecutionContext,
    function: Callable[..., Any],
    given: tuple[Any, Any],
    urns: Mapping[str, DatasetUrn],
    target: DatasetUrn,
) -> "Call | None":
    """Note that a traced asset begins, as the tracer does; None if that went wrong."""
    from tidemill_lineage.observed import Call, Spec

    try:
        job = context.op_execution_context.op_def.name  # as the IO managers name what they announce
        spec = Spec.of(function, inputs=urns, output=target, job=job)
        args, kwargs = given
        call = Call(spec=spec, run_id=context.run.run_id, inputs=spec.inputs_of(args, kwargs), started_at=time.time())
        call.watch()
    except Exception as error:  # noqa: BLE001  # lineage is never worth the asset; it says what was lost
        _say_lost(context, target, error)
        return None
    return call


def _say_lost(context: dg.AssetExecutionContext, target: DatasetUrn, error: Exception) -> None:
    get_logger(__name__).warning("lineage_failed", asset=target, error=repr(error))
    context.log.warning("no lineage of %s: %r", target.removeprefix(ASSET_SCHEME), error)


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
