"""Pipelines made at random: five operations after one another, each input column changed, every influence covered."""

from __future__ import annotations

import importlib
import random
import zlib
from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

oracle: Any = importlib.import_module(".values_oracle", __package__) if __package__ else None

LENGTH = 5
PIPELINES = {"pandas": 12, "polars": 24, "pyarrow": 24, "duckdb": 4}
Change = Callable[[Any, Any, random.Random], Any]


def numbers(frame: Any, chance: random.Random, count: int = 1) -> list[str]:
    """Some columns that hold numbers, by name: no choice depends on a value."""
    names = sorted(str(name) for name in frame.columns if str(name) not in ("s", "w"))
    return chance.choices(names, k=count)


def key(name: str) -> str:
    """A new name, the same in every run."""
    return f"c{zlib.crc32(name.encode()) % 997}"


def _pandas_sum(x: Any, y: Any, chance: random.Random) -> Any:
    a, b = numbers(x, chance, 2)
    return x.assign(**{key(a + b): x[a] + x[b].fillna(0)})


def _pandas_group(x: Any, y: Any, chance: random.Random) -> Any:
    (a,) = numbers(x, chance)
    out = key("g" + a)
    return x.assign(**{out: x.groupby("k")[a].transform(chance.choice(["sum", "max", "count"]))})


def _pandas_aggregate(x: Any, y: Any, chance: random.Random) -> Any:
    names = [name for name in dict.fromkeys(numbers(x, chance, 3)) if name not in ("k", "id")]
    how = {name: (name, chance.choice(["sum", "min", "mean"])) for name in names}
    return x.groupby("k", as_index=False).agg(**how, id=("id", "min"))


def _pandas_item(x: Any, y: Any, chance: random.Random) -> Any:
    z = x.copy()
    a, b = numbers(x, chance, 2)
    z[key(a + "i")] = z[b] * 2
    z.loc[z[a] > 3, b] = 1
    return z


PANDAS: list[Change] = [
    _pandas_sum, _pandas_group, _pandas_aggregate, _pandas_item,
    lambda x, y, c: x[x[numbers(x, c)[0]] > 2],
    lambda x, y, c: x.sort_values([*numbers(x, c), "id"]),
    lambda x, y, c: x.merge(y[["k", "c"]].rename(columns={"c": key("m" + str(len(x.columns)))}), on="k", how="left"),
    lambda x, y, c: x[x["k"].isin(y.loc[y["c"] > 10, "k"])],
    lambda x, y, c: x[x[numbers(x, c)[0]] >= y["a"].mean()],
    lambda x, y, c: x.assign(**{key("w"): x[numbers(x, c)[0]].where(x["k"] > 1, x[numbers(x, c)[0]])}),
    lambda x, y, c: x.drop_duplicates([numbers(x, c)[0]]),
    lambda x, y, c: x.assign(**{key("sh"): x[numbers(x, c)[0]].shift(1).fillna(0)}),
    lambda x, y, c: x.rename(columns={name: key(name) for name in numbers(x, c) if name not in ("id", "k")}),
    lambda x, y, c: pd.concat([x, x.head(2)], ignore_index=True),
    lambda x, y, c: x.set_index("id").reset_index(),
    lambda x, y, c: x.query("k > 0"),
    lambda x, y, c: x.assign(**{key("ap"): x[numbers(x, c)[0]].map(lambda v: v * 2)}),
    lambda x, y, c: x.head(8),
    lambda x, y, c: x.assign(**{key("np"): x[numbers(x, c)[0]].to_numpy() + 1}),
]  # fmt: skip
POLARS: list[Change] = [
    lambda x, y, c: x.with_columns((pl.col((n := numbers(x, c, 2))[0]) + pl.col(n[1])).alias(key("".join(n)))),
    lambda x, y, c: x.filter(pl.col(numbers(x, c)[0]) > 2),
    lambda x, y, c: x.sort(numbers(x, c)[0], "id", maintain_order=True),
    lambda x, y, c: x.join(y.select("k", pl.col("c").alias(key("m" + str(x.width)))), on="k", how="left", maintain_order="left"),
    lambda x, y, c: x.filter(pl.col("k").is_in(y.filter(pl.col("c") > 10)["k"].to_list())),
    lambda x, y, c: x.filter(pl.col(numbers(x, c)[0]) >= y["a"].mean()),
    lambda x, y, c: x.group_by("k", maintain_order=True).agg(pl.col("id").min(), *[pl.col(n).sum() for n in dict.fromkeys(numbers(x, c, 2)) if n not in ("k", "id")]),
    lambda x, y, c: x.with_columns(pl.col(numbers(x, c)[0]).sum().over("k").alias(key("ov"))),
    lambda x, y, c: x.with_columns((x[numbers(x, c)[0]] * 2).alias(key("se"))),
    lambda x, y, c: x.unique("k", keep="first", maintain_order=True),
    lambda x, y, c: x.head(8),
    lambda x, y, c: pl.concat([x, x.head(2)]),
    lambda x, y, c: x.lazy().with_columns(pl.col(numbers(x, c)[0]).shift(1).alias(key("sh"))).collect(),
    lambda x, y, c: x[["id", "k", *dict.fromkeys(n for n in numbers(x, c, 4) if n not in ("id", "k"))]],
    lambda x, y, c: x.hstack([x[numbers(x, c)[0]].rename(key("hs" + str(x.width)))]),
]  # fmt: skip


