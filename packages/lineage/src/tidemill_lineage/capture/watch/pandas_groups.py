"""What pandas makes of groups and windows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch.op import Op
from tidemill_lineage.capture.watch.seen import NOTHING, SUM, VALUE, Seen
from tidemill_lineage.capture.watch.trail import names_of


def grouped(op: Op) -> Seen:
    """`groupby`: the operand, and what it is grouped by."""
    by, level = op.arg("by", 0), op.kwargs.get("level")
    keys: dict[Hashable, Influences] = {}
    for part in by if isinstance(by, (list, tuple)) else [by] if by is not None else []:
        known = op.seen.find(part) if isinstance(part, Hashable) else None
        name = part if known is not None else getattr(part, "name", None)
        keys[name] = known if known is not None else op.of(part)
    if level is not None:
        for part in level if isinstance(level, (list, tuple)) else [level]:
            keys[part] = op.seen.index.get(part, op.seen.labels())
    return replace(op.seen, keys=keys)


def windowed(op: Op) -> Seen:
    """`rolling`, `expanding`, `ewm`, `resample`: windows over the rows, or over a column `on`."""
    on = op.kwargs.get("on")
    over = op.seen.get(on) if on is not None else op.seen.labels()
    keys = {on: over} if over else {}
    if op.seen.keys:  # windows inside groups
        keys = {**op.seen.keys, **keys}
    return replace(op.seen, keys=keys)


def selected(op: Op) -> Seen:
    """``grouped["a"]``, ``grouped[["a", "b"]]``."""
    key = op.args[0]
    names = list(key) if isinstance(key, (list, tuple)) and key not in op.seen.names else [key]
    return op.seen.picked(names)


def attribute(op: Op) -> Seen | None:
    """``grouped.a``."""
    name = op.args[0]
    if name in op.seen.names and not hasattr(type(op.me), name):
        return op.seen.picked([name])
    return None


def reduced(op: Op) -> Seen:
    """One row a group."""
    rows = flow.combine([op.seen.rows, flow.act(_keys(op), "GROUP_BY")])
    asked = _asked(op)
    values = tuple(_reduced(op, label, asked) for label in op.labels())
    return Seen(op.labels(), values, rows, dict(op.seen.keys or {}) if _has_key_index(op) else {})


def _asked(op: Op) -> Mapping[Hashable, Any]:
    """What `agg` was asked for, by the result's label."""
    first = op.args[0] if op.args else None
    named = {name: each[0] for name, each in op.kwargs.items() if isinstance(each, tuple) and each}
    columns = {name: name for name in first} if isinstance(first, dict) else {}
    return {**columns, **named}


def _reduced(op: Op, label: Hashable, asked: Mapping[Hashable, Any]) -> Influences:
    seen, keys = op.seen, op.seen.keys or {}
    if op.name == "size" and label not in keys:
        return NOTHING  # only the groups decide it
    source = asked.get(label, label)
    if source in seen.names and (source not in keys or source in asked.values()):
        return flow.act(seen.get(source), SUM)
    if label in keys:
        return keys[label]
    if isinstance(label, tuple) and label and label[0] in (*seen.names, *keys):
        return (
            flow.act(seen.get(label[0]), SUM)
            if label[0] in seen.names and len(label) > 1 and label[1]
            else keys.get(label[0], NOTHING)
        )
    more = op.of_arguments() if asked or op.name in ("apply", "agg", "aggregate", "pipe") else NOTHING
    how = SUM if len(seen.names) == 1 else "AGGREGATION?"
    return flow.act(flow.combine([seen.all(), more]), how)


def transformed(op: Op) -> Seen:
    """As many rows as before, or some of each group: each value by its column and the group it is in."""
    window = flow.act(_keys(op), "WINDOW")
    if op.name in ("cumcount", "ngroup"):
        return Seen(op.labels(), (window,), op.seen.rows, op.seen.index)
    labels = op.labels()
    found = op.seen.acted(VALUE if op.name != "transform" else SUM)
    found = found.renamed(labels) if len(labels) == len(found.names) == 1 else found.picked(labels)
    more = op.of_arguments()
    values = tuple(flow.combine([each, window, flow.act(more, VALUE)]) for each in found.values)
    return replace(found, values=values, keys=None)


def picked(op: Op) -> Seen:
    """Some rows of each group: `head`, `tail`, `nth`, `filter`, `sample`."""
    labels = op.labels()
    chosen = flow.act(_keys(op), "GROUP_BY")
    if op.name == "filter":
        chosen = flow.combine([chosen, flow.act(op.seen.all(), "FILTER?"), flow.act(op.of_arguments(), "FILTER")])
    found = op.seen.picked(labels, lambda name: (op.seen.keys or {}).get(name, NOTHING))
    return replace(found, keys=None).with_rows(chosen)


def applied(op: Op) -> Seen:
    """`apply` with a function: any column may go into any other."""
    made = flow.act(flow.combine([op.seen.all(), op.of_arguments()]), "AGGREGATION?")
    rows = flow.combine([op.seen.rows, flow.act(_keys(op), "GROUP_BY")])
    labels = names_of(op.result) or ("",)
    keys = op.seen.keys or {}
    values = tuple(keys[name] if name in keys and name not in op.seen.names else made for name in labels)
    return Seen(labels, values, rows, dict(keys))


def rolled(op: Op) -> Seen:
    """A value of each window: column by column, what places the windows decides."""
    window = flow.act(_keys(op), "WINDOW")
    labels = op.labels()
    found = op.seen.acted(SUM)
    found = (
        found.renamed(labels)
        if len(labels) == len(found.names) == 1
        else found.picked(labels, lambda _: flow.act(op.seen.all(), "AGGREGATION?"))
    )
    values = tuple(flow.combine([each, window]) for each in found.values)
    index = {**{k: v for k, v in (op.seen.keys or {}).items() if k not in labels}, **op.seen.index}
    return replace(found, values=values, index=index, keys=None)


def _keys(op: Op) -> Influences:
    return flow.combine((op.seen.keys or {}).values())


def _has_key_index(op: Op) -> bool:
    index = getattr(op.result, "index", None)
    return index is not None and set(getattr(index, "names", ())) & set(op.seen.keys or {}) != set()
