"""Eager and half-collected steps: change each input column, run again; what changed must be covered.

Every influence must be covered by some edge, and most by an edge between columns: an edge that joins whole
datasets says less than could be known, and counts as missing there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from tidemill_lineage import Tracer
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.model import Edge

oracle: Any = importlib.import_module(".test_polars_oracle", __package__) if __package__ else None
LEFT, RIGHT, OUT = "test://left", "test://right", "test://out"
Step = Callable[[Any, Any], Any]

EAGER: dict[str, Step] = {
    "select": lambda x, y: x.select("id", z=pl.col("a") + pl.col("b")),
    "filter": lambda x, y: x.filter(pl.col("a") > 4).select("id", "b"),
    "with_columns": lambda x, y: x.with_columns(z=pl.col("s").str.len_chars()).select("id", "z"),
    "join": lambda x, y: x.join(y, on="k", maintain_order="left").select("id", "c"),
    "join then filter": lambda x, y: x.join(y, on="k", maintain_order="left").filter(pl.col("c") > 10).select("id", "w"),
    "group_by": lambda x, y: x.group_by("k", maintain_order=True).agg(pl.col("a").sum()),
    "chained": lambda x, y: x.with_columns(z=pl.col("a") * 2).filter(pl.col("z") > 4).group_by("k", maintain_order=True).agg(pl.col("b").max()),
    "sort": lambda x, y: x.sort("a", maintain_order=True).select("id"),
    "unique": lambda x, y: x.unique("k", keep="first", maintain_order=True).select("id", "k"),
    "rename": lambda x, y: x.rename({"a": "q"}).select("id", "q"),
    "drop": lambda x, y: x.drop("l", "t", "flag"),
    "drop_nulls": lambda x, y: x.drop_nulls("n").select("id"),
    "fill_null": lambda x, y: x.fill_null(0).select("n"),
    "top_k": lambda x, y: x.top_k(3, by="id").select("id", "a"),
    "head": lambda x, y: x.select("id", "a").head(5),
    "slice": lambda x, y: x.select("id", "b").slice(3, 6),
    "tail": lambda x, y: x.select("id", "b").tail(4),
    "item columns": lambda x, y: x[["id", "a"]],
    "clone": lambda x, y: x.select("a", "b").clone(),
    "hstack": lambda x, y: x.select("id").hstack([x["a"].rename("q")]),
    "vstack": lambda x, y: x.select("id", "a").vstack(x.select("id", "a")),
    "concat": lambda x, y: pl.concat([x.select("k", "a"), y.select("k", "a")]),
    "pivot": lambda x, y: x.head(6).pivot("k", index="id", values="a", aggregate_function="sum").select("id"),
    "unpivot": lambda x, y: x.select("id", "a", "k").unpivot(index="id"),
    "explode": lambda x, y: x.select("id", "l").explode("l"),
    "with_row_index": lambda x, y: x.with_row_index().select("index", "a"),
    "semi join": lambda x, y: x.join(y, on="k", how="semi").select("id"),
}  # fmt: skip
HALF: dict[str, Step] = {
    "one side collected": lambda x, y: x.join(y.filter(pl.col("c") > 10).collect().lazy(), on="k", maintain_order="left").select("id", "w"),
    "both collected": lambda x, y: x.filter(pl.col("a") > 3).collect().lazy().join(y.collect().lazy(), on="k", maintain_order="left").select("id", "c"),
    "collected twice": lambda x, y: x.with_columns(z=pl.col("a") + 1).collect().lazy().filter(pl.col("z") > 3).collect().lazy().select("id", "z"),
    "collected at the end": lambda x, y: x.group_by("k", maintain_order=True).agg(pl.col("b").sum()).collect(),
    "eager in the middle": lambda x, y: x.collect().filter(pl.col("a") > 3).lazy().select("id", q=pl.col("b") * 2),
    "head of a collected frame": lambda x, y: x.select("id", "a").collect().head(5).lazy().with_columns(pl.col("a") * 2),
}  # fmt: skip


def traced(step: Step, left: Any, right: Any) -> tuple[Any, tuple[Edge, ...]]:
    memory = MemoryEmitter()
    tracer = Tracer([memory], strict=True)
    result = tracer.trace(inputs={"x": LEFT, "y": RIGHT}, output=OUT)(step)(left, right)
    tracer.close()
    return result, tuple(edge for run in memory.runs for edge in run.edges)


def influences(step: Step, *, is_lazy: bool) -> tuple[tuple[Edge, ...], list[tuple[str, str, str]]]:
    """The edges of a step, and the influences it really has: source, its column, the result's column."""

    def given(frame: pl.DataFrame) -> Any:
        return frame.lazy() if is_lazy else frame

    def eager(frame: Any) -> pl.DataFrame:
        return frame.collect() if isinstance(frame, pl.LazyFrame) else frame

    frames = {LEFT: oracle.left_frame(), RIGHT: oracle.right_frame()}
    result, edges = traced(step, given(frames[LEFT]), given(frames[RIGHT]))
    before = eager(result)
    found = set()
    for urn, frame in frames.items():
        for column in frame.columns:
            for way in range(3):
                other = {**frames, urn: oracle.changed(frame, column, way)}
                after = eager(step(given(other[LEFT]), given(other[RIGHT])))
                found |= {(urn, column, name) for name in before.columns if oracle.differs(before, after, name)}
    return edges, sorted(found)


