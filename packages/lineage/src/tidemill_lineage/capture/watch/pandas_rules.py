"""What pandas operations on frames and series make of what they are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch.op import Op, assumed
from tidemill_lineage.capture.watch.seen import NOTHING, SUM, VALUE, Seen
from tidemill_lineage.capture.watch.trail import names_of

_WORD = re.compile(r"`([^`]+)`|(?<![@\w.])([A-Za-z_]\w*)")


def same(op: Op) -> Seen:
    """The columns as they are, of the same or fewer rows."""
    return op.seen.picked(op.labels()) if op.labels() != op.seen.names else op.seen


def each(op: Op) -> Seen:
    """Column by column; an argument that is a frame goes by name, any other reaches every column."""
    return _columnwise(op, [*op.args, *op.kwargs.values()], VALUE)


def operator(op: Op) -> Seen | Influences:
    """An arithmetic operator or comparison."""
    if op.result is NotImplemented:
        return NOTHING
    return each(op)


def _columnwise(op: Op, arguments: list[Any], how: str) -> Seen:
    found = op.seen.acted(how)
    if op.labels() != found.names:
        same_count = len(op.labels()) == len(found.names) == 1
        found = found.renamed(op.labels()) if same_count else found.picked(op.labels(), lambda _: NOTHING)
    for argument in arguments:
        found = _joined(op, found, argument, how)
    return found


def _joined(op: Op, found: Seen, argument: Any, how: str) -> Seen:
    other = op.trail.see(argument)
    if other is None:
        extra = flow.act(_of_plain(op, argument), how)
        return (
            found if not extra else replace(found, values=tuple(flow.combine([each, extra]) for each in found.values))
        )
    if _is_frame(argument):
        parts = [flow.act(other.get(name), how) if name in other.names else NOTHING for name in found.names]
    else:
        parts = [flow.act(other.all(), how)] * len(found.names)
    found = replace(found, values=tuple(flow.combine(pair) for pair in zip(found.values, parts, strict=True)))
    if other.index == op.seen.index and other.rows == op.seen.rows:
        return found
    # rows of different origin meet by their labels
    return found.with_rows(other.rows, flow.act(other.labels(), "JOIN"), flow.act(op.seen.labels(), "JOIN"))


def _of_plain(op: Op, argument: Any) -> Influences:
    """An argument that is no frame: a dict may be keyed by column, which is read as if it were not."""
    return op.of(argument)


def total(op: Op) -> Seen | Influences:
    """One value a column, or one a row."""
    over_rows = op.kwargs.get("axis", op.args[0] if op.args and op.name not in _FIRST_IS_NOT_AXIS else 0) in (
        0,
        "index",
        None,
    )
    summed = flow.combine([flow.act(op.seen.all(), SUM), flow.act(op.seen.rows, "FILTER"), op.of_arguments()])
    if not over_rows:
        return Seen(op.labels(), (flow.combine([flow.act(op.seen.all(), VALUE)]),), op.seen.rows, op.seen.index)
    if op.name in ("idxmax", "idxmin"):
        summed = flow.combine([summed, flow.act(op.seen.labels(), VALUE)])
    if _is_frame(op.me) and not _is_frame(op.result):
        op.trail.note(op.result, Seen(op.labels(), (summed,), NOTHING, {_BY_COLUMN: NOTHING}))
        return Seen(op.labels(), (summed,))
    return summed


_BY_COLUMN = "\0columns"
_FIRST_IS_NOT_AXIS = frozenset({"quantile", "agg", "aggregate", "describe"})


def aggregated(op: Op) -> Seen | Influences:
    """`agg` of a frame or a series: by name where the result keeps the names."""
    if _is_frame(op.result):
        summed = op.seen.acted(SUM)
        return replace(summed.picked(op.labels(), lambda _: flow.act(op.seen.all(), "AGGREGATION?")), index={})
    return total(op)


def where(op: Op) -> Seen:
    """`where` and `mask`: the condition decides, the other value flows."""
    condition, other = op.arg("cond", 0), op.arg("other", 1)
    found = _columnwise(op, [other] if other is not None else [], VALUE)
    decided = _joined(op, replace(found, values=(NOTHING,) * len(found.names)), condition, VALUE)
    chosen = [flow.act(value, "CONDITIONAL") for value in decided.values]
    values = tuple(flow.combine(pair) for pair in zip(found.values, chosen, strict=True))
    return replace(found, values=values, rows=flow.combine([found.rows, decided.rows]))


def getitem(op: Op) -> Seen | Influences:
    """``frame[...]``: a column, some columns, or rows by a mask or a slice."""
    key = op.args[0]
    seen = op.seen
    if _is_frame(op.me) and not isinstance(key, slice):
        if _is_frame(key):
            return where(op)
        if not _is_mask(key) and not callable(key):
            if _is_frame(op.result):
                return seen.picked(op.labels())
            return replace(seen, names=op.labels(), values=(seen.get(key) if key in seen.names else seen.all(),))
    chosen = flow.act(_by(op, key) if not callable(key) else seen.all(), "FILTER?" if callable(key) else "FILTER")
    if not _is_mask(key) and not isinstance(key, slice):
        chosen = flow.combine([chosen, flow.act(seen.labels(), "FILTER")])
    found = same(op) if names_of(op.result) is not None else seen
    return found.with_rows(chosen, _rows_of(op, key))


def located(op: Op) -> Seen | Influences:
    """``frame.loc[rows, columns]`` and ``iloc``."""
    key = op.args[0]
    rows, columns = _pair(key)
    by_label = "iloc" not in type(op.me).__name__.lower()
    seen = op.seen
    chosen = flow.act(_by(op, rows) if not callable(rows) else seen.all(), "FILTER")
    if by_label and not _is_mask(rows) and not (isinstance(rows, slice) and rows == slice(None)):
        chosen = flow.combine([chosen, flow.act(seen.labels(), "FILTER")])
    if len(seen.names) == 1 and not _is_frame(op.me.obj):
        return seen.with_rows(chosen, _rows_of(op, rows))
    if _is_frame(op.result):
        return seen.picked(op.labels()).with_rows(chosen, _rows_of(op, rows))
    value = _cell(seen, columns, by_label=by_label)
    return Seen(op.labels(), (value,), seen.rows, seen.index).with_rows(chosen, _rows_of(op, rows))


def _cell(seen: Seen, columns: Any, *, by_label: bool) -> Influences:
    if by_label and _is_label(columns) and columns in seen.names:
        return seen.get(columns)
    if not by_label and isinstance(columns, int) and abs(columns) <= len(seen.values):
        return seen.values[columns]
    return seen.all()


def set_located(op: Op) -> None:
    """``frame.loc[rows, columns] = value``."""
    key, value = op.args
    frame = op.me.obj
    before = op.seen
    rows, columns = _pair(key)
    by_label = "iloc" not in type(op.me).__name__.lower()
    chosen = flow.act(op.of(rows) if not callable(rows) else before.all(), "CONDITIONAL")
    if by_label and not _is_mask(rows) and not (isinstance(rows, slice) and rows == slice(None)):
        chosen = flow.combine([chosen, flow.act(before.labels(), "CONDITIONAL")])
    put = flow.combine([flow.act(op.of(value), VALUE), chosen, flow.act(_rows_of(op, value), "CONDITIONAL")])
    touched = _touched(before, columns, by_label=by_label)
    names = names_of(frame) or before.names
    old = dict(zip(before.names, before.values, strict=True))
    values = [
        flow.combine([old.get(name, NOTHING), put if name in touched or name not in old else NOTHING]) for name in names
    ]
    op.trail.note(frame, replace(before, names=names, values=tuple(values)))


def _touched(seen: Seen, columns: Any, *, by_label: bool) -> set[Hashable]:
    if isinstance(columns, slice):
        return set(seen.names)
    wanted = list(columns) if isinstance(columns, (list, tuple)) else [columns]
    if not by_label:
        return {seen.names[each] for each in wanted if isinstance(each, int) and abs(each) <= len(seen.names)} or set(
            seen.names
        )
    try:
        return set(wanted)
    except TypeError:
        return set(seen.names)


def setitem(op: Op) -> None:
    """``frame["z"] = value``, and ``insert``; a mask as the key puts values where it is true."""
    key, value = op.args[:2]
    if op.name == "insert":
        key, value = op.arg("column", 1), op.arg("value", 2)
    before, names = op.seen, names_of(op.me) or op.seen.names
    wanted: list[Any] = list(key) if isinstance(key, list) and not _is_mask(key) else [key]
    old = dict(zip(before.names, before.values, strict=True))
    is_masked = _is_mask(key) or _is_frame(key)
    new = _put(op, value)
    if is_masked or isinstance(key, slice):
        chosen = flow.combine([new, flow.act(op.of(key), "CONDITIONAL")])
        values: list[Influences] = [flow.combine([old.get(name, NOTHING), chosen]) for name in names]
    else:
        by_name = op.trail.see(value) if _is_frame(value) else None
        fresh = dict(zip(wanted, by_name.values, strict=False)) if by_name is not None else {}
        values = [fresh.get(name, new) if name in wanted else old.get(name, NOTHING) for name in names]
    op.trail.note(op.me, replace(before, names=names, values=tuple(values)))


def setattr_(op: Op) -> None:
    """``frame.a = value`` for a column, and ``frame.index = labels``."""
    name, value = op.args
    if name == "index":
        op.trail.note(op.me, replace(op.seen, index={getattr(value, "name", None): _put(op, value)}))
    elif name in op.seen.names and name in (names_of(op.me) or ()) and _is_frame(op.me):
        old = dict(zip(op.seen.names, op.seen.values, strict=True))
        values = [_put(op, value) if each == name else old[each] for each in op.seen.names]
        op.trail.note(op.me, replace(op.seen, values=tuple(values)))


def _put(op: Op, value: Any) -> Influences:
    other = op.trail.see(value)
    if other is None:
        return op.of(value)
    if other.index == op.seen.index and other.rows == op.seen.rows:
        return other.all()
    met = flow.combine([other.labels(), op.seen.labels()])
    # what chose the rows of both is said of the frame already
    more = {origin: how for origin, how in other.rows.items() if not how <= op.seen.rows.get(origin, frozenset())}
    return flow.combine([other.all(), flow.act(more, "FILTER"), flow.act(met, "JOIN")])


def _by(op: Op, key: Any) -> Influences:
    """What a mask or labels are made of; what chose their own rows is another matter (`_rows_of`)."""
    other = op.trail.see(key)
    return op.of(key) if other is None else other.all()


def _rows_of(op: Op, key: Any) -> Influences:
    """What chose the rows of a key, where they are not those of the operand."""
    other = op.trail.see(key)
    if other is None or other.rows == op.seen.rows:
        return NOTHING
    return other.rows


def popped(op: Op) -> Seen:
    """``pop``, which takes the column away too: the frame heals itself when it is seen next."""
    name = op.arg("item", 0)
    op.trail.note(op.me, op.seen.picked(names_of(op.me) or ()))
    return replace(op.seen, names=(name,), values=(op.seen.get(name),))


def sorted_by(op: Op) -> Seen:
    """Rows in the order of columns: `sort_values`, `nlargest`, `nsmallest`."""
    by = op.arg("columns", 1) if op.name in ("nlargest", "nsmallest") else op.arg("by", 0)
    return same(op).with_rows(flow.act(_named(op, by), "SORT"), _counted(op, by))


def filtered_by(op: Op, how: str = "FILTER") -> Seen | Influences:
    """Rows kept or dropped by columns: `dropna`, `drop_duplicates`, `duplicated`."""
    subset = op.arg("subset", 0) if op.name != "dropna" else op.kwargs.get("subset")
    deciding = op.seen.all() if subset is None else _named(op, subset)
    if op.name == "dropna" and op.arg("axis", 99, 0) in (1, "columns"):
        return same(op)
    if op.name == "duplicated":
        return Seen(op.labels(), (flow.act(deciding, VALUE),), op.seen.rows, op.seen.index)
    return same(op).with_rows(flow.act(deciding, "GROUP_BY" if op.name == "drop_duplicates" else how))


def by_index(how: str) -> Callable[[Op], Seen]:
    """Rows ordered, chosen or placed by the index."""

    def rule(op: Op) -> Seen:
        return same(op).with_rows(flow.act(op.seen.labels(), how), flow.act(op.of_arguments(skip=("columns",)), how))

    return rule


def reindexed(op: Op) -> Seen:
    """`reindex`: rows by labels, or other columns."""
    found = op.seen.picked(op.labels(), lambda _: NOTHING)
    labels = [v for k, v in op.kwargs.items() if k not in ("columns", "axis", "method")] + list(op.args)
    given = flow.combine(map(op.of, labels))
    return replace(found.with_rows(flow.act(found.labels(), "JOIN")), index={None: given} if labels else found.index)


def queried(op: Op) -> Seen | Influences:
    """`query` and `eval`: the columns that the expression names."""
    text = str(op.arg("expr", 0))
    words = {found[1] or found[2] for found in _WORD.finditer(text)}
    named = flow.combine(found for word in words if (found := op.seen.find(word)) is not None)
    if "index" in words:
        named = flow.combine([named, op.seen.labels()])
    local = op.trail.left() if "@" in text else NOTHING
    if op.name == "query":
        return same(op).with_rows(flow.act(flow.combine([named, local]), "FILTER"))
    made = flow.act(flow.combine([named, local]), VALUE)
    if _is_frame(op.result):
        assigned = {each.strip() for each in re.findall(r"(?m)^\s*(\w+)\s*=(?!=)", text)}
        whole = op.seen.picked(op.labels(), lambda _: made)
        values = [made if name in assigned else value for name, value in zip(whole.names, whole.values, strict=True)]
        return replace(whole, values=tuple(values))
    return replace(op.seen, names=op.labels(), values=(made,))


def renamed(op: Op) -> Seen:
    """The same columns under other labels."""
    labels = op.labels()
    return op.seen.renamed(labels) if len(labels) == len(op.seen.names) else op.seen.picked(labels)


def dropped(op: Op) -> Seen:
    """`drop` of columns, or of rows by their label."""
    found = op.seen.picked(op.labels())
    rows = op.kwargs.get("index", op.arg("labels", 0) if op.arg("axis", 1, 0) in (0, "index") else None)
    if rows is None:
        return found
    return found.with_rows(flow.act(flow.combine([op.of(rows), op.seen.labels()]), "FILTER"))


def index_set(op: Op) -> Seen:
    """`set_index`: columns become levels of the index."""
    keys = op.arg("keys", 0)
    found = op.seen.picked(op.labels())
    parts = list(keys) if isinstance(keys, list) else [keys]
    levels: dict[Hashable, Influences] = dict(op.seen.index) if op.kwargs.get("append") else {}
    for part in parts:
        is_label = isinstance(part, Hashable) and part in op.seen.names
        levels[part if is_label else getattr(part, "name", None)] = op.seen.get(part) if is_label else op.of(part)
    return replace(found, index=levels)


def index_reset(op: Op) -> Seen:
    """`reset_index`: levels of the index become columns."""
    labels = op.labels()
    if op.kwargs.get("drop") or labels == op.seen.names:
        return replace(op.seen, index={})
    levels = op.seen.index
    if len(op.seen.names) == 1 and not _is_frame(op.me):
        # a series under a name of its own
        count = len(labels) - 1
        values = [levels.get(name, op.seen.labels()) for name in labels[:count]] + [op.seen.all()]
        return Seen(labels, tuple(values), op.seen.rows)
    return replace(op.seen.picked(labels, lambda name: levels.get(name, op.seen.labels())), index={})


def melted(op: Op) -> Seen:
    """`melt`: columns under one another."""
    me = op.seen if op.me is not None else op.trail.table(op.args[0])
    kept, taken = op.arg("id_vars", 0), op.arg("value_vars", 1)
    kept_names = _listed(kept)
    names = _listed(taken) if taken is not None else [name for name in me.names if name not in kept_names]
    value = flow.act(flow.combine(map(me.get, names)), VALUE)
    variable = op.arg("var_name", 2) or "variable"
    return me.picked(op.labels(), lambda name: NOTHING if name == variable else value)


def pivoted(op: Op) -> Seen:
    """`pivot` and `pivot_table`: values spread over columns that other values name."""
    me = op.seen
    index, columns, values = (_listed(op.kwargs.get(name)) for name in ("index", "columns", "values"))
    if op.args:
        return _all_columns(op)
    values = values or [name for name in me.names if name not in index and name not in columns]
    how = SUM if op.name == "pivot_table" else VALUE
    by = flow.combine([flow.combine(map(me.get, columns)), flow.combine(map(me.get, index))])
    spread = flow.act(flow.combine(map(me.get, columns)), "CONDITIONAL")
    made = []
    for label in op.labels():
        own = [name for name in values if isinstance(label, tuple) and name in label] or values
        made.append(flow.combine([flow.act(flow.combine(map(me.get, own)), how), spread]))
    levels = {name: me.get(name) for name in index} or dict(me.index)
    return Seen(op.labels(), tuple(made), flow.combine([me.rows, flow.act(by, "GROUP_BY")]), levels)


def exploded(op: Op) -> Seen:
    """`explode`: lists become rows."""
    wanted = _listed(op.arg("column", 0)) if _is_frame(op.me) else list(op.seen.names)
    lengths = flow.act(flow.combine(map(op.seen.get, wanted)), "FILTER")
    values = [flow.act(v, VALUE) if n in wanted else v for n, v in zip(op.seen.names, op.seen.values, strict=True)]
    return replace(op.seen, values=tuple(values)).with_rows(lengths)


def counted(op: Op) -> Seen:
    """`value_counts`: how often each value is there."""
    by = flow.act(op.seen.all(), "GROUP_BY")
    levels = dict(zip(op.seen.names, op.seen.values, strict=True))
    return Seen(op.labels(), (flow.act(op.seen.all(), SUM),), flow.combine([op.seen.rows, by]), levels)


def mapped(op: Op) -> Seen:
    """`map` and `apply` of a series, `map` of a frame: a value each; a function may use what left the frames."""
    return _columnwise(op, [*op.args, *op.kwargs.values()], VALUE)


def spread(op: Op) -> Seen:
    """Every column of the result may be made of all of the operand: `stack`, `unstack`, `get_dummies`."""
    return _all_columns(op)


def _all_columns(op: Op) -> Seen:
    everything = flow.act(flow.combine([op.seen.all(), op.seen.labels(), op.of_arguments()]), VALUE)
    labels = op.labels()
    return Seen(labels, (everything,) * len(labels), op.seen.rows, {None: op.seen.labels()})


def applied(op: Op) -> Seen | Influences:
    """`apply` of a frame: along the rows all columns may go into each result; along the columns each by itself."""
    axis = op.arg("axis", 1, 0)
    more = op.of_arguments()
    if axis in (0, "index"):
        if _is_frame(op.result) and op.labels() == op.seen.names:
            return _columnwise(op, [*op.args[:1]], VALUE)
        return flow.act(flow.combine([op.seen.all(), more]), "AGGREGATION?")
    made = flow.act(flow.combine([op.seen.all(), more]), "TRANSFORMATION?")
    labels = op.labels()
    return Seen(labels, (made,) * len(labels), op.seen.rows, op.seen.index)


def left_alone(op: Op) -> Influences:
    """All values leave the frames for plain Python."""
    return flow.combine([op.seen.all(), op.seen.labels() if op.name in _WITH_INDEX else NOTHING, op.seen.rows])


_WITH_INDEX = frozenset(
    {"to_dict", "items", "iterrows", "itertuples", "to_records", "reset_index", "to_json", "to_string"}
)


def sized(op: Op) -> Influences:
    """How many rows there are is decided by what chose them."""
    return flow.act(op.seen.rows, "FILTER")


def of_itself(op: Op) -> None:
    """An accessor or an indexer: what it works on."""
    op.trail.note(op.result, op.seen)


def index_of(op: Op) -> Seen | None:
    """The index of a frame, as one column."""
    if not op.seen.index and not op.seen.rows:
        return Seen((None,), (NOTHING,))
    return Seen((None,), (op.seen.labels(),), op.seen.rows)


def columns_alone(op: Op) -> None:
    """Labels of columns are no data."""


def through(op: Op) -> Seen:
    """An accessor's operation: column by column; what becomes a frame is made of the one column."""
    found = _columnwise(op, [*op.args, *op.kwargs.values()], VALUE) if not _is_frame(op.result) else None
    if found is not None:
        return found
    everything = flow.act(op.seen.all(), VALUE)
    return Seen(op.labels(), (everything,) * len(op.labels()), op.seen.rows, op.seen.index)


