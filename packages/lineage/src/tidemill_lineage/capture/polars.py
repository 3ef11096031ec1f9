"""Read column edges from a polars LazyFrame, without running it.

First the plan is walked as the user wrote it (no optimisation). Polars does not promise that
interface, so it is used only for versions it was tested with, and whatever the walker does not
know is left to the probe: ask the optimiser, column by column, which inputs it still needs. Where
that fails too, edges join whole datasets; each edge names its method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow
from tidemill_lineage.capture.reading import Readings
from tidemill_lineage.errors import CaptureError, UnsupportedPlan
from tidemill_lineage.model import DatasetUrn, Edge, Method

if TYPE_CHECKING:
    import polars as pl

PROBE_COLUMNS = 200
"""Widest output that is probed; the probe costs one optimisation per column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What was found: the edges, how, and why nothing finer."""

    edges: tuple[Edge, ...]
    method: Method
    reason: str = ""


def capture(
    result: pl.LazyFrame,
    inputs: Mapping[DatasetUrn, pl.LazyFrame] | Sequence[tuple[DatasetUrn, pl.LazyFrame]],
    *,
    output: DatasetUrn,
    made: Sequence[tuple[pl.LazyFrame, pl.DataFrame]] = (),
    job: str = "",
    columns: Sequence[str] | None = None,
    readings: Readings | None = None,
    probe_columns: int = PROBE_COLUMNS,
) -> Capture:
    """Find the edges from `inputs` to the columns of `result`. Never collects.

    Args:
        result: The frame a transformation returned.
        inputs: The frames it was given, by the URN of what they hold. Files that the plan scans by
            itself are named by their own URL.
        output: URN of what `result` becomes.
        made: Frames that were collected on the way, each with the plan it came from.
        readings: What else was seen of the call.
        job: Name put on the edges.
        columns: Names of the output's columns, if they differ from the frame's.
        probe_columns: Do not probe wider outputs than this.
    """
    from tidemill_lineage.capture.polars_plan import walk
    from tidemill_lineage.capture.polars_probe import probe

    pairs = list(inputs.items()) if isinstance(inputs, Mapping) else list(inputs)
    names = list(columns) if columns is not None else result.collect_schema().names()
    try:
        literal = readings.literal if readings is not None else None
        found = walk(result, pairs, readings.made if readings is not None else made, literal)
        return _captured(found, output, names, "plan", job, "", readings)
    except Exception as error:  # noqa: BLE001  # a private interface of polars: anything may come out of it; the probe is next
        reason = _why(error)
    if len(names) > probe_columns:
        reason += f"; {len(names)} columns are more than the {probe_columns} that are probed"
        return Capture(edges=whole(dict(pairs), output=output, job=job), method="declared", reason=reason)
    try:
        return _captured(probe(result, pairs), output, names, "probe", job, reason, readings)
    except Exception as error:  # noqa: BLE001  # as above; what is left is the declared inputs
        return Capture(
            edges=whole(dict(pairs), output=output, job=job), method="declared", reason=f"{reason}; {_why(error)}"
        )


def whole(inputs: Mapping[DatasetUrn, Any], *, output: DatasetUrn, job: str = "") -> tuple[Edge, ...]:
    """Join datasets as wholes: all that can be said without looking inside."""
    return tuple(
        Edge(source=urn, target=output, kind="DIRECT", subtype="TRANSFORMATION", method="declared", job=job)
        for urn in inputs
        if urn != output
    )


def _captured(
    found: Flow, output: DatasetUrn, names: list[str], method: Method, job: str, reason: str, readings: Readings | None
) -> Capture:
    if len(found.columns) != len(names):
        raise CaptureError(f"{len(found.columns)} columns found, {len(names)} expected")
    if readings is not None:
        decided = flow.combine([found.rows, readings.deciding()])
        found = flow.substituted(Flow(found.columns, decided, found.inputs), readings.known())
    edges = flow.edges(found, target=output, names=names, method=method, job=job)
    return Capture(edges=tuple(sorted(set(edges))), method=method, reason=reason)


def _why(error: BaseException) -> str:
    if isinstance(error, UnsupportedPlan):
        return str(error)
    return f"{type(error).__name__}: {error}"
