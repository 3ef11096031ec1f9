"""Change each input column, run again: every output column that changed must be covered by an edge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from tidemill_lineage.capture.polars import Capture, capture

LEFT, RIGHT, OUT = "test://left", "test://right", "test://out"
ROWS = 24
START = datetime(2013, 1, 1)  # noqa: DTZ001  # polars columns without a time zone

Op = Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]


def left_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": list(range(ROWS)),
            "k": [i % 5 for i in range(ROWS)],
            "a": [(i * 7) % 11 for i in range(ROWS)],
            "b": [((i * 5) % 13) / 2 for i in range(ROWS)],
            "s": ["abcde"[i % 5] + str(i % 3) for i in range(ROWS)],
            "t": [START + timedelta(hours=i) for i in range(ROWS)],
            "l": [[i, i + 1] for i in range(ROWS)],
            "n": [None if i % 4 == 0 else i for i in range(ROWS)],
            "flag": [i % 3 == 0 for i in range(ROWS)],
        }
    )


def right_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "k": [0, 1, 2, 3, 7],
            "a": [3, 1, 4, 1, 5],
            "c": [10, 20, 30, 40, 50],
            "w": ["u", "v", "w", "x", "y"],
            "t2": [START + timedelta(hours=i * 4, minutes=30) for i in range(5)],
        }
    )


def changed(frame: pl.DataFrame, name: str, way: int) -> pl.DataFrame:
    """Two different changes of one column: shift its values, or change a single one."""
    kind = frame[name].dtype
    values = frame[name].to_list()
    if way == 0:
        values = values[1:] + values[:1]
    elif way == 1:
        values = values[::-1]
    elif kind == pl.String:
        values[2] = "zz"
    elif kind == pl.Boolean:
        values[2] = not values[2]
    elif kind == pl.Datetime:
        values[2] = START + timedelta(days=1)
    elif isinstance(kind, pl.List):
        values[2] = [99]
    else:
        values[2] = 99
    return frame.with_columns(pl.Series(name, values, dtype=kind))


OPS: dict[str, Op] = {
    "select": lambda x, y: x.select("id", z=pl.col("a") + pl.col("b")),
    "select_all": lambda x, y: x.select(pl.all().exclude("l")),
    "rename": lambda x, y: x.rename({"a": "b2"}).select("id", "b2"),
    "swap_names": lambda x, y: x.select("id", a=pl.col("b"), b=pl.col("a")),
    "with_columns": lambda x, y: x.with_columns(a=pl.col("a") * 2, z=pl.col("s").str.len_chars()),
    "filter": lambda x, y: x.filter(pl.col("a") > 4).select("id", "b"),
    "filter_two": lambda x, y: x.filter(pl.col("a") > 2, pl.col("flag")).select("id", "k"),
    "remove": lambda x, y: x.remove(pl.col("a") > 4).select("id", "b"),
    "ternary": lambda x, y: x.select("id", z=pl.when(pl.col("a") > 4).then("b").otherwise("k")),
    "cast": lambda x, y: x.select("id", z=pl.col("a").cast(pl.String)),
    "fill_null": lambda x, y: x.select("id", n=pl.col("n").fill_null(pl.col("a"))),
    "drop_nulls": lambda x, y: x.drop_nulls().select("id", "k"),
    "group_by": lambda x, y: x.group_by("k").agg(pl.col("a").sum(), m=pl.col("b").mean(), n=pl.len()).sort("k"),
    "group_by_expression": lambda x, y: x.group_by(g=pl.col("a") % 3).agg(pl.col("b").max()).sort("g"),
    "group_by_filtered": lambda x, y: x.group_by("k").agg(z=pl.col("a").filter(pl.col("flag")).sum()).sort("k"),
    "group_by_sorted_first": lambda x, y: x.group_by("k").agg(z=pl.col("s").sort_by("b").first()).sort("k"),
    "group_by_list": lambda x, y: x.group_by("k", maintain_order=True).agg("a"),
    "group_by_head": lambda x, y: x.group_by("k", maintain_order=True).head(2).select("k", "a"),
    "group_by_dynamic": lambda x, y: x.sort("t").group_by_dynamic("t", every="6h").agg(pl.col("a").sum()),
    "group_by_dynamic_by": lambda x, y: (
        x.sort("t").group_by_dynamic("t", every="6h", group_by="flag", include_boundaries=True).agg(pl.len())
    ),
    "rolling": lambda x, y: x.sort("t").rolling("t", period="3h").agg(pl.col("b").mean()),
    "rolling_mean": lambda x, y: x.select("id", z=pl.col("a").rolling_mean(3)),
    "rolling_mean_by": lambda x, y: x.sort("t").select("id", z=pl.col("b").rolling_mean_by("t", "3h")),
    "ewm": lambda x, y: x.select("id", z=pl.col("b").ewm_mean(alpha=0.5)),
    "over": lambda x, y: x.select("id", z=pl.col("a").sum().over("k")),
    "over_ordered": lambda x, y: x.select("id", z=pl.col("a").cum_sum().over("k", order_by="b")),
    "rank_over": lambda x, y: x.select("id", z=pl.col("a").rank("ordinal").over("s")),
    "cum_sum": lambda x, y: x.select("id", z=pl.col("a").cum_sum()),
    "shift": lambda x, y: x.shift(1).select("id", "a"),
    "diff": lambda x, y: x.select("id", z=pl.col("a").diff()),
    "sort": lambda x, y: x.sort("b", "id").select("id", "a"),
    "sort_head": lambda x, y: x.sort("b", "id").head(3).select("id", "s"),
    "top_k": lambda x, y: x.top_k(3, by=["a", "id"]).select("id", "s"),
    "head": lambda x, y: x.head(3),
    "tail": lambda x, y: x.tail(3).select("id", "b"),
    "slice": lambda x, y: x.slice(2, 5).select("b", "k"),
    "reverse": lambda x, y: x.reverse().select("id", "s"),
    "gather_every": lambda x, y: x.gather_every(3).select("id", "a"),
    "unique": lambda x, y: x.unique("k", keep="first", maintain_order=True).select("k", "a"),
    "unique_all": lambda x, y: x.select("k", "flag").unique(maintain_order=True),
    "with_row_index": lambda x, y: x.with_row_index("row").select("row", "a"),
    "explode": lambda x, y: x.explode("l").select("id", "l"),
    "implode": lambda x, y: x.select(pl.col("a").implode(), pl.col("b").implode()),
    "unpivot": lambda x, y: x.unpivot(on=["a", "k"], index="id"),
    "unnest": lambda x, y: x.select("id", z=pl.struct("a", "b")).unnest("z"),
    "struct_field": lambda x, y: x.select("id", z=pl.struct("a", "b").struct.field("a")),
    "pivot": lambda x, y: x.pivot(
        on="flag", on_columns=[True, False], index="k", values="a", aggregate_function="sum"
    ).sort("k"),
    "transpose_like": lambda x, y: x.select(pl.concat_list("a", "k").alias("z"), "id"),
    "concat_str": lambda x, y: x.select("id", z=pl.concat_str("s", "a", separator="-")),
    "string_replace": lambda x, y: x.select("id", z=pl.col("s").str.replace("a", "b")),
    "date_parts": lambda x, y: x.select("id", z=pl.col("t").dt.hour()),
    "is_in_column": lambda x, y: x.select("id", z=pl.col("a").is_in(pl.col("k").implode())),
    "horizontal": lambda x, y: x.select("id", z=pl.max_horizontal("a", "k"), y=pl.sum_horizontal("a", "b")),
    "quantile": lambda x, y: x.select(pl.col("b").quantile(0.3), pl.col("a").std()),
    "count_rows": lambda x, y: x.filter(pl.col("a") > 4).select(n=pl.len()),
    "value_counts": lambda x, y: x.select(pl.col("k").value_counts(sort=True)),
    "mode": lambda x, y: x.select(pl.col("k").mode().sort()),
    "corr": lambda x, y: x.select(pl.corr("a", "b")),
    "clip": lambda x, y: x.select("id", z=pl.col("b").clip(1, pl.col("k"))),
    "replace_strict": lambda x, y: x.select("id", z=pl.col("k").replace({1: 100})),
    "gather": lambda x, y: x.select(z=pl.col("a").gather(pl.col("k") % 4)),
    "expr_filter": lambda x, y: x.select(z=pl.col("a").filter(pl.col("flag")).sum()),
    "arg_sort_gather": lambda x, y: x.select(z=pl.col("s").gather(pl.col("b").arg_sort())),
    "list_eval": lambda x, y: x.select("id", z=pl.col("l").list.eval(pl.element() * 2)),
    "map_elements": lambda x, y: x.select("id", z=pl.col("a").map_elements(lambda v: v + 1, return_dtype=pl.Int64)),
    "map_batches": lambda x, y: x.select("id", z=pl.col("a").map_batches(lambda v: v * 2, return_dtype=pl.Int64)),
    "fold": lambda x, y: x.select(
        "id", z=pl.fold(pl.lit(0), lambda acc, v: acc + v, [pl.col("a"), pl.col("k")], return_dtype=pl.Int64)
    ),
    "frame_map_batches": lambda x, y: x.select("id", "a").map_batches(lambda d: d.with_columns(a=d["a"] + 1)),
    "pipe": lambda x, y: x.pipe(lambda f: f.select("id", z=pl.col("b") * 2)),
    "sql": lambda x, y: x.sql("SELECT k, SUM(a) AS z FROM self WHERE b > 1 GROUP BY k ORDER BY k"),
    "join": lambda x, y: x.join(y, on="k", maintain_order="left_right").select("id", "c"),
    "join_suffix": lambda x, y: x.join(y, on="k", maintain_order="left_right").select("id", "a", "a_right"),
    "join_left": lambda x, y: x.join(y, on="k", how="left", maintain_order="left_right").select("id", "k", "w"),
    "join_right": lambda x, y: x.join(y, on="k", how="right", maintain_order="right_left").select("id", "k", "w", "b"),
    "join_full": lambda x, y: x.join(y, on="k", how="full", maintain_order="left_right").select(
        "id", "k", "k_right", "c"
    ),
    "join_full_coalesce": lambda x, y: x.join(y, on="k", how="full", coalesce=True, maintain_order="left_right").select(
        "id", "k", "a", "a_right"
    ),
    "join_semi": lambda x, y: x.join(y, on="k", how="semi", maintain_order="left").select("id", "b"),
    "join_anti": lambda x, y: x.join(y, on="k", how="anti", maintain_order="left").select("id", "b"),
    "join_cross": lambda x, y: x.select("id", "a").join(y.select("c"), how="cross"),
    "join_other_keys": lambda x, y: x.join(y, left_on="a", right_on="k", maintain_order="left_right").select(
        "id", "a", "k", "c"
    ),
    "join_two_keys": lambda x, y: x.join(y, on=["k", "a"], maintain_order="left_right").select("id", "c"),
    "join_expression": lambda x, y: x.join(
        y, left_on=pl.col("k") + 1, right_on=pl.col("k"), maintain_order="left_right"
    ).select("id", "c"),
    "join_where": lambda x, y: x.join_where(y, pl.col("a") < pl.col("c")).select("id", "c").sort("id", "c"),
    "join_asof": lambda x, y: x.sort("t").join_asof(y.sort("t2"), left_on="t", right_on="t2").select("id", "c", "w"),
    "join_asof_by": lambda x, y: (
        x.sort("t")
        .join_asof(y.sort("t2"), left_on="t", right_on="t2", by="k", check_sortedness=False)
        .select("id", "k", "c")
    ),
    "join_self": lambda x, y: x.join(x, left_on="id", right_on="a", maintain_order="left_right").select(
        "id", "b", "b_right"
    ),
    "concat": lambda x, y: pl.concat([x.select("k", "a"), y.select("k", "a")]),
    "concat_diagonal": lambda x, y: pl.concat([x.select("k", "b"), y.select("k", "c")], how="diagonal"),
    "concat_horizontal": lambda x, y: pl.concat([x.select("id").head(5), y.select("c")], how="horizontal"),
    "merge_sorted": lambda x, y: x.select("k", "a").sort("k").merge_sorted(y.select("k", "a").sort("k"), key="k"),
    "update": lambda x, y: x.select("k", "a").update(y.select("k", "a"), on="k"),
    "nested": lambda x, y: (
        x.filter(pl.col("flag"))
        .join(y, on="k", how="left", maintain_order="left_right")
        .group_by("w", maintain_order=True)
        .agg(total=(pl.col("a") * pl.col("c")).sum(), n=pl.len())
        .with_columns(share=pl.col("total") / pl.col("total").sum())
    ),
    "cache": lambda x, y: pl.concat([(z := x.filter(pl.col("a") > 3).cache()).select("id"), z.select(id=pl.col("k"))]),
    "constant": lambda x, y: x.select("id", z=pl.lit(3)),
    "literal_frame": lambda x, y: x.join(
        pl.LazyFrame({"k": [0, 1], "q": [5, 6]}), on="k", maintain_order="left"
    ).select("id", "q"),
}


def covered(found: Capture, source: str, column: str, target: str) -> bool:
    return any(
        edge.source == source and edge.source_column in ("", column) and edge.target_column in ("", target)
        for edge in found.edges
    )


def differs(before: pl.DataFrame, after: pl.DataFrame, name: str) -> bool:
    if name not in after.columns:
        return True
    return not before[name].equals(after[name], null_equal=True)


def missing_edges(op: Op, look: Callable[..., Capture] = capture) -> tuple[Capture, list[str]]:
    """Every (input column, output column) that influences each other but has no edge."""
    frames = {LEFT: left_frame(), RIGHT: right_frame()}
    lazy = {urn: frame.lazy() for urn, frame in frames.items()}
    result = op(lazy[LEFT], lazy[RIGHT])
    found = look(result, lazy, output=OUT)
    before = result.collect()
    missing = []
    for urn, frame in frames.items():
        for column in frame.columns:
            for way in range(3):
                other = {**lazy, urn: changed(frame, column, way).lazy()}
                after = op(other[LEFT], other[RIGHT]).collect()
                missing += [
                    f"{urn}#{column} -> {name}"
                    for name in before.columns
                    if differs(before, after, name) and not covered(found, urn, column, name)
                ]
    return found, missing


@pytest.mark.parametrize("name", OPS)
def test_every_observed_influence_is_covered_by_an_edge(name: str) -> None:
    found, missing = missing_edges(OPS[name])

    assert missing == []
    assert found.method in ("plan", "probe"), found.reason


def test_the_oracle_notices_a_missing_edge() -> None:
    def blind(*args: Any, **kwargs: Any) -> Capture:
        found = capture(*args, **kwargs)
        return Capture(edges=tuple(e for e in found.edges if e.source_column != "a"), method=found.method)

    _, missing = missing_edges(OPS["select"], blind)

    assert f"{LEFT}#a -> z" in missing


@pytest.mark.parametrize("name", ["join", "group_by", "over", "ternary", "filter", "nested", "join_right"])
def test_plans_of_common_operations_are_read_without_the_probe(name: str) -> None:
    found, _ = missing_edges(OPS[name])

    assert found.method == "plan", found.reason
