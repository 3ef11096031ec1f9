"""Steps that nobody named are linked by the frames they hand on, whatever kind of callable they are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from tidemill_lineage import Tracer
from tidemill_lineage.emitters.memory import MemoryEmitter

IN, OUT = "pg://db/raw.orders", "pg://db/mart.daily"
ORDERS = pl.LazyFrame({"day": [1, 1, 2], "amount": [1.0, 2.0, 3.0]})


@pytest.fixture
def memory() -> MemoryEmitter:
    return MemoryEmitter()


@pytest.fixture
def tracer(memory: MemoryEmitter) -> Iterator[Tracer]:
    tracer = Tracer([memory], strict=True)
    yield tracer
    tracer.strict = False
    tracer.close()


def columns_above(tracer: Tracer, end: str) -> list[str]:
    graph = tracer.graph()
    (last,) = [urn for urn in graph.datasets if urn.endswith(end)]
    return [each.rpartition(".")[2] for each in graph.upstream(f"{last}#amount")]


def load() -> pl.LazyFrame:
    return ORDERS.filter(pl.col("day") > 0)


def clean(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.filter(pl.col("day") > 1)


class Doubler:
    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.with_columns(pl.col("amount") * 2)

    @staticmethod
    def fixed(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.with_columns(pl.col("amount") * 2)

    @classmethod
    def of_class(cls, frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.with_columns(pl.col("amount") * 2)

    def bound(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.with_columns(pl.col("amount") * 2)


def by_name(**frames: pl.LazyFrame) -> pl.LazyFrame:
    return frames["frame"]


def test_steps_without_any_name_are_one_chain(tracer: Tracer) -> None:
    tracer.trace(clean)(tracer.trace(load)())

    assert columns_above(tracer, "clean") == ["load#amount", "load#day"]


@pytest.mark.parametrize("is_eager", [True, False])
def test_eager_and_lazy_steps_are_one_chain(tracer: Tracer, is_eager: bool) -> None:
    def first() -> Any:
        return ORDERS.collect() if is_eager else ORDERS

    def second(frame: Any) -> Any:
        return frame.filter(pl.col("day") > 1)

    tracer.trace(second)(tracer.trace(first)())

    assert columns_above(tracer, "second") == ["first#amount", "first#day"]


@pytest.mark.parametrize(
    "step",
    [Doubler(), Doubler.fixed, Doubler.of_class, Doubler().bound, lambda *frames: frames[0], by_name],
)
def test_every_kind_of_callable_is_a_step(tracer: Tracer, step: Any) -> None:
    loaded = tracer.trace(load)()
    traced = tracer.trace(output=OUT)(step)

    result = traced(frame=loaded) if step is by_name else traced(loaded)

    assert isinstance(result, pl.LazyFrame)
    assert "load#amount" in columns_above(tracer, OUT)


def test_a_static_and_a_class_method_stay_what_they_are(tracer: Tracer) -> None:
    class Steps:
        @tracer.trace(output=OUT)
        @staticmethod
        def fixed(frame: pl.LazyFrame) -> pl.LazyFrame:
            return frame

        @tracer.trace(output=OUT)
        @classmethod
        def of_class(cls, frame: pl.LazyFrame) -> tuple[type, pl.LazyFrame]:
            return cls, frame

    assert Steps().fixed(ORDERS) is ORDERS
    owner, frame = Steps.of_class(ORDERS)
    assert (owner, frame is ORDERS) == (Steps, True)


def test_frames_in_tuples_dicts_and_lists_are_told_apart(tracer: Tracer) -> None:
    @tracer.trace
    def split() -> dict[str, pl.LazyFrame]:
        return {"low": ORDERS.filter(pl.col("day") == 1), "high": ORDERS.filter(pl.col("day") == 2)}

    @tracer.trace
    def joined(parts: list[pl.LazyFrame]) -> pl.LazyFrame:
        return parts[0].select("day", "amount")

    parts = split()
    joined([parts["high"]])

    assert columns_above(tracer, "joined") == ["split/high#amount"]


def test_a_default_argument_is_an_input(tracer: Tracer) -> None:
    loaded = tracer.trace(load)()

    @tracer.trace
    def step(frame: pl.LazyFrame = loaded) -> pl.LazyFrame:
        return frame.select("amount")

    step()

    assert columns_above(tracer, "step") == ["load#amount"]


def test_a_plain_function_that_returns_a_coroutine_is_done_when_that_is(tracer: Tracer, memory: MemoryEmitter) -> None:
    async def later() -> pl.LazyFrame:
        await asyncio.sleep(0)
        return ORDERS

    result = asyncio.run(tracer.trace(output=OUT)(lambda: later())())  # noqa: PLW0108  # a plain function is meant
    tracer.flush()

    assert result is ORDERS
    assert [column.name for column in memory.runs[0].writes[0].columns] == ["day", "amount"]


def test_a_plain_function_that_returns_a_generator_is_done_when_that_is(tracer: Tracer, memory: MemoryEmitter) -> None:
    parts = tracer.trace(output=OUT)(lambda: (each for each in [ORDERS]))()

    assert [each is ORDERS for each in parts] == [True]
    tracer.flush()

    assert [column.name for column in memory.runs[0].writes[0].columns] == ["day", "amount"]


def test_what_is_sent_and_thrown_into_an_async_generator_arrives(tracer: Tracer) -> None:
    @tracer.trace(output=OUT)
    async def echo() -> Any:
        got = yield "first"
        try:
            yield f"got {got}"
        except ValueError:
            yield "caught"

    assert inspect.isasyncgenfunction(echo)

    async def talk() -> list[Any]:
        running = echo()
        said = [await anext(running), await running.asend("it"), await running.athrow(ValueError())]
        await running.aclose()
        return said

    assert asyncio.run(talk()) == ["first", "got it", "caught"]


def test_a_table_of_another_library_has_its_columns(tracer: Tracer) -> None:
    import pyarrow as pa

    tracer.trace(inputs={"x": IN}, output=OUT)(lambda x: x.select(["a"]))(pa.table({"a": [1], "b": ["x"]}))

    graph = tracer.graph()
    assert [(column.name, column.type) for column in graph.datasets[IN].columns] == [("a", "int64"), ("b", "string")]
    assert [column.name for column in graph.datasets[OUT].columns] == ["a"]
