"""Runs from what a program says itself: events announced through core's hooks, or a mapping of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tidemill_core.lineage_hooks import DataEvent

from tidemill_lineage.model import Column, Dataset, DatasetUrn, Edge, Run, split_column


def from_event(event: DataEvent, *, run_id: str, at: float) -> Run:
    """Turn an announced read or write into a run.

    Args:
        event: What was announced.
        run_id: The run it belongs to, if the event does not say.
        at: When, in seconds since the epoch.
    """
    columns = tuple(Column(name=each.name, type=each.type) for each in event.columns)
    dataset = Dataset(urn=event.dataset, columns=columns, asset_key=event.asset_key or "")
    if event.kind == "read":
        return Run(
            id=event.run_id or run_id, job=event.job, started_at=at, ended_at=at, reads=(dataset,), rows=event.rows
        )
    return Run(
        id=event.run_id or run_id,
        job=event.job,
        started_at=at,
        ended_at=at,
        reads=tuple(Dataset(urn=urn) for urn in event.inputs),
        writes=(dataset,),
        edges=_event_edges(event),
        rows=event.rows,
    )


def _event_edges(event: DataEvent) -> tuple[Edge, ...]:
    """Columns that name their sources give column edges; an input none of them names is joined as a whole."""
    found = [
        (urn, source, column.name) for column in event.columns for urn, source in column.sources if urn != event.dataset
    ]
    named = {urn for urn, _, _ in found}
    found += [(urn, "", "") for urn in event.inputs if urn not in named and urn != event.dataset]
    return tuple(
        Edge(
            source=urn, source_column=source, target=event.dataset, target_column=target,
            kind="DIRECT", subtype="TRANSFORMATION", method="declared", job=event.job,
        )
        for urn, source, target in dict.fromkeys(found)
    )  # fmt: skip


def declare(
    *,
    job: str,
    output: DatasetUrn,
    columns: Mapping[str, Iterable[str]],
    rows: Iterable[str] = (),
    run_id: str = "declared",
    at: float = 0.0,
) -> Run:
    """Write lineage down by hand, for work that no capture can see into.

    Args:
        job: Name of the job.
        output: URN of what it writes.
        columns: Output column -> the ``urn#column`` (or ``urn``) it is computed from.
        rows: ``urn#column`` that decide which rows there are.
        run_id: Run it belongs to.
        at: When, in seconds since the epoch.
    """
    edges = [
        Edge(
            source=split_column(source)[0], source_column=split_column(source)[1], target=output, target_column=name,
            kind="DIRECT", subtype="TRANSFORMATION", method="declared", job=job,
        )
        for name, sources in columns.items()
        for source in sources
    ]  # fmt: skip
    edges += [
        Edge(
            source=split_column(source)[0], source_column=split_column(source)[1], target=output,
            kind="INDIRECT", subtype="FILTER", method="declared", job=job,
        )
        for source in rows
    ]  # fmt: skip
    return Run(
        id=run_id,
        job=job,
        started_at=at,
        ended_at=at,
        reads=tuple(Dataset(urn=urn) for urn in sorted({edge.source for edge in edges})),
        writes=(Dataset(urn=output, columns=tuple(Column(name=name) for name in columns)),),
        edges=tuple(sorted(edges)),
    )
