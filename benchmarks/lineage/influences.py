"""How many influences of held-out steps have an edge between columns, and what watching costs a step.

The steps were written without looking at the rules and are not used by the tests: each column of the inputs is
changed in five ways, the step is run again, and every column of the result that changed must have an edge from that
column. An edge from the whole dataset counts as missing here. "False" is a DIRECT edge between columns where no change
had an effect.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, _versions

ORACLE = Path(__file__).parents[2] / "packages/lineage/tests/unit/values_oracle.py"


def main(rounds: int = 7, scale: float = 1.0) -> dict[str, Any]:
    """Score all libraries; `scale` shrinks what is timed for a smoke test."""
    oracle = _oracle()
    cases: dict[str, Any] = {}
    for name, (steps, make, read) in {**_pandas(), **_polars(), **_arrow(), **_duckdb()}.items():
        found = oracle.score(steps, make, read)
        cases[name] = {
            "steps": len(steps),
            "influences": found.influences,
            "by column": found.by_column,
            "share": round(found.share, 3),
            "uncovered": [list(each) for each in found.uncovered],
            "whole dataset only": [list(each) for each in found.dataset_only],
            "direct edges": found.direct,
            "false direct": round(found.false_direct, 3),
            "indirect edges": found.indirect,
            "false indirect": round(found.indirect_false / max(found.indirect, 1), 3),
            "without columns": found.without_columns,
        }
    return _report(cases, _costs(rounds, scale))


def _oracle() -> Any:
    spec = importlib.util.spec_from_file_location("values_oracle", ORACLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _pandas() -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    def read(result: Any) -> dict[str, list[Any]]:
        if isinstance(result, pd.Series):
            result = result.rename("value" if result.name is None else result.name).to_frame()
        names = enumerate(result.index.names)
        levels = {str(n): list(result.index.get_level_values(i)) for i, n in names if n is not None}
        return {**levels, **{str(n): list(result.iloc[:, i]) for i, n in enumerate(result.columns)}}

    def loop(x: Any, y: Any) -> Any:
        parts = []
        for value, part in x.groupby("k"):
            parts.append(part.assign(group=value)[["id", "group", "b"]].tail(1))
        return pd.concat(parts)

    def cleaned(x: Any, y: Any) -> Any:
        z = x.copy()
        z["n"] = z["n"].fillna(z["n"].median())
        z.loc[z["a"] > z["a"].quantile(0.9), "a"] = z["a"].min()
        z["s"] = z["s"].str.strip().str.replace("a", "A")
        return z[["id", "n", "a", "s"]]

    def lookup(x: Any, y: Any) -> Any:
        names = dict(zip(y["k"], y["w"], strict=True))
        return x.assign(name=x["k"].map(names))[["id", "name"]]

    def ratio(x: Any, y: Any) -> Any:
        total = x.groupby("k", as_index=False)["b"].sum().rename(columns={"b": "total"})
        both = x.merge(total, on="k")
        both["share"] = both["b"] / both["total"]
        return both[["id", "share"]]

    steps = {
        "loop over groups": loop,
        "cleaned": cleaned,
        "lookup": lookup,
        "ratio": ratio,
        "np select": lambda x, y: x.assign(z=np.select([x.a > 6, x.b > 3], [x.k, x.a], default=-1))[["id", "z"]],
        "nested merge": lambda x, y: x.merge(x.groupby("k").a.max().rename("top"), left_on="k", right_index=True)[["id", "top"]],
        "merge indicator": lambda x, y: x.merge(y[["k"]], how="outer", on="k", indicator=True)[["k", "_merge"]].astype(str),
        "anti join": lambda x, y: x[~x["k"].isin(y["k"])][["id", "s"]],
        "between": lambda x, y: x[x["b"].between(1, 4)][["id", "a"]],
        "clip": lambda x, y: x.assign(z=x.a.clip(upper=x.k))[["id", "z"]],
        "filter groups": lambda x, y: x.groupby("k").filter(lambda g: g["a"].sum() > 8)[["id"]],
        "first of sorted": lambda x, y: x.sort_values("b").groupby("k").first()[["id"]],
        "rolling group": lambda x, y: x.groupby("k")["a"].rolling(2, min_periods=1).sum().reset_index(level=0, drop=True).sort_index(),
        "expanding": lambda x, y: x[["a"]].expanding().max(),
        "pivot margins": lambda x, y: x.pivot_table(index="k", values="b", aggfunc=["min", "max"]),
        "wide sum": lambda x, y: x.assign(z=x[["a", "k"]].sum(axis=1))[["id", "z"]],
        "max of columns": lambda x, y: x[["a", "b"]].max(axis=1),
        "string join": lambda x, y: x.assign(z=x.s + "-" + x.k.astype(str))[["id", "z"]],
        "contains": lambda x, y: x[x.s.str.contains("a")][["id", "b"]],
        "drop": lambda x, y: x.drop(columns=["s", "n"]).iloc[::2],
        "at": lambda x, y: x.assign(z=x.at[3, "a"] + x.b)[["id", "z"]],
        "dict rows": lambda x, y: pd.DataFrame(x[["id", "a"]].to_dict("records")),
        "from values": lambda x, y: pd.DataFrame({"z": [v + 1 for v in x["b"].values]}),
        "reindex": lambda x, y: x.set_index("id")[["a"]].reindex([1, 3, 5, 99]),
        "duplicated": lambda x, y: x[~x.duplicated("s")][["id"]],
        "cumcount": lambda x, y: x.assign(z=x.groupby("k").cumcount())[["id", "z"]],
        "quantile groups": lambda x, y: x.assign(z=pd.qcut(x.b.rank(method="first"), 3, labels=False))[["id", "z"]],
        "update": lambda x, y: (z := x[["id", "a"]].copy(), z.update(x[["k"]].rename(columns={"k": "a"})))[0],
        "insert": lambda x, y: (z := x[["id"]].copy(), z.insert(1, "z", x["a"] - x["b"]))[0],
        "transposed": lambda x, y: x[["a", "b"]].head(3).T,
        "weights": lambda x, y: pd.DataFrame({"mean": [np.average(x["b"], weights=x["a"])]}),
        "compare": lambda x, y: x.assign(z=(x["a"] > x["b"]) & x["n"].notna())[["id", "z"]],
        "pop": lambda x, y: (z := x[["id", "a"]].copy(), z.assign(q=z.pop("a") * 2))[1],
    }  # fmt: skip
    return {"pandas": (steps, pd.DataFrame, read)}


def _polars() -> dict[str, Any]:
    import polars as pl

    def read(result: Any) -> dict[str, list[Any]]:
        frame = result.collect() if isinstance(result, pl.LazyFrame) else result
        return frame.to_dict(as_series=False)

    def loop(x: Any, y: Any) -> Any:
        for name in ("a", "b"):
            x = x.with_columns((pl.col(name) - x[name].mean()).alias(name + "_centred"))
        return x.select("id", "a_centred", "b_centred")

    def parts(x: Any, y: Any) -> Any:
        return pl.concat(
            [part.select("id", "b").head(1) for part in x.sort("id").partition_by("k", maintain_order=True)]
        )

    eager = {
        "centred": loop,
        "partitions": parts,
        "series": lambda x, y: x.select("id").with_columns(x["a"].cum_sum().alias("z")),
        "rows": lambda x, y: pl.DataFrame([{"id": r["id"], "z": r["a"] * 2} for r in x.iter_rows(named=True)]),
        "member list": lambda x, y: x.filter(pl.col("k").is_in(y["k"].to_list())).select("id"),
        "member series": lambda x, y: x.filter(x["k"].is_in(y["k"].implode())).select("id"),
        "item": lambda x, y: x.filter(pl.col("a") > y["a"].item(0)).select("id"),
        "when": lambda x, y: x.select("id", z=pl.when(pl.col("b") > 3).then("a").otherwise("k")),
        "over": lambda x, y: x.select("id", z=pl.col("a").rank("ordinal").over("k")),
        "asof": lambda x, y: x.sort("a").join_asof(y.sort("a"), on="a").sort("id").select("id", "c"),
        "transpose": lambda x, y: x.select("a", "k").head(3).transpose(),
        "dummies": lambda x, y: x.select("k").to_dummies(),
        "map rows": lambda x, y: x.select("id", "a").map_rows(lambda r: (r[0], r[1] + 1)),
        "describe": lambda x, y: x.select("a").describe(),
        "extend": lambda x, y: x.select("k", "a").extend(y.select("k", "a")),
        "sum horizontal": lambda x, y: x.select("id", z=pl.sum_horizontal("a", "k")),
        "replace column": lambda x, y: x.select("id", "a").clone().replace_column(1, x["b"]),
        "sample": lambda x, y: x.gather_every(2).select("id", "a"),
        "corr": lambda x, y: x.select(pl.corr("a", "b")),
        "branch": lambda x, y: x.select("id", "a") if x["b"].max() > 5 else x.select("id", a="k"),
        "nested": lambda x, y: x.join(x.group_by("k").agg(t=pl.col("b").sum()), on="k", maintain_order="left").select("id", "t"),
        "fold": lambda x, y: x.select("id").with_columns(z=x.select("a", "k").sum_horizontal()),
    }  # fmt: skip
    half = {
        "mean": lambda x, y: x.filter(pl.col("a") > x.select(pl.col("b").mean()).collect().item()).select("id"),
        "few": lambda x, y: x.join(y.head(3).collect().lazy(), on="k", how="semi", maintain_order="left").select("id", "b"),
        "names": lambda x, y: x.filter(pl.col("k").is_in(y.collect()["k"].to_list())).select("id"),
        "cached": lambda x, y: (c := x.filter(pl.col("a") > 2).collect()).lazy().with_columns(z=pl.col("b") / c["b"].sum()).select("id", "z"),
        "twice": lambda x, y: x.with_columns(q=pl.col("a") * 2).collect().lazy().join(y.filter(pl.col("c") < 45).collect().lazy(), on="k", maintain_order="left").select("id", "q", "w"),
        "pandas inside": lambda x, y: pl.from_pandas(x.collect().to_pandas()[["id", "a"]]).lazy().with_columns(pl.col("a") + 1),
        "largest": lambda x, y: x.sort("b", "id").collect().head(4).lazy().select("id", "s"),
        "union": lambda x, y: pl.concat([x.select("k", "a").collect(), y.select("k", "a").collect()]).lazy(),
    }  # fmt: skip
    return {
        "eager polars": (eager, pl.DataFrame, read),
        "half-collected": (half, lambda columns: pl.DataFrame(columns).lazy(), read),
    }


def _arrow() -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    steps = {
        "expression": lambda x, y: x.filter((pc.field("a") > 3) & (pc.field("k") < 4)).select(["id", "s"]),
        "binary": lambda x, y: pa.table([x["id"], pc.divide(x["b"], 2.0)], names=["id", "half"]),
        "left join": lambda x, y: x.select(["id", "k", "b"]).join(y, "k", join_type="left outer").select(["id", "w"]).sort_by("id"),
        "anti": lambda x, y: x.join(y.select(["k"]), "k", join_type="left anti").select(["id"]).sort_by("id"),
        "semi": lambda x, y: x.join(y.select(["k"]), "k", join_type="left semi").select(["id", "a"]).sort_by("id"),
        "group many": lambda x, y: x.group_by(["k"]).aggregate([("b", "mean"), ("a", "max"), ("id", "count")]).sort_by("k"),
        "strings": lambda x, y: x.set_column(4, "s", pc.utf8_replace_slice(x["s"], 0, 1, "q")).select(["id", "s"]),
        "mask of two": lambda x, y: x.filter(pc.and_(pc.greater(x["a"], 2), pc.less(x["b"], 5))).select(["id"]),
        "nulls": lambda x, y: x.filter(pc.is_valid(x["n"])).select(["id", "n"]),
        "top": lambda x, y: x.take(pc.select_k_unstable(x, 4, [("b", "descending")])).select(["id", "b"]),
        "chunks": lambda x, y: pa.concat_tables([x.slice(0, 4), x.slice(6)]).select(["a"]),
        "dictionary": lambda x, y: pa.table({"s": x["s"].dictionary_encode().cast(pa.string())}),
        "minus mean": lambda x, y: pa.table({"z": pc.subtract(x["a"], pc.mean(x["a"]))}),
        "scale by other": lambda x, y: pa.table({"z": pc.multiply(x["a"], pc.max(y["c"]))}),
        "remove": lambda x, y: x.remove_column(4).remove_column(4).select(["k", "b"]),
        "run of ops": lambda x, y: x.append_column("z", pc.add(x["a"], x["k"])).filter(pc.field("z") > 5).sort_by("z").select(["z"]),
        "rows": lambda x, y: pa.Table.from_pylist([{"id": r["id"], "z": r["a"] * 2} for r in x.to_pylist()]),
    }  # fmt: skip
    return {"pyarrow": (steps, pa.table, lambda result: result.to_pydict())}


def _duckdb() -> dict[str, Any]:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    def read(result: Any) -> dict[str, list[Any]]:
        if isinstance(result, duckdb.DuckDBPyRelation):
            rows = result.fetchall()
            return {name: [row[i] for row in rows] for i, name in enumerate(result.columns)}
        if isinstance(result, pa.Table):
            return result.to_pydict()
        return {str(name): list(result[name]) for name in result.columns}

    def tables(x: Any, y: Any) -> Any:
        con = duckdb.connect()
        con.execute("CREATE TABLE orders AS SELECT * FROM x")
        con.execute("INSERT INTO orders SELECT * FROM x WHERE a > 6")
        con.execute("CREATE VIEW big AS SELECT k, sum(b) AS total FROM orders GROUP BY k")
        return con.sql("SELECT big.k, total, w FROM big JOIN y ON y.k = big.k ORDER BY big.k").to_arrow_table()

    steps = {
        "tables": tables,
        "having": lambda x, y: duckdb.sql("SELECT k, max(b) AS m FROM x GROUP BY k HAVING sum(a) > 8 ORDER BY k"),
        "qualify": lambda x, y: duckdb.sql("SELECT id, a FROM x QUALIFY row_number() OVER (PARTITION BY k ORDER BY b, id) = 1 ORDER BY id"),
        "lateral": lambda x, y: duckdb.sql("SELECT x.id, l.c FROM x, LATERAL (SELECT c FROM y WHERE y.k = x.k) l ORDER BY id, c"),
        "scalar subquery": lambda x, y: duckdb.sql("SELECT id, a - (SELECT avg(c) FROM y) AS z FROM x ORDER BY id"),
        "left join": lambda x, y: duckdb.sql("SELECT id, coalesce(w, s) AS z FROM x LEFT JOIN y ON x.k = y.k ORDER BY id"),
        "union": lambda x, y: duckdb.sql("SELECT k, a FROM x UNION ALL BY NAME SELECT a, k FROM y ORDER BY k, a"),
        "replace": lambda x, y: duckdb.sql("SELECT * REPLACE (a * 2 AS a) FROM x ORDER BY id"),
        "columns": lambda x, y: duckdb.sql("SELECT id, COLUMNS('^[ab]$') + 1 FROM x ORDER BY id"),
        "pivot": lambda x, y: duckdb.sql("PIVOT (SELECT k, a FROM y) ON k IN (0, 1) USING sum(a)"),
        "unpivot": lambda x, y: duckdb.sql("SELECT * FROM (SELECT id, a, k FROM x) UNPIVOT (v FOR n IN (a, k)) ORDER BY id, n"),
        "from first": lambda x, y: duckdb.sql("FROM x SELECT id, upper(s) AS u WHERE a > 2 ORDER BY id"),
        "relation agg": lambda x, y: duckdb.from_df(x).aggregate("k, avg(b) AS m").order("k"),
        "relation of relation": lambda x, y: duckdb.from_df(x).filter("a > 1").aggregate("k, sum(b) AS t", "k").filter("t > 2").order("k"),
        "to polars": lambda x, y: duckdb.sql("SELECT k, count(*) FILTER (a > 3) AS n FROM x GROUP BY k ORDER BY k").df(),
        "pandas after": lambda x, y: duckdb.sql("SELECT id, a, k FROM x ORDER BY id").df().groupby("k", as_index=False).agg(t=("a", "sum")),
        "recursive": lambda x, y: duckdb.sql("WITH RECURSIVE r AS (SELECT id, a FROM x WHERE id = 0 UNION ALL SELECT x.id, r.a + x.a FROM x JOIN r ON x.id = r.id + 1) SELECT * FROM r ORDER BY id"),
        "list": lambda x, y: duckdb.sql("SELECT k, list(a ORDER BY b, id) AS l FROM x GROUP BY k ORDER BY k"),
        "unnest": lambda x, y: duckdb.sql("SELECT id, unnest([a, k]) AS v FROM x ORDER BY id, v"),
    }  # fmt: skip
    return {"DuckDB": (steps, pd.DataFrame, read)}


def _costs(rounds: int, scale: float) -> dict[str, float]:
    """CPU microseconds that tracing adds to a step of five pandas operations, and to one that takes a LazyFrame."""
    import pandas as pd
    import polars as pl
    from tidemill_lineage import Tracer

    rows = max(1_000, int(100_000 * scale))
    left = pd.DataFrame({"k": [i % 7 for i in range(rows)], "a": range(rows), "b": [i / 3 for i in range(rows)]})
    lazy = pl.LazyFrame({"k": [1, 2], "a": [1, 2]})

    def five(x: Any) -> Any:
        return x[x["a"] > 3].assign(z=x["b"] * 2).groupby("k", as_index=False).agg(t=("z", "sum"))

    def plan(x: Any) -> Any:
        return x.filter(pl.col("a") > 1)

    tracer = Tracer()
    steps: dict[str, tuple[Callable[[Any], Any], Any, int]] = {
        f"five pandas operations on {rows} rows": (five, left, 20),
        "a LazyFrame filtered, not collected": (plan, lazy, 300),
    }
    figures: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, (step, frame, count) in steps.items():
            kinds = {"bare": step, "traced": tracer.trace(inputs={"x": "t://x"}, output="t://out")(step)}
            for kind in sorted(kinds, reverse=bool(number % 2)):
                repeats = max(1, int(count * scale))
                began = time.process_time()
                for _ in range(repeats):
                    kinds[kind](frame)
                tracer.graph()
                figures.setdefault(f"{name}, {kind}", []).append((time.process_time() - began) / repeats * 1e6)
    tracer.close()
    return {name: round(sorted(values)[len(values) // 2], 1) for name, values in figures.items()}


def _report(cases: dict[str, Any], costs: dict[str, float]) -> dict[str, Any]:
    result = {
        "name": "lineage_influences",
        "unit": "influences of held-out steps; CPU microseconds a call, median of the rounds",
        "cases": cases,
        "costs": costs,
        "load": os.getloadavg()[0],
        "versions": _versions(["tidemill-lineage", "polars", "pandas", "pyarrow", "duckdb", "sqlglot"]),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lineage_influences.json").write_text(json.dumps(result, indent=1) + "\n")
    print("| steps | influences | by column | false DIRECT | false INDIRECT | not covered |\n|---|---|---|---|---|---|")
    for name, case in cases.items():
        shown = (
            case["influences"],
            f"{case['share']:.0%}",
            f"{case['false direct']:.0%}",
            f"{case['false indirect']:.0%}",
        )
        print(f"| {name} ({case['steps']}) | {' | '.join(map(str, shown))} | {len(case['uncovered'])} |")
    for name, value in costs.items():
        print(f"{name}: {value:g} us")
    return result


if __name__ == "__main__":
    main()