def is_covered(edges: tuple[Edge, ...], source: str, column: str, target: str, *, by_column: bool) -> bool:
    columns = (column,) if by_column else ("", column)
    return any(e.source == source and e.source_column in columns and e.target_column in ("", target) for e in edges)


@pytest.mark.parametrize(("steps", "is_lazy", "share"), [(EAGER, False, 0.9), (HALF, True, 0.8)], ids=["eager", "half"])
def test_influences_are_covered_and_most_of_them_by_column(steps: dict[str, Step], is_lazy: bool, share: float) -> None:
    uncovered, by_column, count = [], 0, 0
    for name, step in steps.items():
        edges, found = influences(step, is_lazy=is_lazy)
        for each in found:
            count += 1
            by_column += is_covered(edges, *each, by_column=True)
            if not is_covered(edges, *each, by_column=False):
                uncovered.append((name, *each))

    assert uncovered == []
    assert by_column / count >= share, f"{by_column} of {count}"


def test_the_oracle_notices_a_step_without_edges() -> None:
    _, found = influences(EAGER["join"], is_lazy=False)

    assert (RIGHT, "c", "c") in found
    assert not is_covered((), RIGHT, "c", "c", by_column=False)


def test_the_result_of_an_eager_step_is_the_functions_own_and_the_hooks_are_gone() -> None:
    collect = pl.LazyFrame.collect
    own = pl.DataFrame({"a": [1]})

    result, _ = traced(lambda x, y: own, oracle.left_frame(), oracle.right_frame())

    assert result is own
    assert pl.LazyFrame.collect is collect


def test_a_frame_made_from_nothing_known_stands_for_all_inputs_and_says_so() -> None:
    def opaque(x: pl.DataFrame, y: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({"total": [1]})

    _, edges = traced(opaque, oracle.left_frame(), oracle.right_frame())

    assert {(e.source, e.source_column, e.method) for e in edges} == {(LEFT, "", "assumed"), (RIGHT, "", "assumed")}


def test_values_that_went_through_plain_python_keep_the_column_they_left() -> None:
    def summed(x: pl.DataFrame, y: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({"total": [sum(x["a"].to_list())]})

    _, edges = traced(summed, oracle.left_frame(), oracle.right_frame())

    assert {(e.source, e.source_column, e.method) for e in edges} == {(LEFT, "a", "assumed")}
