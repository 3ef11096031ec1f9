"""Ask polars' optimiser, column by column, which inputs it still needs.

What survives projection pushdown for one output column is all that can influence it. Only leaves
are looked at, so a plan with opaque Python functions can be probed too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.polars_leaves import leaf_columns, leaf_key, scanned_urns
from tidemill_lineage.errors import UnsupportedPlan
from tidemill_lineage.model import DatasetUrn

if TYPE_CHECKING:
    import polars as pl

_Names = Mapping[Hashable, list[tuple[DatasetUrn, Mapping[str, list[str]] | None]]]


def probe(result: pl.LazyFrame, inputs: Mapping[DatasetUrn, pl.LazyFrame]) -> Flow:
    """Find which input columns each output column needs.

    A column that is needed to know even the number of rows counts as INDIRECT, unless the output
    has a column of that name.

    Raises:
        UnsupportedPlan: A leaf of the plan is not known.
    """
    import polars as pl

    names = _leaf_names(inputs)
    rows = _needed(result.select(pl.len()), names, "FILTER")
    columns: dict[str, Influences] = {}
    for name in result.collect_schema().names():
        found = _needed(result.select(pl.col(name)), names, "TRANSFORMATION")
        columns[name] = {origin: how for origin, how in found.items() if origin not in rows or origin[1] == name}
    return Flow(columns, rows, frozenset(inputs))


def _needed(frame: pl.LazyFrame, names: _Names, subtype: str) -> dict[flow.Origin, frozenset[str]]:
    found: dict[flow.Origin, frozenset[str]] = {}
    for node, schema in _leaves(frame._ldf.visit()):
        columns = leaf_columns(node)
        for origin in _origins(node, schema if columns is None else columns, names):
            found[origin] = frozenset({subtype})
    return found


def _origins(node: Any, columns: list[str], names: _Names) -> Iterator[flow.Origin]:
    key = leaf_key(node)
    if key is None:
        raise UnsupportedPlan(f"leaf {type(node).__name__} is not known")
    known = names.get(key, [(urn, None) for urn in scanned_urns(node)])
    for urn, renamed in known:
        for column in columns:
            yield from ((urn, each) for each in ([column] if renamed is None else renamed.get(column, [])))


def _leaf_names(inputs: Mapping[DatasetUrn, pl.LazyFrame]) -> _Names:
    """Map every leaf of every input to the input's URN, and its columns to the input's columns."""
    names: dict[Hashable, list[tuple[DatasetUrn, Mapping[str, list[str]] | None]]] = {}
    for urn, frame in inputs.items():
        visitor: Any = frame._ldf.visit()
        key = leaf_key(visitor.view_current_node()) if not visitor.get_inputs() else None
        if key is not None:
            names.setdefault(key, []).append((urn, None))
            continue
        for leaf, renamed in _through(frame).items():
            names.setdefault(leaf, []).append((urn, renamed))
    return names


def _through(frame: pl.LazyFrame) -> dict[Hashable, dict[str, list[str]]]:
    """For an input that is a plan itself: which of its columns hang on which column of its leaves."""
    found: dict[Hashable, dict[str, list[str]]] = {}
    for name in frame.collect_schema().names():
        for node, schema in _leaves(frame.select(name)._ldf.visit()):
            columns = leaf_columns(node)
            for column in schema if columns is None else columns:
                found.setdefault(leaf_key(node), {}).setdefault(column, []).append(name)
    return found


def _leaves(visitor: Any) -> Iterator[tuple[Any, list[str]]]:
    inputs = visitor.get_inputs()
    if not inputs:
        yield visitor.view_current_node(), list(visitor.get_schema())
        return
    here = visitor.get_node()
    for each in inputs:
        visitor.set_node(each)
        yield from _leaves(visitor)
    visitor.set_node(here)