def _columns(x: Any) -> Any:
    return type("Names", (), {"columns": list(x.column_names)})


ARROW: list[Change] = [
    lambda x, y, c: x.append_column(key("a" + str(x.num_columns)), pc.add(*(x[n] for n in numbers(_columns(x), c, 2)))),
    lambda x, y, c: x.filter(pc.field(numbers(_columns(x), c)[0]) > 2),
    lambda x, y, c: x.filter(pc.greater(x[numbers(_columns(x), c)[0]], 1)),
    lambda x, y, c: x.sort_by([(numbers(_columns(x), c)[0], "ascending"), ("id", "ascending")]),
    lambda x, y, c: x.join(y.select(["k", "c"]).rename_columns(["k", key("m" + str(x.num_columns))]), "k").sort_by("id"),
    lambda x, y, c: x.slice(1, 8),
    lambda x, y, c: x.take(pc.sort_indices(x["id"])),
    lambda x, y, c: x.filter(pc.greater_equal(x[numbers(_columns(x), c)[0]], pc.mean(y["a"]))),
    lambda x, y, c: x.append_column(key("i" + str(x.num_columns)), pc.if_else(pc.greater(x["k"], 1), x["k"], x[numbers(_columns(x), c)[0]])),
    lambda x, y, c: pa.concat_tables([x, x.slice(0, 2)]),
]  # fmt: skip


def _sql(x: Any, text: str, y: Any = None) -> Any:
    return duckdb.sql(text)


DUCKDB: list[Change] = [
    lambda x, y, c: _sql(x, f"SELECT *, {(n := numbers(x, c, 2))[0]} + {n[1]} AS {key('s' + str(len(x.columns)))} FROM x"),
    lambda x, y, c: _sql(x, f"SELECT * FROM x WHERE {numbers(x, c)[0]} > 2"),
    lambda x, y, c: _sql(x, f"SELECT x.*, y.c AS {key('j' + str(len(x.columns)))} FROM x LEFT JOIN y USING (k)", y),
    lambda x, y, c: _sql(x, "SELECT * FROM x WHERE k IN (SELECT k FROM y WHERE c > 10)", y),
    lambda x, y, c: _sql(x, f"SELECT *, sum({numbers(x, c)[0]}) OVER (PARTITION BY k) AS {key('w' + str(len(x.columns)))} FROM x"),
    lambda x, y, c: _sql(x, f"SELECT k, min(id) AS id, max({numbers(x, c)[0]}) AS {key('g')} FROM x GROUP BY ALL"),
    lambda x, y, c: x.filter("k > 0") if hasattr(x, "fetchall") else duckdb.from_df(x).filter("k > 0"),
]  # fmt: skip


def pipeline(changes: list[Change], seed: int, last: Callable[[Any], Any] = lambda x: x) -> Any:
    """Some operations, one after the other: the same for every data."""

    def step(x: Any, y: Any) -> Any:
        chance = random.Random(seed)  # chooses a test, no secret
        for _ in range(LENGTH):
            x = chance.choice(changes)(x, y, chance)
        return last(x)

    return step


def _by_key(x: Any) -> Any:
    return duckdb.sql("SELECT * FROM x ORDER BY ALL")


def _make_pandas(columns: Any) -> Any:
    return pd.DataFrame(columns)


def _reader(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__).read if __package__ else None


LIBRARIES: dict[str, tuple[list[Change], Any, Any, float, Any]] = {
    "pandas": (PANDAS, _make_pandas, _reader("test_pandas_oracle"), 0.9, lambda x: x),
    "polars": (POLARS, pl.DataFrame, lambda r: r.to_dict(as_series=False), 0.9, lambda x: x),
    "pyarrow": (ARROW, pa.table, lambda r: r.to_pydict(), 0.8, lambda x: x),
    "duckdb": (DUCKDB, _make_pandas, _reader("test_duckdb_oracle"), 0.9, _by_key),
}


@pytest.mark.parametrize("library", list(LIBRARIES))
def test_pipelines_made_at_random_have_their_influences_by_column(library: str) -> None:
    changes, make, read, floor, last = LIBRARIES[library]
    steps = {f"{library} {seed}": pipeline(changes, seed, last) for seed in range(PIPELINES[library])}

    found = oracle.score(steps, make, read)

    assert found.uncovered == []
    assert found.faults == []
    assert found.share >= floor, found.dataset_only
    assert found.influences > PIPELINES[library]


def test_the_oracle_notices_what_no_edge_covers() -> None:
    def blind(x: Any, y: Any) -> Any:
        # by a road that no door watches: the memory of a column, read behind the library's back
        most = float(max(memoryview(x["a"]._values)))
        return pd.DataFrame({"z": [most]})

    found = oracle.score({"blind": blind}, _make_pandas, _reader("test_pandas_oracle"))

    assert found.by_column < found.influences
