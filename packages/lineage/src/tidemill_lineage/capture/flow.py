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
"""How each origin acts: at most one DIRECT subtype, and any INDIRECT ones.

A question mark at the end of a subtype says that the influence is assumed: an operation that is not known may
use all it was given.
"""

ASSUMED = "?"
_DIRECT = ("IDENTITY", "TRANSFORMATION", "AGGREGATION")
_RANKS = {"IDENTITY": 0, "TRANSFORMATION?": 1, "TRANSFORMATION": 2, "AGGREGATION?": 3, "AGGREGATION": 4}


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known at one node: each column's influences, the influences on its rows, and its inputs."""

    columns: Mapping[str, Influences]
    rows: Influences = field(default_factory=dict)
    inputs: frozenset[DatasetUrn] = frozenset()
    is_table: bool = False
    """Whether this is a base table, which may have columns that are not listed here."""
    spread: Influences = field(default_factory=dict)
    """What reaches columns that cannot be listed; empty if all are."""


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
    if subtype not in _RANKS:
        sure = frozenset({subtype})
        unsure = frozenset({subtype.rstrip(ASSUMED) + ASSUMED})
        return {origin: unsure if _is_assumed(how) else sure for origin, how in influences.items()}
    return {
        origin: _strongest(frozenset(_max(each, subtype) if each in _RANKS else each for each in subtypes))
        for origin, subtypes in influences.items()
    }


def substituted(flow: Flow, known: Mapping[DatasetUrn, Flow]) -> Flow:
    """Replace origins that are themselves results by what those are made from."""
    if not known:
        return flow
    used = sorted((flow.inputs | origins(flow)) & known.keys())
    if not used:
        return flow
    rows = [flow.rows, *(known[urn].rows for urn in used)]
    return Flow(
        {name: _through(each, known) for name, each in flow.columns.items()},
        combine(_through(each, known) for each in rows),
        flow.inputs.difference(known).union(*(known[urn].inputs for urn in used)),
        spread=_through(flow.spread, known),
    )


def origins(flow: Flow) -> frozenset[DatasetUrn]:
    """The datasets that anything in a flow comes from."""
    return frozenset(urn for each in (*flow.columns.values(), flow.rows, flow.spread) for urn, _ in each)


def _through(influences: Influences, known: Mapping[DatasetUrn, Flow]) -> Influences:
    if not any(urn in known for urn, _ in influences):
        return influences
    found: list[Influences] = []
    for (urn, column), subtypes in influences.items():
        if urn not in known:
            found.append({(urn, column): subtypes})
            continue
        found += [_below(known[urn], column, subtype) for subtype in subtypes]
    return combine(found)


def _below(source: Flow, column: str, subtype: str) -> Influences:
    """What stands behind a column of a result, or behind the result as a whole."""
    if column and column in source.columns:
        return act(source.columns[column], subtype)
    if subtype.rstrip(ASSUMED) == "TRANSFORMATION" or column:
        return act(combine([*source.columns.values(), source.rows]), subtype)
    # its rows are counted, or each meets each of another
    return {(urn, ""): frozenset({subtype}) for urn in origins(source) | source.inputs}


def edges(flow: Flow, *, target: DatasetUrn, names: Sequence[str], method: Method, job: str = "") -> Iterator[Edge]:
    """Spell a flow out as edges to `target`, whose columns are `names` in the order of the flow's."""
    for name, influences in zip(names, flow.columns.values(), strict=True):
        for (source, column), subtypes in influences.items():
            for subtype in subtypes:
                # a whole dataset whose values may flow: nothing finer could be read
                is_assumed = subtype.endswith(ASSUMED) or (not column and subtype == "TRANSFORMATION")
                yield Edge(
                    target=target, target_column=name, source=source, source_column=column,
                    kind=kind_of(subtype), subtype=subtype.rstrip(ASSUMED), job=job,
                    method="assumed" if is_assumed else method,
                )  # fmt: skip
    # of columns that cannot be listed no more is known than that they are of the target
    for (source, column), subtypes in (*flow.rows.items(), *act(flow.spread, "TRANSFORMATION?").items()):
        for subtype in subtypes:
            yield Edge(
                target=target, source=source, source_column=column,
                kind=kind_of(subtype), subtype=subtype.rstrip(ASSUMED), job=job,
                method="assumed" if subtype.endswith(ASSUMED) else method,
            )  # fmt: skip


def kind_of(subtype: str) -> Kind:
    """Say whether values flow (DIRECT) or rows are chosen (INDIRECT)."""
    return "DIRECT" if subtype.rstrip(ASSUMED) in _DIRECT else "INDIRECT"


def base(urn: DatasetUrn, names: Iterable[str]) -> Flow:
    """Start a flow at an input: each column is itself."""
    return Flow({name: {(urn, name): frozenset({"IDENTITY"})} for name in names}, {}, frozenset({urn}))


def _max(left: str, right: str) -> str:
    stronger = max(left.rstrip(ASSUMED), right.rstrip(ASSUMED), key=_DIRECT.index)
    if left.endswith(ASSUMED) or right.endswith(ASSUMED):
        return ("TRANSFORMATION" if stronger == "IDENTITY" else stronger) + ASSUMED
    return stronger


def _strongest(subtypes: frozenset[str]) -> frozenset[str]:
    """Keep one direct subtype, and of an indirect one that is both sure and assumed the sure one."""
    if len(subtypes) == 1:
        return subtypes
    direct = sorted((each for each in subtypes if each in _RANKS), key=_RANKS.__getitem__)
    return frozenset(
        each for each in subtypes if each not in direct[:-1] and not (each.endswith(ASSUMED) and each[:-1] in subtypes)
    )


def _is_assumed(subtypes: frozenset[str]) -> bool:
    return all(each.endswith(ASSUMED) for each in subtypes)
