"""The tracer: what it sees of each kind of function, and that the traced work never notices it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import polars as pl
import pytest
from tidemill_lineage import Tracer, load_graph
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.errors import EmitterDown, StrictFailure
from tidemill_lineage.model import Run
from tidemill_lineage.observed import to_run

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


def daily(orders: pl.LazyFrame) -> pl.LazyFrame:
    return orders.group_by("day").agg(pl.col("amount").sum())


def test_a_plain_function_gets_column_edges(tracer: Tracer) -> None:
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    traced(ORDERS)

    assert tracer.graph().impact(f"{IN}#amount") == {f"{OUT}#amount": "DIRECT"}
    assert f"{OUT}#amount" in tracer.graph().impact(f"{IN}#day")


def test_the_result_is_the_functions_own(tracer: Tracer) -> None:
    result = ORDERS.head(1)

    assert tracer.trace(inputs={"orders": IN}, output=OUT)(lambda orders: result)(ORDERS) is result


def test_tracing_does_not_collect(tracer: Tracer, memory: MemoryEmitter, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(batch: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("the plan was run")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("collected")

    monkeypatch.setattr(pl.LazyFrame, "collect", refuse)
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(
        lambda orders: orders.map_batches(explode, schema={"day": pl.Int64, "amount": pl.Float64})
    )

    traced(ORDERS)
    tracer.flush()

    assert {edge.method for edge in memory.runs[0].edges} == {"probe"}


def test_a_data_frame_becomes_lazy_where_the_function_asks_for_it(tracer: Tracer) -> None:
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    for given in ((ORDERS.collect(),), ()):
        traced(*given, **({} if given else {"orders": ORDERS.collect()}))  # type: ignore[arg-type]

    assert f"{OUT}#amount" in tracer.graph().impact(f"{IN}#amount")


def test_an_eager_function_is_linked_by_its_declared_inputs(tracer: Tracer) -> None:
    def eager(orders: pl.DataFrame) -> pl.DataFrame:
        return orders.filter(pl.col("day") > 1)

    tracer.trace(inputs={"orders": IN}, output=OUT)(eager)(ORDERS.collect())

    graph = tracer.graph()
    assert graph.upstream(OUT) == [IN]
    assert {edge.method for edge in graph.edges} == {"plan"}
    assert graph.upstream(f"{OUT}#amount") == [f"{IN}#amount", f"{IN}#day"]
    assert [column.name for column in graph.datasets[OUT].columns] == ["day", "amount"]


def test_a_coroutine_function_stays_one(tracer: Tracer) -> None:
    @tracer.trace(inputs={"orders": IN}, output=OUT)
    async def later(orders: pl.LazyFrame) -> pl.LazyFrame:
        await asyncio.sleep(0)
        return daily(orders)

    assert asyncio.iscoroutinefunction(later)
    asyncio.run(later(ORDERS))

    assert f"{OUT}#amount" in tracer.graph().impact(f"{IN}#amount")


def test_concurrent_coroutines_keep_their_own_runs(tracer: Tracer, memory: MemoryEmitter) -> None:
    @tracer.trace(inputs={"orders": IN}, output=OUT)
    async def later(orders: pl.LazyFrame) -> pl.LazyFrame:
        await asyncio.sleep(0)
        return orders

    async def one(name: str) -> None:
        with tracer.run(name, run_id=name):
            await later(ORDERS)

    async def both() -> None:
        await asyncio.gather(one("left"), one("right"))

    asyncio.run(both())

    assert sorted(run.id for run in memory.runs) == ["left", "right"]


def test_a_generator_is_one_run_at_its_end(tracer: Tracer, memory: MemoryEmitter) -> None:
    @tracer.trace(inputs={"orders": IN}, output=OUT)
    def parts(orders: pl.LazyFrame) -> Iterator[pl.LazyFrame]:
        yield orders.filter(pl.col("day") == 1)
        yield orders.filter(pl.col("day") == 2)

    assert len(list(parts(ORDERS))) == 2
    tracer.flush()

    assert [run.state for run in memory.runs] == ["COMPLETE"]
    assert f"{OUT}#amount" in tracer.graph().impact(f"{IN}#amount")


def test_what_is_sent_into_a_generator_arrives(tracer: Tracer) -> None:
    @tracer.trace(output=OUT)
    def echo() -> Any:
        got = yield "first"
        return f"got {got}"

    running = echo()
    next(running)

    with pytest.raises(StopIteration, match="got it"):
        running.send("it")


def test_a_generator_that_is_left_early_is_complete(tracer: Tracer, memory: MemoryEmitter) -> None:
    closed = []

    @tracer.trace(inputs={"orders": IN}, output=OUT)
    def parts(orders: pl.LazyFrame) -> Iterator[pl.LazyFrame]:
        try:
            yield orders
            yield orders
        finally:
            closed.append(True)

    running = parts(ORDERS)
    next(running)
    running.close()  # type: ignore[attr-defined]
    tracer.flush()

    assert closed == [True]
    assert [run.state for run in memory.runs] == ["COMPLETE"]


def test_an_async_generator_is_traced(tracer: Tracer, memory: MemoryEmitter) -> None:
    @tracer.trace(inputs={"orders": IN}, output=OUT)
    async def parts(orders: pl.LazyFrame) -> AsyncIterator[pl.LazyFrame]:
        yield orders

    async def consume() -> int:
        return len([each async for each in parts(ORDERS)])

    assert asyncio.run(consume()) == 1
    tracer.flush()

    assert len(memory.runs[0].edges) == 2


def test_threads_share_a_run_through_their_context(tracer: Tracer, memory: MemoryEmitter) -> None:
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    with tracer.run("pool", run_id="pool"), ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(copy_context().run, traced, ORDERS) for _ in range(20)]
        for future in futures:
            future.result()

    tracer.flush()
    assert {run.id for run in memory.runs} == {"pool"}
    assert sum(run.calls for run in memory.runs) == 20


def test_many_threads_lose_no_call(tracer: Tracer, memory: MemoryEmitter) -> None:
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    threads = [threading.Thread(target=lambda: [traced(ORDERS) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracer.flush()

    assert sum(run.calls for run in memory.runs) == 400


def test_the_users_exception_passes_unchanged_and_the_run_failed(tracer: Tracer, memory: MemoryEmitter) -> None:
    problem = ValueError("mine")

    @tracer.trace(inputs={"orders": IN}, output=OUT)
    def breaks(orders: pl.LazyFrame) -> pl.LazyFrame:
        raise problem

    with pytest.raises(ValueError, match="mine") as caught:
        breaks(ORDERS)
    tracer.flush()

    assert caught.value is problem
    assert [(run.state, run.error) for run in memory.runs] == [("FAIL", "ValueError: mine")]


def test_a_failed_run_leaves_the_last_good_edges(tracer: Tracer) -> None:
    fail = False

    @tracer.trace(inputs={"orders": IN}, output=OUT)
    def sometimes(orders: pl.LazyFrame) -> pl.LazyFrame:
        if fail:
            raise ValueError
        return daily(orders)

    sometimes(ORDERS)
    before = tracer.graph()
    fail = True
    with pytest.raises(ValueError):
        sometimes(ORDERS)

    assert tracer.graph() == before


class Broken(MemoryEmitter):
    name = "broken"

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, runs: Any) -> None:
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [EmitterDown("somewhere", "refused"), SystemExit("odd"), KeyboardInterrupt()])
def test_a_raising_emitter_is_counted_and_the_others_go_on(
    memory: MemoryEmitter, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    tracer = Tracer([Broken(error), memory])
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    for _ in range(3):
        assert traced(ORDERS).collect().height == 2
        assert tracer.flush(timeout_s=0.3) is False
    tracer.close(timeout_s=1)

    assert sum(run.calls for run in memory.runs) == 3
    counted = tracer.stats.errors
    assert counted.keys() == {f"broken:{type(error).__name__}", f"close broken:{type(error).__name__}"}
    assert capsys.readouterr().err.count("lineage_failed") == 2  # once per class


def test_plans_that_come_faster_than_they_are_read_are_told_and_joined_as_wholes(
    memory: MemoryEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = to_run

    def slow(call: Any) -> Run:
        if call.has_frames:
            gate.wait(30)
        return real(call)

    monkeypatch.setattr("tidemill_lineage.delivery.writer.to_run", slow)
    tracer = Tracer([memory], queue_size=2)
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(daily)

    for _ in range(10):
        traced(ORDERS)
    gate.set()
    tracer.close()

    assert tracer.stats.dropped == 0
    assert tracer.stats.unread > 0
    assert sum(run.calls for run in memory.runs) == 10
    assert {edge.method for run in memory.runs for edge in run.edges} == {"plan", "declared"}


def test_a_million_calls_of_one_job_are_one_run_with_a_count(memory: MemoryEmitter) -> None:
    tracer = Tracer([memory])
    traced = tracer.trace(inputs={"x": IN}, output=OUT)(lambda x: x)

    with tracer.run("loop"):
        for number in range(100_000):
            traced(number)
    tracer.close()

    assert sum(run.calls for run in memory.runs) == 100_000
    assert len(memory.runs) < 100
    assert tracer.stats.dropped == 0


def test_flush_gives_up_in_time_on_a_stuck_emitter() -> None:
    gate = threading.Event()

    class Stuck(MemoryEmitter):
        def emit(self, runs: Any) -> None:
            gate.wait(30)

    tracer = Tracer([Stuck()])
    tracer.trace(output=OUT)(lambda: ORDERS)()

    started = time.monotonic()
    assert tracer.flush(timeout_s=0.05) is False
    tracer.close(timeout_s=0.5)
    took_s = time.monotonic() - started
    gate.set()

    assert took_s < 10


def test_a_call_keeps_no_data_but_frames(tracer: Tracer) -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    tracer.trace(inputs={"x": IN}, output=OUT)(lambda x: None)(big)

    del big

    assert gone() is None


def test_what_a_user_says_in_an_error_is_bounded_and_without_secrets(memory: MemoryEmitter) -> None:
    tracer = Tracer([memory])

    @tracer.trace(output=OUT)
    def breaks() -> None:
        raise ValueError("postgresql://me:hush@db/x " + "x" * 10_000_000)

    with pytest.raises(ValueError):
        breaks()
    tracer.close()

    (run,) = memory.runs
    assert len(run.error) < 2_000
    assert "hush" not in run.error


def test_a_run_that_cannot_be_written_down_holds_up_no_other(
    memory: MemoryEmitter, capsys: pytest.CaptureFixture[str]
) -> None:
    tracer = Tracer([memory])
    odd: Any = object()

    tracer.record(Run(id="1", job="one"))
    tracer.record(Run(id="2", job="odd", rows=odd))
    tracer.record(Run(id="2", job="odd", reads=odd))
    tracer.record(Run(id="3", job="three"))
    delivered = tracer.flush()
    tracer.record(Run(id="4", job="four"))
    tracer.close()

    assert delivered
    assert {"one", "three", "four"} == {run.job for run in memory.runs}
    assert tracer.stats.dropped >= 1
    assert "cannot be written down" in capsys.readouterr().err


def test_strict_mode_tells_what_was_lost() -> None:
    tracer = Tracer([Broken(RuntimeError("no"))], strict=True)
    tracer.trace(output=OUT)(lambda: ORDERS)()

    with pytest.raises(StrictFailure, match="broken:RuntimeError"):
        tracer.flush(timeout_s=1)
    tracer.strict = False
    tracer.close(timeout_s=1)


def test_a_wrong_parameter_name_is_refused_when_decorating(tracer: Tracer) -> None:
    with pytest.raises(TypeError, match="has no parameter 'order'; it has: orders"):
        tracer.trace(inputs={"order": IN})(daily)


def test_a_scan_inside_the_function_is_named_by_its_file(tracer: Tracer, tmp_path: Any) -> None:
    file = tmp_path / "orders.parquet"
    ORDERS.collect().write_parquet(file)

    tracer.trace(output=OUT)(lambda: daily(pl.scan_parquet(file)))()

    assert f"{file.as_uri()}#amount" in tracer.graph().upstream(f"{OUT}#amount")


def test_an_input_that_is_a_plan_itself_is_where_lineage_stops(tracer: Tracer) -> None:
    prepared = ORDERS.filter(pl.col("day") > 0).with_columns(double=pl.col("amount") * 2)

    tracer.trace(inputs={"orders": IN}, output=OUT)(lambda orders: orders.select(z=pl.col("double")))(prepared)

    assert tracer.graph().upstream(f"{OUT}#z") == [f"{IN}#double"]


def test_two_inputs_that_are_plans_over_one_frame_are_told_apart(tracer: Tracer) -> None:
    low, high = ORDERS.filter(pl.col("day") == 1), ORDERS.filter(pl.col("day") == 2)

    tracer.trace(inputs={"low": "t://low", "high": "t://high"}, output=OUT)(
        lambda low, high: low.select(a="amount").join(high.select(b="amount"), how="cross")
    )(low, high)

    assert "t://low#amount" in tracer.graph().upstream(f"{OUT}#a")
    assert "t://high#amount" not in [
        f"{edge.source}#{edge.source_column}" for edge in tracer.graph().edges if edge.target_column == "a"
    ]


def test_runs_of_a_forked_child_are_its_own() -> None:
    memory = MemoryEmitter()
    tracer = Tracer([memory])
    traced = tracer.trace(inputs={"orders": IN}, output=OUT)(lambda orders: None)
    traced(ORDERS)
    tracer.flush()

    child = os.fork()
    if child == 0:
        traced(None)
        done = tracer.flush(timeout_s=10) and len(memory.runs) == 2
        os._exit(0 if done else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(memory.runs) == 1
    tracer.close()


def test_a_recorded_run_is_emitted_as_it_is(tracer: Tracer, memory: MemoryEmitter) -> None:
    run = Run(id="mine", job="j")

    tracer.record(run)
    tracer.flush()

    assert memory.runs == [run]


def test_a_program_that_ends_without_flushing_loses_nothing(tmp_path: Any) -> None:
    script = f"""
