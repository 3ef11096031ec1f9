"""Announce what IO managers read and wrote, so that lineage sees assets it did not trace itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from tidemill_core import lineage_hooks

if TYPE_CHECKING:
    import pyarrow as pa


def announce(
    context: dg.InputContext | dg.OutputContext,
    kind: Literal["read", "wrote"],
    dataset: str,
    *,
    schema: "pa.Schema | None" = None,
    columns: Sequence[str] = (),
    rows: int | None = None,
    bytes: int | None = None,  # noqa: A002  # the event's field of that name
) -> None:
    """Tell the subscribers which step read or wrote which dataset, and which Dagster asset it is."""
    fields = [(field.name, str(field.type)) for field in schema] if schema is not None else [(c, "") for c in columns]
    lineage_hooks.announce(
        lineage_hooks.DataEvent(
            kind=kind,
            dataset=dataset,
            job=_step(context),
            run_id=_run_id(context),
            columns=tuple(lineage_hooks.Column(name=name, type=of) for name, of in fields),
            rows=rows,
            bytes=bytes,
            asset_key=context.asset_key.to_user_string() if context.has_asset_key else None,
            facts={"partitions": tuple(context.asset_partition_keys)} if _is_partitioned(context) else {},
        )
    )


def _step(context: Any) -> str:
    """Name the op that reads or writes; contexts built by hand have none."""
    try:
        return str(context.op_def.name)
    except (dg.DagsterError, AttributeError):
        return "unknown"


def _run_id(context: dg.InputContext | dg.OutputContext) -> str | None:
    try:
        written = context if isinstance(context, dg.OutputContext) else context.step_context
        return str(written.run_id)
    except (dg.DagsterError, AttributeError):
        return None


def _is_partitioned(context: dg.InputContext | dg.OutputContext) -> bool:
    return context.has_asset_key and context.has_asset_partitions
