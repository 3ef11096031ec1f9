"""Which operations of pandas are watched, and by which rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tidemill_lineage.capture.watch import files
from tidemill_lineage.capture.watch import pandas_groups as groups
from tidemill_lineage.capture.watch import pandas_joins as joins
from tidemill_lineage.capture.watch import pandas_rules as rules
from tidemill_lineage.capture.watch.op import Door, Op, Rule, function_door, method_door
from tidemill_lineage.capture.watch.seen import Seen

VERSIONS = (2, 3)
"""Major versions of pandas that the rules were tested with; others are not watched."""

_OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow and rand or ror xor rxor"
    " eq ne lt le gt ge"
)
_SIGNS = "__abs__ __neg__ __pos__ __invert__ __round__"
_TABLE: Mapping[Rule, str] = {
    rules.same: "copy head tail sample infer_objects convert_dtypes set_flags filter get select select_dtypes"
    " add_prefix add_suffix reorder_levels swaplevel droplevel rename_axis squeeze tz_localize"
    " tz_convert to_period to_timestamp repeat take",
    rules.each: "abs round astype fillna ffill bfill interpolate shift diff cumsum cummax cummin cumprod pct_change"
    " rank clip replace isna isnull notna notnull isin transform add radd sub subtract rsub mul multiply"
    " rmul div divide truediv rdiv rtruediv floordiv rfloordiv mod rmod pow rpow eq ne lt le gt ge"
    " between map case_when autocorr factorize",
    rules.total: "sum prod product mean median min max std var sem skew kurt kurtosis count nunique quantile all"
    " any idxmax idxmin mode corr cov dot item is_unique hasnans is_monotonic_increasing"
    " is_monotonic_decreasing argmax argmin equals first_valid_index last_valid_index",
    rules.aggregated: "agg aggregate describe",
    rules.where: "where mask",
    rules.getitem: "__getitem__",
    rules.setitem: "__setitem__ insert",
    rules.setattr_: "__setattr__",
    rules.popped: "pop",
    rules.sorted_by: "sort_values nlargest nsmallest",
    rules.filtered_by: "dropna drop_duplicates duplicated",
    rules.by_index("SORT"): "sort_index",
    rules.by_index("FILTER"): "truncate at_time between_time asof xs",
    rules.reindexed: "reindex",
    rules.queried: "query eval",
    rules.renamed: "rename set_axis",
    rules.dropped: "drop",
    rules.index_set: "set_index",
    rules.index_reset: "reset_index to_frame",
    rules.melted: "melt",
    rules.pivoted: "pivot pivot_table",
    rules.exploded: "explode",
    rules.counted: "value_counts",
    rules.spread: "stack unstack transpose T unique searchsorted",
    rules.left_alone: "to_numpy to_list tolist to_dict to_records values array items iterrows itertuples __iter__"
    " __array__ __dataframe__ __arrow_c_stream__ __float__ __int__ __bool__ __contains__ at iat"
    " to_string",
    rules.sized: "shape size empty __len__",
    rules.of_itself: "loc iloc str dt cat list struct",
    rules.index_of: "index",
    groups.grouped: "groupby",
    groups.windowed: "rolling expanding ewm resample",
    joins.merged: "merge",
    joins.joined: "join",
    joins.combined: "combine_first update combine",
}  # fmt: skip
MADE_OF_OTHERS = frozenset(
    [
        "assign",
        "pipe",
        "columns",
        "keys",
        "dtypes",
        "dtype",
        "axes",
        "ndim",
        "flags",
        "attrs",
        "name",
        "info",
        "memory_usage",
        "plot",
        "hist",
        "boxplot",
        "style",
        "sparse",
        "nbytes",
        "from_arrow",
        "from_dict",
        "from_records",
        "__init__",
        "at",
        "iat",
    ]
)
"""Made of other operations, or no data; reading and writing files is watched elsewhere."""

_REDUCED = (
    "sum prod mean median min max std var sem skew kurt count nunique quantile size first last agg aggregate idxmax"
    " idxmin describe value_counts any all ohlc unique corr cov"
)
_TRANSFORMED = "transform cumsum cumprod cummin cummax cumcount ngroup shift diff pct_change rank ffill bfill fillna"
_GROUP: Mapping[Rule, str] = {
    groups.reduced: _REDUCED,
    groups.transformed: _TRANSFORMED,
    groups.picked: "head tail nth filter sample",
    groups.applied: "apply",
    groups.selected: "__getitem__",
    groups.attribute: "__getattr__",
    groups.windowed: "rolling expanding ewm resample",
    rules.left_alone: "__iter__ groups indices get_group",
}
_WINDOW: Mapping[Rule, str] = {
    groups.rolled: "sum mean median min max std var sem skew kurt count quantile apply agg aggregate rank corr cov"
    " first last nunique size ohlc prod asfreq ffill bfill interpolate nearest transform pipe",
    groups.selected: "__getitem__",
    groups.attribute: "__getattr__",
}


_WINDOWS = (
    ("Rolling",),
    ("Expanding",),
    ("ExponentialMovingWindow",),
    ("Resampler",),
    ("RollingGroupBy", "RollingGroupby"),
    ("ExpandingGroupBy", "ExpandingGroupby"),
)
"""Classes of windows, each under its newest name first."""


def doors() -> Mapping[str, list[Door]]:
    """The doors of the pandas that is loaded; none of a version that was not tested."""
    import pandas as pd

    if int(pd.__version__.split(".")[0]) not in VERSIONS:
        return {}
    return {"entry": [*_constructors(pd), *files.pandas_doors(pd)], "deep": _operations(pd)}


def _operations(pd: Any) -> list[Door]:
    api = pd.api.typing
    found = [
        *_doors(
            pd.DataFrame,
            {
                **_TABLE,
                rules.applied: "apply",
                rules.operator: _dunders(),
                rules.each: _TABLE[rules.each] + f" {_SIGNS}",
            },
        ),
        *_doors(
            pd.Series,
            {
                **_TABLE,
                rules.mapped: "apply",
                rules.operator: _dunders(),
                rules.each: _TABLE[rules.each] + f" {_SIGNS}",
            },
        ),
        *_unlisted(pd.DataFrame),
        *_unlisted(pd.Series),
        *_doors(api.DataFrameGroupBy, _GROUP),
        *_doors(api.SeriesGroupBy, _GROUP),
    ]
    for names in _WINDOWS:
        kind = next((getattr(api, name) for name in names if name in vars(api)), None)
        found += _doors(kind, _WINDOW) if kind is not None else []
    return [*found, *_indexers(pd), *_accessors(pd), *_functions(pd)]


def _dunders() -> str:
    return " ".join(f"__{each}__" for each in _OPERATORS.split())


def _doors(owner: type, table: Mapping[Rule, str]) -> list[Door]:
    found: dict[str, Door | None] = {}
    for rule, names in table.items():
        for name in names.split():
            if name not in ("at", "iat"):
                found[name] = method_door(owner, name, _in_place(rule) if name in _CAN_BE_IN_PLACE else rule)
    ufunc = method_door(owner, "__array_ufunc__", _ufunc) if hasattr(owner, "__array_ufunc__") else None
    return [each for each in (*found.values(), ufunc) if each is not None]


_CAN_BE_IN_PLACE = frozenset(
    [
        "fillna",
        "ffill",
        "bfill",
        "replace",
        "clip",
        "interpolate",
        "dropna",
        "drop",
        "drop_duplicates",
        "sort_values",
        "sort_index",
        "rename",
        "reset_index",
        "set_index",
        "query",
        "eval",
        "where",
        "mask",
    ]
)


def _in_place(rule: Rule) -> Rule:
    """With ``inplace=True`` the operand is what was made; it may have been given back, too."""

    def changed(op: Op) -> Any:
        if op.kwargs.get("inplace"):
            op.result = op.me
        return rule(op)

    return changed


def _unlisted(owner: type) -> list[Door]:
    """Public operations without a rule: what they give is assumed to hold all they were given."""
    known = {name for names in _TABLE.values() for name in names.split()} | MADE_OF_OTHERS | {"apply"}
    names = [
        each for each in dir(owner) if not each.startswith("_") and each not in known and not each.startswith("to_")
    ]
    return [door for name in names if (door := method_door(owner, name, rules.unknown)) is not None]


def _indexers(pd: Any) -> list[Door]:
    frame = pd.DataFrame()
    found = []
    for name in ("loc", "iloc", "at", "iat"):
        kind = type(getattr(frame, name))
        found.append(method_door(kind, "__getitem__", rules.located))
        found.append(method_door(kind, "__setitem__", rules.set_located))
    return [each for each in found if each is not None]


def _accessors(pd: Any) -> list[Door]:
    """The methods and properties behind ``.str``, ``.dt`` and ``.cat``."""
    words, times = pd.Series(["a"]).str, pd.Series(pd.to_datetime(["2020-01-01"])).dt
    kinds = [type(words), *type(times).__mro__[:1], type(pd.Series(["a"], dtype="category").cat)]
    kinds += [type(pd.Series(pd.to_timedelta([1])).dt)]
    found = []
    for kind in dict.fromkeys(kinds):
        names = [each for each in dir(kind) if not each.startswith("_")] + (
            ["__getitem__"] if kind is type(words) else []
        )
        found += [method_door(kind, name, rules.through) for name in names]
    return [each for each in found if each is not None]


_FUNCTIONS: Mapping[Callable[[Op], Any], str] = {
    joins.merged: "merge merge_asof merge_ordered",
    rules.melted: "melt",
    rules.pivoted: "pivot pivot_table",
    rules.through: "to_datetime to_numeric to_timedelta cut qcut isna isnull notna notnull",
    rules.spread: "get_dummies crosstab wide_to_long factorize unique lreshape from_dummies",
}


def _functions(pd: Any) -> list[Door]:
    found = [function_door(pd, "concat", joins.concatenated)]
    for rule, names in _FUNCTIONS.items():
        found += [function_door(pd, name, _as_method(rule)) for name in names.split()]
    import numpy as np

    found += [function_door(np, name, _chosen) for name in ("where", "select")]
    return [each for each in found if each is not None]


def _as_method(rule: Rule) -> Rule:
    def called(op: Op) -> Any:
        return rule(joins.as_method(op))

    return called


def _constructors(pd: Any) -> list[Door]:
    found = [method_door(kind, "__init__", rules.constructed) for kind in (pd.DataFrame, pd.Series)]
    return [each for each in found if each is not None]


def _ufunc(op: Op) -> Any:
    """A function of numpy: all that it is given goes into each column, by name where it has names."""
    inputs = [each for each in op.args[2:] if each is not op.me]
    return rules.each(_Over(op, inputs))


def _chosen(op: Op) -> Any:
    """``np.where(condition, a, b)`` and ``np.select``: the condition decides, the others flow."""
    from tidemill_lineage.capture import flow

    conditions = op.args[0] if op.args else NotImplemented
    rest = [*op.args[1:], *op.kwargs.values()]
    made = flow.combine(
        [flow.act(op.of(conditions), "CONDITIONAL"), *(flow.act(op.of(each), "TRANSFORMATION") for each in rest)]
    )
    tables = [each for value in op.args for each in (value if isinstance(value, (list, tuple)) else [value])]
    seen = [found for each in tables if (found := op.trail.see(each)) is not None]
    rows = flow.combine(each.rows for each in seen)
    return Seen(("",), (made,), rows, seen[0].index if seen else {})


class _Over(Op):
    """An operation with other arguments."""

    def __init__(self, op: Op, inputs: Iterable[Any]) -> None:
        self.trail, self.name, self.me, self.seen, self.result = op.trail, op.name, op.me, op.seen, op.result
        self._code, self.kwargs, self.args = op.code, {}, tuple(inputs)


def listed(owner: type) -> set[str]:
    """Names of the operations that have a rule; for the test that none is forgotten."""
    del owner
    return {name for names in _TABLE.values() for name in names.split()}
