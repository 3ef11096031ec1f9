"""Which operations of pyarrow are watched.

Its tables are written in C and take no doors, but they call `pyarrow.compute` and `pyarrow.acero` to compute, and
those do. What needs no computing (select, slice, rename, append) shares memory, by which a column is known again.
Values that leave for plain Python are not seen: whatever may be made of them stands for all inputs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch import files
from tidemill_lineage.capture.watch.op import Door, Op, Rule, function_door
from tidemill_lineage.capture.watch.seen import NOTHING, SUM, VALUE, Seen
from tidemill_lineage.capture.watch.trail import names_of

_SUMS = frozenset(
    [
        "sum",
        "mean",
        "min",
        "max",
        "min_max",
        "count",
        "count_distinct",
        "any",
        "all",
        "first",
        "last",
        "first_last",
        "product",
        "stddev",
        "variance",
        "quantile",
        "tdigest",
        "mode",
        "approximate_median",
        "index",
        "kurtosis",
        "skew",
        "winsorize",
        "pivot_wider",
    ]
)
_NO_DATA = frozenset(
    [
        "field",
        "scalar",
        "get_function",
        "list_functions",
        "register_scalar_function",
        "register_vector_function",
        "call_tabular_function",
        "register_tabular_function",
        "register_aggregate_function",
        "function_registry",
        "namedtuple",
        "wraps",
    ]
)
_WORD = re.compile(r"\w+")


def doors() -> Mapping[str, list[Door]]:
    """The doors of the pyarrow that is loaded."""
    import pyarrow.compute as pc

    found: list[Door | None] = []
    for name, value in list(vars(pc).items()):
        if callable(value) and not name.startswith("_") and not isinstance(value, type) and name not in _NO_DATA:
            found.append(function_door(pc, name, _rule_of(name)))
    try:
        from pyarrow import acero
    except ImportError:
        acero = None  # built without it: joins and groups are assumed
    table: dict[str, Rule] = {
        "_filter_table": _filtered, "_group_by": _grouped, "_perform_join": _joined,
        "_perform_join_asof": _joined_asof, "_sort_source": _sorted,
    }  # fmt: skip
    found += [function_door(acero, name, rule) for name, rule in table.items() if acero is not None]
    import pyarrow.pandas_compat as compat

    entry = [
        function_door(compat, "table_to_dataframe", _to_pandas),
        function_door(compat, "dataframe_to_arrays", _from_pandas),
    ]
    readers = files.arrow_doors(sys.modules)
    return {
        "deep": [each for each in found if each is not None],
        "entry": [*(each for each in entry if each is not None), *readers],
    }


def _rule_of(name: str) -> Rule:
    if name in ("filter", "take", "array_filter", "array_take", "drop_null", "list_flatten"):
        return _chosen
    if name in ("sort_indices", "array_sort_indices", "partition_nth_indices", "select_k_unstable", "rank"):
        return _ordered
    return {"if_else": _decided, "case_when": _decided, "call_function": _called}.get(name, _computed)


def _computed(op: Op) -> Seen | Influences:
    how = SUM if op.name in _SUMS else VALUE
    found = flow.act(op.of_arguments(), how)
    rows = flow.combine(seen.rows for each in op.args if (seen := op.trail.see(each)) is not None)
    if op.name in _SUMS or op.name in ("unique", "value_counts"):
        found = flow.combine([found, flow.act(rows, "FILTER")])
    return _told(op, Seen(op.labels(), (found,) * len(op.labels()), rows))


def _called(op: Op) -> Seen | Influences:
    """``call_function(name, arguments)``, the way of methods such as `unique`."""
    inner = Op(op.trail, str(op.args[0]), (None, *op.args[1]), {})
    inner.result = op.result
    rule = _rule_of(inner.name)
    found = rule(inner)
    return found if found is not None else NOTHING


def _told(op: Op, seen: Seen) -> Seen | Influences:
    op.trail.remember(op.result, seen)
    return seen


def _chosen(op: Op) -> Seen | Influences:
    """Rows by a mask or by their numbers."""
    seen = op.trail.table(op.args[0])
    others = [*op.args[1:2], *(v for k, v in op.kwargs.items() if k in ("selection_filter", "mask", "indices"))]
    # without any it is drop_null or list_flatten
    chosen = flow.combine(map(op.of, others)) if others else seen.all()
    return _told(op, seen.with_rows(flow.act(chosen, "FILTER")))


def _ordered(op: Op) -> Seen | Influences:
    """The numbers of rows in the order of some columns."""
    seen = op.trail.table(op.args[0])
    keys = op.kwargs.get("sort_keys") or (op.args[1] if len(op.args) > 1 else None)
    named = [each[0] for each in keys if isinstance(each, tuple)] if isinstance(keys, list) else []
    by = flow.combine(map(seen.get, named)) if named else seen.all()
    return _told(op, Seen(("",), (flow.act(by, VALUE),), seen.rows))


def _decided(op: Op) -> Seen | Influences:
    condition = flow.act(op.of(op.args[0]), "CONDITIONAL")
    values = flow.act(flow.combine(map(op.of, op.args[1:])), VALUE)
    rows = flow.combine(seen.rows for each in op.args if (seen := op.trail.see(each)) is not None)
    return _told(op, Seen(("",), (flow.combine([condition, values]),), rows))


def _filtered(op: Op) -> Seen | Influences:
    seen = op.trail.table(op.args[0])
    words = set(_WORD.findall(str(op.args[1])))
    named = flow.combine(seen.get(name) for name in seen.names if set(_WORD.findall(str(name))) <= words)
    # a number in the expression may have been computed
    return _told(op, seen.with_rows(flow.act(named or seen.all(), "FILTER"), flow.act(op.trail.left(), "FILTER?")))


def _grouped(op: Op) -> Seen | Influences:
    seen, aggregates, keys = op.trail.table(op.args[0]), op.args[1], op.arg("keys", 2)
    keys = [keys] if isinstance(keys, str) else list(keys or ())
    made: dict[Hashable, Influences] = {each: seen.get(each) for each in keys}
    for each in aggregates:
        targets = each[0] if isinstance(each[0], (list, tuple)) else [each[0]]
        made[each[3]] = flow.act(flow.combine(map(seen.get, targets)), SUM)
    rows = flow.act(flow.combine(map(seen.get, keys)), "GROUP_BY")
    names = op.labels()
    values = tuple(made.get(name, flow.act(seen.all(), "AGGREGATION?")) for name in names)
    return _told(op, Seen(names, values, flow.combine([seen.rows, rows])))


def _joined(op: Op) -> Seen | Influences:
    _, left, left_on, right, right_on = op.args[:5]
    how, suffixes = str(op.args[0]), (op.kwargs.get("left_suffix"), op.kwargs.get("right_suffix"))
    return _joined_by(op, how, (left, _listed(left_on)), (right, _listed(right_on)), suffixes)


def _joined_asof(op: Op) -> Seen | Influences:
    left, left_on, left_by, right, right_on, right_by = op.args[:6]
    sides = (left, [*_listed(left_on), *_listed(left_by)]), (right, [*_listed(right_on), *_listed(right_by)])
    return _joined_by(op, "left outer", *sides, (None, op.kwargs.get("right_suffix")))


def _joined_by(
    op: Op, how: str, left: tuple[Any, list[str]], right: tuple[Any, list[str]], suffixes: tuple[Any, Any]
) -> Seen | Influences:
    mine, theirs = op.trail.table(left[0]), op.trail.table(right[0])
    both = dict(zip(left[1], right[1], strict=False))

    def value(name: Hashable) -> Influences:
        if name in both and "full" in how:
            return flow.act(flow.combine([mine.get(name), theirs.get(both[name])]), VALUE)
        if name in both and "right" in how:
            return theirs.get(both[name])
        for side, suffix in ((mine, suffixes[0]), (theirs, suffixes[1])):
            if suffix and str(name).endswith(suffix) and (plain := str(name)[: -len(suffix)]) in side.names:
                return side.get(plain)
        if name in mine.names and (name not in theirs.names or not suffixes[0]):
            return mine.get(name)
        return flow.combine([mine.get(name), theirs.get(name)])

    keys = [*map(mine.get, left[1]), *map(theirs.get, right[1])]
    rows = flow.combine([mine.rows, theirs.rows, flow.act(flow.combine(keys), "JOIN")])
    return _told(op, Seen(op.labels(), tuple(value(name) for name in op.labels()), rows))


def _sorted(op: Op) -> Seen | Influences:
    seen, keys = op.trail.table(op.args[0]), op.arg("sort_keys", 1)
    named = [each[0] if isinstance(each, tuple) else each for each in _listed(keys)]
    return _told(op, seen.with_rows(flow.act(flow.combine(map(seen.get, named)), "SORT")))


def _to_pandas(op: Op) -> Seen:
    """A pandas frame of a table: the same columns, some of them as its index."""
    op.trail.come_in("pandas")
    table = next((each for each in op.args if names_of(each) is not None and type(each).__name__ == "Table"), None)
    seen = op.trail.table(table)
    levels = {name: seen.get(name) for name in getattr(op.result.index, "names", ()) if name in seen.names}
    return replace(seen.picked(op.labels(), lambda _: NOTHING), index=levels)


def _from_pandas(op: Op) -> None:
    """The arrays of a pandas frame: known by their memory when they are a table."""
    op.trail.come_in("pyarrow")
    seen = op.trail.table(op.args[0])
    for array, name in zip(op.result[0], op.result[1].names, strict=True):
        reached = seen.find(name)
        found = flow.combine([seen.labels()]) if reached is None else reached
        op.trail.remember(array, Seen(("",), (found,), seen.rows))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
