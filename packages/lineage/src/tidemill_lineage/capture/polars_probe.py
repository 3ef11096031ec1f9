"""Ask polars' optimiser, column by column, which inputs it still needs.

What survives projection pushdown for one output column is all that can influence it. Only leaves
are looked at, so a plan with opaque Python functions can be probed too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.polars_leaves import column_keys, scanned_urns
from tidemill_lineage.model import DatasetUrn

if TYPE_CHECKING:
    import polars as pl

_Names = Mapping[Hashable, list[flow.Origin]]


def probe(result: pl.LazyFrame, inputs: Sequence[tuple[DatasetUrn, pl.LazyFrame]]) -> Flow:
    """Find which input columns each output column needs.

    A column that is needed to know even the number of rows counts as INDIRECT, unless the output
    has a column of that name.

    Raises:
        UnsupportedPlan: A leaf of the plan is not known.
    """
    import polars as pl

    names = _input_columns(inputs)
    known = [urn for urn, _ in inputs]
    rows = _needed(result.select(pl.len()), names, known, "FILTER")
    columns: dict[str, Influences] = {}
    for name in result.collect_schema().names():
        found = _needed(result.select(pl.col(name)), names, known, "TRANSFORMATION")
        columns[name] = {origin: how for origin, how in found.items() if origin not in rows or origin[1] == name}
    return Flow(columns, rows, frozenset(known))


def _needed(
    frame: pl.LazyFrame, names: _Names, inputs: Sequence[DatasetUrn], subtype: str
) -> dict[flow.Origin, frozenset[str]]:
    found: dict[flow.Origin, frozenset[str]] = {}
    for node, schema in _leaves(frame._ldf.visit()):  # noqa: SLF001  # leaves only
        files = scanned_urns(node)
        for column, key in column_keys(node, schema).items():
            # a frame that is none of the inputs was made from them, or from nothing: all of them, as wholes
            for origin in names.get(key) or [(urn, column) for urn in files] or [(urn, "") for urn in inputs]:
                found[origin] = frozenset({subtype})
    return found


def _input_columns(inputs: Sequence[tuple[DatasetUrn, pl.LazyFrame]]) -> _Names:
    """Map every column of every leaf of the inputs to the input's columns that hang on it."""
    names: dict[Hashable, list[flow.Origin]] = {}
    for urn, frame in inputs:
        for name in frame.collect_schema().names():
            for node, schema in _leaves(frame.select(name)._ldf.visit()):  # noqa: SLF001  # leaves only
                for key in column_keys(node, schema).values():
                    names.setdefault(key, []).append((urn, name))
    return names


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