def constructed(op: Op) -> None:
    """``pd.DataFrame(data)``, ``pd.Series(data)``: by name where the data is a dict or a frame."""
    op.trail.come_in("pandas")
    data = op.arg("data", 0)
    names = names_of(op.me) or ("",)
    source = op.trail.see(data) if not isinstance(data, dict) else None
    if source is not None:
        if len(source.names) == len(names) == 1:
            source = source.renamed(names)
        op.trail.note(op.me, source.picked(names))
        return
    if isinstance(data, dict) and set(names) <= set(data):
        parts = [op.trail.see(data[name]) for name in names]
        values = tuple(op.of(data[name]) for name in names)
        seen = [each for each in parts if each is not None]
        rows = flow.combine(each.rows for each in seen)
        op.trail.note(op.me, Seen(names, values, rows, seen[0].index if seen else {}))
        return
    if data is not None and type(data).__name__ == "BlockManager":
        return
    everything = op.of(data)
    op.trail.note(op.me, Seen(names, (everything,) * len(names), NOTHING, {None: op.of(op.arg("index", 1))}))


def unknown(op: Op) -> Influences:
    """An operation without a rule."""
    return assumed(op)


def _named(op: Op, by: Any) -> Influences:
    """What reaches the columns or levels that are named; a key that is a series stands for itself."""
    found = []
    for part in _listed(by):
        known = op.seen.find(part) if isinstance(part, Hashable) else None
        found.append(op.of(part) if known is None else known)
    return flow.combine(found)


def _counted(op: Op, by: Any) -> Influences:
    parts = [each for each in (*op.args, *op.kwargs.values()) if each is not by]
    return flow.act(flow.combine(map(op.of, parts)), "FILTER") if parts else NOTHING


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame"


def _pair(key: Any) -> tuple[Any, Any]:
    """Rows and columns of what stands in the brackets."""
    if isinstance(key, tuple) and len(key) == len(("rows", "columns")):
        return key[0], key[1]
    return key, slice(None)


def _is_label(key: Any) -> bool:
    return isinstance(key, Hashable) and type(key).__name__ != "slice"


def _is_mask(key: Any) -> bool:
    if isinstance(key, list):
        return bool(key) and all(type(each).__name__ in ("bool", "bool_") for each in key)
    kind = getattr(key, "dtype", None)
    return kind is not None and str(kind) in ("bool", "boolean", "bool[pyarrow]")
