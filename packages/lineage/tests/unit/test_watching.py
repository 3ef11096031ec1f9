"""What is watched is left as it was: the function's own objects, the library's own methods, and its own errors."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tidemill_lineage import Tracer
from tidemill_lineage.capture import hooks
from tidemill_lineage.capture.watch import pandas_doors
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.model import Edge

IN, OUT = "t://in", "t://out"
ORDERS = pd.DataFrame({"day": [1, 1, 2], "amount": [1.0, 2.0, 3.0]})
WATCHED = [pd.DataFrame, pd.Series, pd, np, pl.DataFrame, pl.Series, pl.LazyFrame, pl, pc, duckdb]


def edges(function: Any, *frames: Any) -> tuple[Edge, ...]:
    memory = MemoryEmitter()
    tracer = Tracer([memory])
    tracer.trace(inputs={}, output=OUT)(function) if not frames else None
    names = function.__code__.co_varnames[: len(frames)]
    tracer.trace(inputs={name: f"{IN}/{name}" for name in names}, output=OUT)(function)(*frames)
    tracer.close()
    return tuple(edge for run in memory.runs for edge in run.edges)


def told(found: tuple[Edge, ...]) -> set[tuple[str, str, str]]:
    return {(e.source_column, e.target_column, e.kind) for e in found}


def attributes() -> list[dict[str, Any]]:
    return [dict(vars(each)) for each in WATCHED]


@pytest.mark.parametrize("fails", [False, True])
def test_all_doors_are_gone_afterwards(fails: bool) -> None:
    before = attributes()

    def step(x: Any) -> Any:
        assert pd.DataFrame.__getitem__ is not before[0]["__getitem__"]
        if fails:
            raise KeyError("mine")
        return x[["amount"]]

    if fails:
        with pytest.raises(KeyError, match="mine"):
            edges(step, ORDERS)
    else:
        edges(step, ORDERS)

    after = attributes()
    changed = [
        (owner, name)
        for owner, old, new in zip(WATCHED, before, after, strict=True)
        for name in {*old, *new}
        if name not in ("__doc__", "__array_ufunc__") and old.get(name) is not new.get(name)
    ]
    assert changed == []


def test_the_result_is_the_functions_own_object_and_no_subclass() -> None:
    made: list[Any] = []

    def step(x: Any) -> Any:
        made.append(x.assign(z=x.amount * 2))
        return made[0]

    result = Tracer().trace(step)(ORDERS)

    assert result is made[0]
    assert type(result) is pd.DataFrame


def test_errors_of_a_watched_operation_are_its_own() -> None:
    with pytest.raises(KeyError, match="nothing"):
        edges(lambda x: x["nothing"], ORDERS)


def test_an_operation_outside_a_traced_call_is_not_noted() -> None:
    seen: list[Any] = []

    def step(x: Any) -> Any:
        def other() -> None:
            seen.append(pd.DataFrame({"a": [1]})["a"].sum())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return x[["amount"]]

    found = edges(step, ORDERS)

    assert seen == [1]
    assert told(found) == {("amount", "amount", "DIRECT")}


def test_what_a_call_made_on_the_way_is_let_go_with_it() -> None:
    left: list[weakref.ref[Any]] = []

    def step(x: Any) -> Any:
        half = x[x.day > 1].copy()
        left.append(weakref.ref(half))
        return half[["amount"]].sum()

    edges(step, ORDERS)
    gc.collect()

    assert left[0]() is None


def test_steps_of_pandas_are_one_chain_column_by_column() -> None:
    tracer = Tracer()

    def load() -> Any:
        return ORDERS.copy()

    def clean(frame: Any) -> Any:
        return frame[frame["amount"] > 1]

    def daily(frame: Any) -> Any:
        return frame.groupby("day", as_index=False).agg(total=("amount", "sum"))

    tracer.trace(daily)(tracer.trace(clean)(tracer.trace(load)()))

    (last,) = [urn for urn in tracer.graph().datasets if urn.endswith("daily")]
    above = {each.rpartition(".")[2] for each in tracer.graph().upstream(f"{last}#total")}
    assert {"clean#amount", "load#amount", "load#day"} <= above


def test_a_named_index_is_a_column_of_the_result_and_of_the_next_step() -> None:
    tracer = Tracer()
    grouped = tracer.trace(output="t://grouped")(lambda: ORDERS.groupby("day")[["amount"]].sum())()  # noqa: PLW0108
    tracer.trace(output=OUT)(lambda x: x.reset_index()[["day"]])(grouped)

    graph = tracer.graph()
    assert [column.name for column in graph.datasets["t://grouped"].columns] == ["day", "amount"]
    assert graph.upstream(f"{OUT}#day") == ["t://grouped#day"]


def test_a_series_is_a_result_with_one_column() -> None:
    assert ("amount", "amount", "DIRECT") in told(edges(lambda x: x.groupby("day")["amount"].sum(), ORDERS))


@pytest.mark.parametrize(
    ("function", "frame"),
    [
        pytest.param(lambda x: x.to_pandas()[["amount"]], pl.from_pandas(ORDERS), id="polars to pandas"),
        pytest.param(lambda x: pl.from_pandas(x[["amount"]]), ORDERS, id="pandas to polars"),
        pytest.param(lambda x: x.to_pandas()[["amount"]], pa.table(dict(ORDERS)), id="arrow to pandas"),
        pytest.param(lambda x: pa.Table.from_pandas(x[["amount"]]), ORDERS, id="pandas to arrow"),
        pytest.param(lambda x: duckdb.sql("SELECT amount FROM x").pl(), ORDERS, id="pandas by DuckDB to polars"),
        pytest.param(lambda x: pl.from_arrow(x.select(["amount"])), pa.table(dict(ORDERS)), id="arrow to polars"),
        pytest.param(
            lambda x: pl.from_pandas(x.to_pandas()).filter(pl.col("amount") > 0).to_pandas()[["amount"]],
            pl.from_pandas(ORDERS),
            id="there and back",
        ),
    ],
)
def test_columns_are_followed_from_one_library_into_another(function: Any, frame: Any) -> None:
    found = edges(function, frame)

    assert ("amount", "amount", "DIRECT") in told(found)
    assert not [edge for edge in found if edge.kind == "DIRECT" and edge.source_column != "amount"]


def test_a_number_that_left_one_frame_and_filters_another_keeps_its_influence() -> None:
    def above(x: Any, y: Any) -> Any:
        least = x["amount"].mean()
        return y.filter(pl.col("amount") > least)

    assert ("amount", "", "INDIRECT") in told(edges(above, ORDERS, pl.from_pandas(ORDERS)))


def test_the_literals_of_the_code_are_no_data() -> None:
    def step(x: Any) -> Any:
        print(x["day"].max())
        return x.assign(z=x["amount"] * 1.5)[["z"]]

    direct = {each for each in told(edges(step, ORDERS)) if each[2] == "DIRECT"}

    assert direct == {("amount", "z", "DIRECT")}


def test_a_frame_that_nothing_explains_stands_for_all_inputs_and_says_so() -> None:
    hidden = ORDERS.copy()

    found = edges(lambda x: hidden[["amount"]], ORDERS)

    assert {(e.source, e.source_column, e.method) for e in found} == {(f"{IN}/x", "", "assumed")}


def test_every_public_operation_of_pandas_has_a_rule_or_is_assumed_to_use_all() -> None:
    for owner in (pd.DataFrame, pd.Series):
        watched = {door.name for door in pandas_doors.doors()["deep"] if door.owner is owner}
        public = {name for name in dir(owner) if not name.startswith("_") and not name.startswith("to_")}

        assert public - watched <= pandas_doors.MADE_OF_OTHERS, owner


def test_a_version_that_was_not_tested_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd, "__version__", "9.0.0")

    assert pandas_doors.doors() == {}


def test_a_rule_that_fails_is_counted_and_its_result_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(op: Any) -> Any:
        raise LookupError("other insides")

    monkeypatch.setitem(pandas_doors._TABLE, broken, "round")  # type: ignore[index]
    monkeypatch.setattr(hooks, "_doors", {})
    memory = MemoryEmitter()
    tracer = Tracer([memory])

    tracer.trace(inputs={"x": IN}, output=OUT)(lambda x: x.round())(ORDERS)
    tracer.close()

    assert tracer.stats.errors == {"watch:LookupError": 1}
    assert {(e.source_column, e.method) for e in memory.runs[0].edges} == {("day", "assumed"), ("amount", "assumed")}


def test_calls_at_the_same_time_are_told_apart() -> None:
    memory = MemoryEmitter()
    tracer = Tracer([memory])
    meet = threading.Barrier(2, timeout=60)

    def step(x: Any, name: str) -> Any:
        meet.wait()
        result = x[[name]]
        meet.wait()
        return result

    traced = tracer.trace(inputs={"x": IN}, output=OUT)(step)
    threads = [threading.Thread(target=traced, args=(ORDERS, name)) for name in ("day", "amount")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    tracer.close()

    direct = {(e.source_column, e.target_column) for run in memory.runs for e in run.edges if e.kind == "DIRECT"}
    assert direct == {("day", "day"), ("amount", "amount")}
