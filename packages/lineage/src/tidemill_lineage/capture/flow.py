"""Influences inside one transformation: which input columns reach which output column, and how.

A `Flow` is what holds at one point of a plan. It is polars-free, so that SQL uses it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidemill_lineage.model import DatasetUrn, Edge, Kind, Method

Origin = tuple[DatasetUrn, str]
"""An input dataset and its column; an empty column means the rows of the dataset."""

Influences = Mapping[Origin, frozenset[str]]
"""How each origin acts: at most one DIRECT subtype, and any INDIRECT ones."""

_DIRECT = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known at one node: each column's influences, the influences on its rows, and its inputs."""

    columns: Mapping[str, Influences]
    rows: Influences = field(default_factory=dict)
    inputs: frozenset[DatasetUrn] = frozenset()
    is_table: bool = False
    """Whether this is a base table, which may have columns that are not listed here."""


def combine(found: Iterable[Influences]) -> dict[Origin, frozenset[str]]:
    """Unite influences; the strongest direct subtype of an origin wins."""
    merged: dict[Origin, frozenset[str]] = {}
    for influences in found:
        for origin, subtypes in influences.items():
            old = merged.get(origin)
            merged[origin] = subtypes if old is None else _strongest(old | subtypes)
    return merged


def act(influences: Influences, subtype: str) -> dict[Origin, frozenset[str]]:
    """Send influences on through one more step, such as an aggregation or a filter."""
    if subtype == "IDENTITY":
        return dict(influences)
    if subtype not in _DIRECT:
        return dict.fromkeys(influences, frozenset({subtype}))
    return {
        origin: _strongest(frozenset(_max(each, subtype) if each in _DIRECT else each for each in subtypes))
        for origin, subtypes in influences.items()
    }


def edges(flow: Flow, *, target: DatasetUrn, names: Sequence[str], method: Method, job: str = "") -> Iterator[Edge]:
    """Spell a flow out as edges to `target`, whose columns are `names` in the order of the flow's."""
    for name, influences in zip(names, flow.columns.values(), strict=True):
        for (source, column), subtypes in influences.items():
            for subtype in subtypes:
                yield Edge(
                    target=target, target_column=name, source=source, source_column=column,
                    kind=kind_of(subtype), subtype=subtype, job=job,
                    # a whole dataset whose values may flow: nothing finer could be read
                    method=method if column or subtype != "TRANSFORMATION" else "declared",
                )  # fmt: skip
    for (source, column), subtypes in flow.rows.items():
        for subtype in subtypes:
            yield Edge(
                target=target, source=source, source_column=column,
                kind=kind_of(subtype), subtype=subtype, method=method, job=job,
            )  # fmt: skip


def kind_of(subtype: str) -> Kind:
    """Say whether values flow (DIRECT) or rows are chosen (INDIRECT)."""
    return "DIRECT" if subtype in _DIRECT else "INDIRECT"


def base(urn: DatasetUrn, names: Iterable[str]) -> Flow:
    """Start a flow at an input: each column is itself."""
    return Flow({name: {(urn, name): frozenset({"IDENTITY"})} for name in names}, {}, frozenset({urn}))


def _max(left: str, right: str) -> str:
    return max(left, right, key=_DIRECT.index)


def _strongest(subtypes: frozenset[str]) -> frozenset[str]:
    direct = [each for each in _DIRECT if each in subtypes]
    return subtypes - frozenset(direct[:-1]) if len(direct) > 1 else subtypes
