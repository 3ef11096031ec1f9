"""What pandas makes of two frames or more: merge, join, concat."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch.op import Op
from tidemill_lineage.capture.watch.seen import NOTHING, VALUE, Seen, united
from tidemill_lineage.capture.watch.trail import is_tabular, names_of

_MERGE = ("right", "how", "on", "left_on", "right_on", "left_index", "right_index", "sort", "suffixes")


def merged(op: Op) -> Seen:
    """`merge`, as a method or as ``pd.merge``, and its as-of and ordered kinds."""
    given = dict(zip(_MERGE, op.args, strict=False)) | dict(op.kwargs)
    left, right = op.seen, op.trail.table(given["right"])
    if op.name in ("merge_asof", "merge_ordered"):
        given = {name: op.kwargs.get(name) for name in op.kwargs} | {
            "how": "left" if op.name == "merge_asof" else "outer"
        }
    how = given.get("how") or "inner"
    by = _listed(given.get("by"))
    left_on = _listed(given.get("on")) + _listed(given.get("left_on")) + by + _listed(given.get("left_by"))
    right_on = _listed(given.get("on")) + _listed(given.get("right_on")) + by + _listed(given.get("right_by"))
    on_index = (bool(given.get("left_index")), bool(given.get("right_index")))
    if not left_on and not right_on and not any(on_index) and how != "cross":
        left_on = right_on = [name for name in left.names if name in right.names]
    mine = [left.labels() if on_index[0] else NOTHING, *(_key(op, left, each) for each in left_on)]
    theirs = [right.labels() if on_index[1] else NOTHING, *(_key(op, right, each) for each in right_on)]
    decided = flow.act(flow.combine([*mine, *theirs]), "JOIN")
    shared = {a for a, b in zip(left_on, right_on, strict=False) if _same(a, b)}
    names = _Names(left, right, shared, how, tuple(given.get("suffixes") or ("_x", "_y")))
    values = tuple(names.value(label) for label in op.labels())
    index: dict[Hashable, Influences] = {None: flow.combine([*mine, *theirs])} if any(on_index) else {}
    for level in set(left.index) & set(right.index) if all(on_index) else ():
        index = {level: flow.combine([left.index[level], right.index[level]])}
    return Seen(op.labels(), values, flow.combine([left.rows, right.rows, decided]), index)


class _Names:
    """Which side a column of a merge comes from."""

    def __init__(self, left: Seen, right: Seen, shared: set[Any], how: str, suffixes: tuple[Any, ...]) -> None:
        self.left, self.right, self.shared, self.how, self.suffixes = left, right, shared, how, suffixes

    def value(self, label: Hashable) -> Influences:
        if label in self.shared:
            return self._key(label)
        in_left, in_right = label in self.left.names, label in self.right.names
        if in_left and in_right and self.suffixes:
            return self.left.get(label) if not self.suffixes[0] else self.right.get(label)
        if in_left or in_right:
            return self.left.get(label) if in_left else self.right.get(label)
        for suffix, side in zip(self.suffixes, (self.left, self.right), strict=False):
            plain = label[: -len(suffix)] if suffix and isinstance(label, str) and label.endswith(suffix) else None
            if plain is not None and plain in side.names:
                return side.get(plain)
        levels = [side.index[label] for side in (self.left, self.right) if label in side.index]
        # an indicator says which side had the key: what decides the rows decides it
        return flow.combine(levels)

    def _key(self, label: Hashable) -> Influences:
        mine, theirs = self.left.find(label) or NOTHING, self.right.find(label) or NOTHING
        if self.how in ("inner", "left", "cross"):
            return mine
        return theirs if self.how == "right" else flow.act(flow.combine([mine, theirs]), VALUE)


def joined(op: Op) -> Seen:
    """`join`: by the index of the others, or a column of the first."""
    given = op.arg("other", 0)
    others = [op.trail.table(each) for each in (given if isinstance(given, (list, tuple)) else [given])]
    on = _listed(op.arg("on", 1))
    keys = [_key(op, op.seen, each) for each in on] if on else [op.seen.labels()]
    decided = flow.act(flow.combine([*keys, *(each.labels() for each in others)]), "JOIN")
    suffixes = (op.arg("lsuffix", 3, ""), op.arg("rsuffix", 4, ""))
    parts = [op.seen, *others]
    values = []
    for label in op.labels():
        plain = next((label[: -len(s)] for s in suffixes if s and isinstance(label, str) and label.endswith(s)), label)
        side = parts if plain == label else [op.seen] if suffixes[0] and str(label).endswith(suffixes[0]) else others
        values.append(flow.combine(each.get(plain) for each in side))
    rows = flow.combine([*(each.rows for each in parts), decided])
    how = op.arg("how", 2, "left")
    met: dict[Hashable, Influences] = {None: flow.combine(each.labels() for each in parts)}
    return Seen(op.labels(), tuple(values), rows, op.seen.index if how == "left" else met)


def concatenated(op: Op) -> Seen:
    """``pd.concat``: under one another by name, or beside one another by index."""
    given = op.arg("objs", 0)
    values = list(given.values()) if isinstance(given, dict) else list(given)
    parts = [op.trail.table(each) for each in values if is_tabular(each)]
    labels = names_of(op.result) or ("",)
    keys = op.of(op.kwargs["keys"]) if "keys" in op.kwargs else NOTHING
    if op.arg("axis", 1, 0) in (0, "index"):
        parts = [each.renamed(labels) if len(labels) == len(each.names) == 1 else each for each in parts]
        found = united(parts, labels)
        return replace(found, index={**found.index, None: keys}) if keys else found
    flat = [(name, value) for each in parts for name, value in zip(each.names, each.values, strict=True)]
    made = (
        tuple(value for _, value in flat)
        if len(flat) == len(labels)
        else (flow.combine(v for _, v in flat),) * len(labels)
    )
    rows = [each.rows for each in parts]
    if any(each.index != parts[0].index or each.rows != parts[0].rows for each in parts):
        rows += [flow.act(each.labels(), "JOIN") for each in parts]
    return Seen(labels, made, flow.combine(rows), parts[0].index)


def combined(op: Op) -> Seen:
    """`combine_first`, `update`, `combine`: of both, by name."""
    other = op.trail.table(op.args[0] if op.args else op.kwargs["other"])
    met = flow.act(flow.combine([op.seen.labels(), other.labels()]), "JOIN")
    target = op.me if op.result is None else op.result
    names = names_of(target) or op.seen.names
    seen = united([op.seen.acted(VALUE), other.acted(VALUE)], names)
    if len(names) == 1 and len(other.names) == 1:
        seen = replace(seen, values=(flow.act(flow.combine([op.seen.all(), other.all()]), VALUE),))
    found = replace(seen, index=op.seen.index).with_rows(met)
    if op.result is None:
        op.trail.note(op.me, found)
    return found


def as_method(op: Op) -> Op:
    """A function that takes its operand first, such as ``pd.merge``, seen as the method."""
    operand = op.args[0] if op.args else next(iter(op.kwargs.values()))
    keywords = dict(op.kwargs) if op.args else dict(list(op.kwargs.items())[1:])
    found = Op(op.trail, op.name, (operand, *op.args[1:]), keywords)
    found.result = op.result
    return found


def _key(op: Op, seen: Seen, key: Any) -> Influences:
    known = seen.find(key) if isinstance(key, Hashable) else None
    return op.of(key) if known is None else known


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, Hashable) and isinstance(b, Hashable) and a == b


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