import polars as pl
from tidemill_lineage import JsonFileEmitter, Tracer
tracer = Tracer([JsonFileEmitter({str(tmp_path / "lineage.json")!r})])
tracer.trace(inputs={{"x": "t://in"}}, output="t://out")(lambda x: x.select(b="a"))(pl.LazyFrame({{"a": [1]}}))
"""

    subprocess.run([sys.executable, "-c", script], check=True)

    assert load_graph(tmp_path / "lineage.json").upstream("t://out#b") == ["t://in#a"]


def test_an_unknown_plan_version_is_left_to_the_probe(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill_lineage.capture.polars_plan.PLAN_VERSIONS", frozenset())

    tracer.trace(inputs={"orders": IN}, output=OUT)(daily)(ORDERS)

    graph = tracer.graph()
    assert {edge.method for edge in graph.edges} == {"probe"}
    assert f"{OUT}#amount" in graph.impact(f"{IN}#amount")


def test_a_wide_frame_that_cannot_be_walked_is_not_probed(tracer: Tracer) -> None:
    wide = pl.LazyFrame({f"c{i}": [i] for i in range(250)})

    tracer.trace(inputs={"orders": IN}, output=OUT)(lambda orders: orders.map_batches(lambda d: d))(wide)

    assert [(edge.source, edge.source_column, edge.method) for edge in tracer.graph().edges] == [(IN, "", "declared")]
