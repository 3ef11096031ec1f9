"""DuckDB steps: whatever a change of an input column changes must be covered, and most of it column by column."""

from __future__ import annotations

import importlib
from typing import Any

import duckdb
import pandas as pd

oracle: Any = importlib.import_module(".values_oracle", __package__) if __package__ else None
FLOOR = 0.95
"""Share of the influences that must have an edge between columns; the rest have one from the whole dataset."""


def make(columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def read(result: Any) -> dict[str, list[Any]]:
    if isinstance(result, duckdb.DuckDBPyRelation):
        return {name: [row[i] for row in result.fetchall()] for i, name in enumerate(result.columns)}
    if hasattr(result, "to_pydict"):
        return result.to_pydict()
    if hasattr(result, "to_dicts"):
        return result.to_dict(as_series=False)
    return {str(name): list(result[name]) for name in result.columns}


def _execute(x: Any, y: Any) -> Any:
    con = duckdb.connect()
    con.execute("CREATE TABLE t AS SELECT id, a + b AS z FROM x WHERE k > 1")
    return con.execute("SELECT id, z * 2 AS z FROM t ORDER BY id").df()


def _register(x: Any, y: Any) -> Any:
    con = duckdb.connect()
    con.register("orders", x)
    return con.sql("SELECT id, a FROM orders WHERE b > 3 ORDER BY id").df()


def _variable(x: Any, y: Any) -> Any:
    few = x[x.a > 3]  # noqa: F841  # the query names it
    return duckdb.sql("SELECT id, b FROM few ORDER BY id").df()


def _over_relation(x: Any, y: Any) -> Any:
    few = duckdb.from_df(x).filter("a > 3")  # noqa: F841  # the query names it
    return duckdb.sql("SELECT id FROM few ORDER BY id")


def _rows(x: Any, y: Any) -> Any:
    most = duckdb.sql("SELECT max(c) FROM y").fetchall()[0][0]
    return x.assign(z=x.a / most)[["id", "z"]]


STEPS: dict[str, Any] = {
    "sql": lambda x, y: duckdb.sql("SELECT id, a + b AS z FROM x WHERE k > 1 ORDER BY id"),
    "sql to pandas": lambda x, y: duckdb.sql("SELECT id, a FROM x ORDER BY b, id").df(),
    "sql to polars": lambda x, y: duckdb.sql("SELECT id, a FROM x ORDER BY id").pl(),
    "sql to arrow": lambda x, y: duckdb.sql("SELECT id, a FROM x ORDER BY id").to_arrow_table(),
    "join": lambda x, y: duckdb.sql("SELECT x.id, y.c FROM x JOIN y USING (k) ORDER BY id, c"),
    "group": lambda x, y: duckdb.sql("SELECT k, sum(a) AS t, count(*) AS n FROM x GROUP BY k ORDER BY k"),
    "group all": lambda x, y: duckdb.sql("SELECT k, sum(a) AS t FROM x GROUP BY ALL ORDER BY ALL"),
    "star": lambda x, y: duckdb.sql("SELECT * FROM y WHERE c > 10 ORDER BY k"),
    "exclude": lambda x, y: duckdb.sql("SELECT * EXCLUDE (s, n) FROM x ORDER BY id"),
    "with": lambda x, y: duckdb.sql("WITH q AS (SELECT id, a * 2 AS z FROM x) SELECT id, z FROM q WHERE z > 4 ORDER BY id"),
    "window": lambda x, y: duckdb.sql("SELECT id, sum(a) OVER (PARTITION BY k ORDER BY id) AS z FROM x ORDER BY id"),
    "case": lambda x, y: duckdb.sql("SELECT id, CASE WHEN b > 3 THEN a ELSE k END AS z FROM x ORDER BY id"),
    "in": lambda x, y: duckdb.sql("SELECT id FROM x WHERE k IN (SELECT k FROM y WHERE c > 20) ORDER BY id"),
    "filter": lambda x, y: duckdb.from_df(x).filter("a > 3").order("id").project("id, b"),
    "aggregate": lambda x, y: duckdb.from_df(x).aggregate("k, sum(a) AS t", "k").order("k"),
    "expression": lambda x, y: duckdb.from_df(x).filter(duckdb.ColumnExpression("a") > 3).order("id").select("id"),
    "relation join": lambda x, y: duckdb.from_df(x).set_alias("l").join(duckdb.from_df(y).set_alias("r"), "l.k = r.k").order("id, c").project("id, c"),
    "union": lambda x, y: duckdb.from_df(x).project("k, a").union(duckdb.from_df(y).project("k, a")).order("k, a"),
    "distinct": lambda x, y: duckdb.from_df(x).project("k").distinct().order("k"),
    "limit": lambda x, y: duckdb.from_df(x).order("b, id").limit(3).project("id"),
    "sum": lambda x, y: duckdb.from_df(x).sum("a"),
    "over a relation": _over_relation,
    "execute": _execute,
    "register": _register,
    "variable": _variable,
    "rows": _rows,
}  # fmt: skip


def test_influences_are_covered_and_most_of_them_by_column() -> None:
    found = oracle.score(STEPS, make, read)

    assert found.uncovered == []
    assert found.faults == []
    assert found.without_columns == []
    assert found.share >= FLOOR, found.dataset_only
    assert found.false_direct <= 0.25, found.direct_false
