"""Which operations of polars are watched: what is collected, and what leaves a frame as a series or as values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch import files
from tidemill_lineage.capture.watch.op import Door, Op, Rule, current, function_door, method_door
from tidemill_lineage.capture.watch.seen import NOTHING, Seen
from tidemill_lineage.capture.watch.trail import Trail

_MOST_MADE = 200
"""Collections noted in one call; a loop that collects more keeps no more frames alive."""
_COLLECTING = ("collect", "_collect_eager")
_COLUMN = "get_column to_series drop_in_place"
_LEAVING = (
    "item rows row iter_rows to_dicts to_dict rows_by_key to_numpy get_columns iter_columns iter_slices"
    " partition_by glimpse"
)
_MIXING = "transpose map_rows describe corr fold"
"""Operations that bypass the lazy engine, and whose columns may be made of all."""
_TO_OTHERS = "to_pandas to_arrow __arrow_c_stream__"


def doors() -> Mapping[str, list[Door]]:
    """The doors of the polars that is loaded: those of frames, and of the series that come out of them."""
    import polars as pl

    found: list[Door | None] = []
    for name in _COLLECTING:
        original = vars(pl.LazyFrame).get(name)
        if original is not None:
            found.append(Door(pl.LazyFrame, name, _collecting(original, pl)))
    table: dict[Rule, str] = {_column: _COLUMN, _left: _LEAVING, _item: "__getitem__", _converted: _TO_OTHERS,
        _mixed: _MIXING, _spread: "to_dummies", _stacked: "extend vstack",
    }  # fmt: skip
    for rule, names in table.items():
        found += [method_door(pl.DataFrame, name, rule) for name in names.split()]
    found += [function_door(pl, name, _from_other) for name in ("from_pandas", "from_arrow")]
    found += [method_door(pl.DataFrame, "__init__", _constructed)]
    deep = [method_door(pl.Series, name, _series) for name in _series_names(pl.Series)]
    entry = [*(each for each in found if each is not None), *files.polars_doors(pl)]
    return {"entry": entry, "deep": [each for each in deep if each is not None]}


def _collecting(original: Callable[..., Any], polars: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def collect(frame: Any, *args: Any, **kwargs: Any) -> Any:
        trail = current.get()
        if trail is None:
            return original(frame, *args, **kwargs)
        # one collection may call another inside polars: only the outer is the user's
        token = current.set(None)
        try:
            result = original(frame, *args, **kwargs)
        finally:
            current.reset(token)
        if len(trail.made) < _MOST_MADE:
            # as it is now: the function may change it in place
            trail.made.append((frame, result.clone() if isinstance(result, polars.DataFrame) else result))
        return result

    return collect


def _series_names(kind: type) -> list[str]:
    operators = (
        "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow and or xor eq ne lt le gt ge"
    )
    own = [f"__{each}__" for each in operators.split()] + [
        "__iter__",
        "__array__",
        "__getitem__",
        "__contains__",
        "__invert__",
        "__neg__",
    ]
    skipped = {"name", "dtype", "shape", "flags", "plot", "str", "dt", "list", "cat", "struct", "arr", "bin", "ext"}
    return own + [each for each in dir(kind) if not each.startswith("_") and each not in skipped]


def whole(trail: Trail, frame: Any, names: Any = None) -> Seen:
    """A polars frame as an origin: its plan says later what it is made of."""
    return Seen.base(trail.stand_in(frame), frame.columns if names is None else names)


def _column(op: Op) -> Seen:
    op.trail.come_in("polars")
    return whole(op.trail, op.me, [op.result.name])


def _left(op: Op) -> Influences:
    op.trail.come_in("polars")
    return whole(op.trail, op.me).all()


def _item(op: Op) -> Seen | Influences | None:
    kind = type(op.result).__name__
    if kind == "Series":
        return _column(op) if op.result.name in op.me.columns else whole(op.trail, op.me).acted("TRANSFORMATION").all()
    # a frame is told by its memory
    return None if kind == "DataFrame" else _left(op)


def _mixed(op: Op) -> Influences | None:
    made = flow.act(op.seen.all(), "TRANSFORMATION?" if op.name in ("map_rows", "fold") else "TRANSFORMATION")
    if type(op.result).__name__ != "DataFrame":
        return made
    names = tuple(op.result.columns)
    op.trail.explain(op.result, Seen(names, (made,) * len(names)))
    return None


def _spread(op: Op) -> None:
    names = tuple(op.result.columns)
    made = []
    for name in names:
        sources = [each for each in op.seen.names if name == each or name.startswith(f"{each}_")]
        made.append(flow.act(flow.combine(map(op.seen.get, sources or op.seen.names)), "TRANSFORMATION"))
    op.trail.explain(op.result, Seen(names, tuple(made)))


def _stacked(op: Op) -> None:
    """Under one another, by position; `extend` changes the frame itself."""
    other = op.trail.table(op.arg("other", 0))
    values = tuple(flow.combine(pair) for pair in zip(op.seen.values, other.values, strict=True))
    op.trail.explain(op.result, Seen(op.seen.names, values))


def _converted(op: Op) -> Seen:
    op.trail.come_in("pandas" if op.name == "to_pandas" else "pyarrow")
    seen = whole(op.trail, op.me)
    op.trail.remember(op.result, seen)
    return seen


def _series(op: Op) -> Seen | Influences | None:
    if op.result is NotImplemented or op.name in ("len", "is_empty"):
        return None
    name = getattr(op.result, "name", "")
    if op.name in ("alias", "rename", "clone", "rechunk") or (op.name == "to_frame"):
        kept = op.seen.all()
    else:
        kept = flow.act(flow.combine([op.seen.all(), op.seen.rows, op.of_arguments()]), "TRANSFORMATION")
    kind = type(op.result).__name__
    if kind == "DataFrame":
        op.trail.explain(op.result, Seen(tuple(op.result.columns), (kept,) * op.result.width))
        return None
    if kind in ("Series", "ndarray"):
        return Seen((name,), (kept,))
    return kept


def _from_other(op: Op) -> None:
    source = op.args[0] if op.args else next(iter(op.kwargs.values()))
    seen = op.trail.table(source)
    columns = tuple(getattr(op.result, "columns", ()))
    if columns:
        levels = dict(seen.index)
        op.trail.explain(op.result, seen.picked(columns, lambda name: levels.get(name, seen.all())))


def _constructed(op: Op) -> None:
    """``pl.DataFrame(data)`` of what left other frames."""
    data = op.arg("data", 0)
    names = tuple(op.me.columns)
    if isinstance(data, dict) and set(names) <= set(data):
        values = tuple(op.of(data[name]) for name in names)
    else:
        source = op.trail.see(data)
        if source is not None:
            op.trail.explain(op.me, source.picked(names))
            return
        values = (op.of(data) if data is not None else NOTHING,) * len(names)
    if any(values):
        op.trail.explain(op.me, Seen(names, values))
