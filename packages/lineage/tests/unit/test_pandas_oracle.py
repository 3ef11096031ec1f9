"""pandas steps: whatever a change of an input column changes must be covered, and most of it column by column."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd

oracle: Any = importlib.import_module(".values_oracle", __package__) if __package__ else None
FLOOR = 0.95
"""Share of the influences that must have an edge between columns; the rest have one from the whole dataset."""


def make(columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def read(result: Any) -> dict[str, list[Any]]:
    """Columns and named index levels, in order."""
    if isinstance(result, pd.Series):
        result = result.rename("value" if result.name is None else result.name).to_frame()
    levels = {
        str(name): list(result.index.get_level_values(i))
        for i, name in enumerate(result.index.names)
        if name is not None
    }
    return {**levels, **{str(name): list(result.iloc[:, i]) for i, name in enumerate(result.columns)}}


def _set_item(x: Any, y: Any) -> Any:
    z = x[["id", "a"]].copy()
    z["q"] = x["b"] * 2
    return z


def _set_loc(x: Any, y: Any) -> Any:
    z = x[["id", "a"]].copy()
    z.loc[x["b"] > 3, "a"] = 0
    return z


def _attribute(x: Any, y: Any) -> Any:
    z = x[["id", "a"]].copy()
    z.a = x.k
    return z


def _branch(x: Any, y: Any) -> Any:
    if x["b"].max() > 5:
        return x[["id", "a"]]
    return x[["id"]].assign(a=x["k"])


def _loop(x: Any, y: Any) -> Any:
    z = x[["id"]].copy()
    for name in ("a", "b"):
        z[name + "_twice"] = x[name] * 2
    return z


def _in_place(x: Any, y: Any) -> Any:
    z = x[["id", "a", "b"]].copy()
    z.sort_values("b", inplace=True)
    z.drop(columns="b", inplace=True)
    z.reset_index(drop=True, inplace=True)
    return z


STEPS: dict[str, Any] = {
    "select": lambda x, y: x[["id", "a"]],
    "column": lambda x, y: x["a"],
    "loc mask": lambda x, y: x.loc[x["a"] > 4, ["id", "b"]],
    "loc column": lambda x, y: x.loc[x.a > 4, "b"],
    "iloc": lambda x, y: x.iloc[2:8, [0, 2]],
    "query": lambda x, y: x.query("a > 4 and k < 3")[["id", "b"]],
    "eval": lambda x, y: x.eval("z = a + b")[["id", "z"]],
    "assign": lambda x, y: x.assign(z=x.a + x.b)[["id", "z"]],
    "assign function": lambda x, y: x.assign(z=lambda d: d.a * 2, q=lambda d: d.z + d.k)[["z", "q"]],
    "set item": _set_item,
    "set loc": _set_loc,
    "set attribute": _attribute,
    "branch": _branch,
    "loop": _loop,
    "in place": _in_place,
    "mask": lambda x, y: x[x["a"] > 4][["id", "b"]],
    "merge": lambda x, y: x.merge(y, on="k")[["id", "c"]],
    "merge suffixes": lambda x, y: x.merge(y, on="k", suffixes=("_l", "_r"))[["a_l", "a_r", "w"]],
    "merge left": lambda x, y: pd.merge(x, y[["k", "w"]], how="left", on="k")[["id", "w"]],
    "merge outer": lambda x, y: x[["k", "id"]].merge(y[["k", "c"]], how="outer", on="k"),
    "merge other names": lambda x, y: x.merge(y, left_on="a", right_on="k")[["id", "c"]],
    "merge right index": lambda x, y: x.merge(y.set_index("k"), left_on="k", right_index=True)[["id", "c"]],
    "join": lambda x, y: x.join(y.set_index("k")[["c"]], on="k")[["id", "c"]],
    "join index": lambda x, y: x.set_index("k")[["id"]].join(y.set_index("k")[["w"]]),
    "concat": lambda x, y: pd.concat([x[["k", "a"]], y[["k", "a"]]]),
    "concat columns": lambda x, y: pd.concat([x["a"], x["b"] * 2], axis=1),
    "concat ignore": lambda x, y: pd.concat([x[["k"]], y[["c"]]], ignore_index=True),
    "groupby agg": lambda x, y: x.groupby("k", as_index=False).agg(t=("a", "sum"), m=("b", "max")),
    "groupby sum": lambda x, y: x.groupby("k")[["a", "b"]].sum().reset_index(),
    "groupby column": lambda x, y: x.groupby("k")["a"].mean(),
    "groupby attribute": lambda x, y: x.groupby("k").a.max(),
    "groupby dict": lambda x, y: x.groupby("k").agg({"a": "sum", "b": ["min", "max"]}),
    "groupby transform": lambda x, y: x.assign(z=x.groupby("k")["a"].transform("sum"))[["id", "z"]],
    "groupby apply": lambda x, y: x.groupby("k")[["a", "b"]].apply(lambda g: (g["a"] * g["b"]).sum()),
    "groupby size": lambda x, y: x.groupby("k").size(),
    "groupby cumsum": lambda x, y: x.groupby("k")["b"].cumsum(),
    "groupby head": lambda x, y: x.groupby("k").head(1)[["id", "a"]],
    "groupby two": lambda x, y: x.groupby(["k", "s"])["a"].sum().reset_index(),
    "groupby series": lambda x, y: x["a"].groupby(x["k"]).sum(),
    "pivot table": lambda x, y: x.pivot_table(index="k", values="a", aggfunc="sum"),
    "pivot": lambda x, y: x.head(5).pivot(index="id", columns="k", values="b"),
    "melt": lambda x, y: x.melt(id_vars="id", value_vars=["a", "b"]),
    "sort": lambda x, y: x.sort_values("b")[["id", "a"]],
    "sort index": lambda x, y: x.set_index("a").sort_index()[["id"]],
    "drop duplicates": lambda x, y: x.drop_duplicates("k")[["id", "a"]],
    "dropna": lambda x, y: x.dropna()[["id", "k"]],
    "fillna": lambda x, y: x[["id"]].assign(n=x.n.fillna(x.a)),
    "map dict": lambda x, y: x.assign(z=x.k.map({0: "no", 1: "one"}))[["id", "z"]],
    "map series": lambda x, y: x.assign(z=x.k.map(y.set_index("k")["c"]))[["id", "z"]],
    "map function": lambda x, y: x.a.map(lambda v: v + 1),
    "where": lambda x, y: x.assign(z=x.a.where(x.b > 3, x.k))[["id", "z"]],
    "numpy where": lambda x, y: x.assign(z=np.where(x.b > 3, x.a, 0))[["id", "z"]],
    "numpy function": lambda x, y: x.assign(z=np.sqrt(x.a))[["id", "z"]],
    "numpy array": lambda x, y: x.assign(z=x.a.to_numpy() * 2)[["id", "z"]],
    "string": lambda x, y: x.assign(z=x.s.str.upper().str[0])[["id", "z"]],
    "string split": lambda x, y: x.s.str.split("", expand=True),
    "dates": lambda x, y: x.assign(z=pd.to_datetime(x.a, unit="D").dt.day_name())[["id", "z"]],
    "apply rows": lambda x, y: x.assign(z=x.apply(lambda r: r["a"] + r["k"], axis=1))[["id", "z"]],
    "isin": lambda x, y: x[x.k.isin(y.k)][["id", "a"]],
    "isin list": lambda x, y: x[x.k.isin(y.k.tolist())][["id", "a"]],
    "isin set": lambda x, y: x[x.k.isin(set(y.a))][["id", "a"]],
    "scalar": lambda x, y: x[x.a > x.b.mean()][["id", "a"]],
    "scalar arithmetic": lambda x, y: x.assign(z=x.a / float(y.c.max()))[["id", "z"]],
    "item": lambda x, y: x[x.a > y.a.iloc[0]][["id"]],
    "length": lambda x, y: x.head(len(y[y.c > 20]))[["id"]],
    "rename": lambda x, y: x.rename(columns={"a": "q"})[["id", "q"]],
    "columns": lambda x, y: x[["a", "b"]].set_axis(["p", "q"], axis=1),
    "head": lambda x, y: x.head(5)[["id", "a"]],
    "nlargest": lambda x, y: x.nlargest(3, "b")[["id", "a"]],
    "shift": lambda x, y: x.assign(z=x.a.shift(1) - x.a)[["id", "z"]],
    "rolling": lambda x, y: x.assign(z=x.a.rolling(3).mean())[["id", "z"]],
    "rank": lambda x, y: x.b.rank(),
    "value counts": lambda x, y: x.k.value_counts().reset_index(),
    "unique": lambda x, y: pd.DataFrame({"u": x.k.unique()}),
    "total": lambda x, y: pd.DataFrame({"total": [x.a.sum()], "most": [x.b.max()]}),
    "describe": lambda x, y: x[["a", "b"]].describe(),
    "sum of all": lambda x, y: x[["a", "b"]].sum().to_frame("t"),
    "cut": lambda x, y: x.assign(z=pd.cut(x.a, [0, 3, 6, 20]).astype(str))[["id", "z"]],
    "dummies": lambda x, y: pd.get_dummies(x[["k", "id"]], columns=["k"])[["id", "k_0"]],
    "explode": lambda x, y: x.assign(z=x.s.map(list))[["id", "z"]].explode("z"),
    "stack": lambda x, y: x.set_index("id")[["a", "b"]].stack(),
    "crosstab": lambda x, y: pd.crosstab(x.k, x.a > 4),
    "dict of series": lambda x, y: pd.DataFrame({"p": x.a, "q": x.b * x.k}),
    "list of rows": lambda x, y: pd.DataFrame([{"id": r.id, "z": r.a * 2} for r in x.itertuples()]),
    "combine first": lambda x, y: x[["n"]].combine_first(x[["a"]].rename(columns={"a": "n"})),
    "pipe": lambda x, y: x.pipe(lambda d: d[d.a > 3])[["id", "b"]],
    "set index": lambda x, y: x.set_index("id")[["a"]],
    "chain": lambda x, y: (
        x[x.a > 1].merge(y, on="k", how="left").assign(v=lambda d: d.b * d.c).groupby("w", as_index=False).agg(t=("v", "sum")).sort_values("t")
    ),
}  # fmt: skip


def test_influences_are_covered_and_most_of_them_by_column() -> None:
    found = oracle.score(STEPS, make, read)

    assert found.uncovered == []
    assert found.faults == []
    assert found.without_columns == []
    assert found.share >= FLOOR, found.dataset_only
    assert found.false_direct <= 0.25, found.direct_false
