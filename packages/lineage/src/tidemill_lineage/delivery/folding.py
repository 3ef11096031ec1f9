"""Fold what one job did in one run into one run: many calls, one record with a count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tidemill_lineage.model import Column, Dataset, DatasetUrn, Run


def fold(runs: Iterable[Run]) -> list[Run]:
    """Unite runs that share id, job and state, in the order of their first.

    What failed stays apart from what was done, because a failed call says nothing of the graph.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.id, run.job, run.state), []).append(run)
    return [parts[0] if len(parts) == 1 else _united(parts) for parts in groups.values()]


def _united(parts: Sequence[Run]) -> Run:
    last = max(parts, key=lambda part: part.ended_at)
    rows = [part.rows for part in parts if part.rows is not None]
    return replace(
        last,
        started_at=min(part.started_at for part in parts),
        ended_at=last.ended_at,
        reads=united(part.reads for part in parts),
        writes=united(part.writes for part in parts),
        edges=tuple(sorted({edge for part in parts for edge in part.edges})),
        rows=sum(rows) if rows else None,
        calls=sum(part.calls for part in parts),
    )


def united(groups: Iterable[Iterable[Dataset]]) -> tuple[Dataset, ...]:
    """Unite datasets by URN; their columns add up, and one with a type wins."""
    found: dict[DatasetUrn, Dataset] = {}
    for dataset in (each for group in groups for each in group):
        known = found.get(dataset.urn)
        found[dataset.urn] = dataset if known is None or known == dataset else _add(known, dataset)
    return tuple(found[urn] for urn in sorted(found))


def _add(known: Dataset, more: Dataset) -> Dataset:
    columns: dict[str, Column] = {each.name: each for each in known.columns}
    for each in more.columns:
        if each.type or each.name not in columns:
            columns[each.name] = each
    return Dataset(urn=known.urn, columns=tuple(columns.values()), asset_key=more.asset_key or known.asset_key)
