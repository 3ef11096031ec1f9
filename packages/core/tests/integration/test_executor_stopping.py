"""Steps on threads are asked to stop first, and stopping them leaves what they share whole."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from tidemill_core.defs import threads_executor
from tidemill_core.defs._dagster import InMemoryJob, execute_run_iterator
from tidemill_core.defs.executor import loop
from tidemill_core.lifecycle import stop_token, uninterrupted
from tidemill_core.postgres import open_pool
from tidemill_core.storage import open_store
from tidemill_core.testing.objects import s3_bucket

SLOTS = 8
STEPS = 200


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(work: Callable[[Any], None], timeouts: list[float], instance: dg.DagsterInstance, **config: Any) -> list[Any]:
    """Run `work` in as many steps as there are timeouts; returns what was recorded."""

    def op(index: int, timeout_s: float) -> dg.OpDefinition:
        def compute(context, _inputs):
            work(context)
            yield dg.Output(None, "out")

        return dg.OpDefinition(
            compute, f"s{index}", outs={"out": dg.Out(dg.Nothing)}, tags={"tidemill/timeout_s": str(timeout_s)}
        )

    ops = [op(index, timeout_s) for index, timeout_s in enumerate(timeouts)]
    job = dg.GraphDefinition(name="job", node_defs=ops).to_job(executor_def=threads_executor.configured(config))
    return list(execute_run_iterator(InMemoryJob(job), instance.create_run_for_job(job), instance))


def slots() -> queue.Queue[int]:
    made: queue.Queue[int] = queue.Queue()
    for slot in range(SLOTS):
        made.put(slot)
    return made


def random_timeouts(count: int) -> list[float]:
    chosen = random.Random(20)
    return [round(chosen.uniform(0.02, 0.2), 4) for _ in range(count)]


def test_steps_timed_out_at_random_leave_every_pool_whole(
    instance: dg.DagsterInstance, postgres_url: str, versitygw: Any
) -> None:
    own = slots()
    url, options = s3_bucket(versitygw)
    with open_pool(postgres_url, min_size=SLOTS, max_size=SLOTS) as pool:
        store = open_store(url, options)
        store.put("object", b"x" * 1000)

        def use_all(context: Any) -> None:
            kind = int(context.op.name[1:]) % 3
            while True:
                if kind == 0:
                    with pool.connection() as connection:
                        connection.execute("SELECT 1")
                elif kind == 1:
                    store.get("object")
                else:
                    use_own()
                # Lets the other threads and the loop work: eight busy threads would only wait for each other.
                time.sleep(0.002)

        def use_own() -> None:
            with uninterrupted():
                slot = own.get()
            try:
                sum(range(200))
            finally:
                with uninterrupted():
                    own.put(slot)

        events = run(use_all, random_timeouts(STEPS), instance, max_concurrent=SLOTS)

        failed = {each.step_key for each in events if each.is_step_failure}
        assert len(failed) == STEPS
        assert is_whole(own)
        with_all_at_once(SLOTS, lambda: pool.connection(timeout=30))
        assert store.get("object") == b"x" * 1000


def with_all_at_once(count: int, take: Callable[[], Any]) -> None:
    """Hold `count` connections at once; fails if one cannot be had."""
    barrier, errors = threading.Barrier(count), []

    def hold() -> None:
        try:
            with take() as connection:
                barrier.wait(30)
                connection.execute("SELECT 1")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=hold) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_pool_that_is_not_marked_can_lose_slots(instance: dg.DagsterInstance) -> None:
    """The negative control: an exception at any instruction strikes inside `Queue.get` and `Queue.put`."""
    own = slots()

    def use(_context: Any) -> None:
        while True:
            slot = own.get(timeout=2)
            try:
                pass
            finally:
                own.put(slot)

    for _ in range(10):
        run(use, [0.03] * 20, instance, max_concurrent=4, stop_grace_s=0.2)
        if not is_whole(own):
            break

    assert not is_whole(own)


def is_whole(pool: queue.Queue[int]) -> bool:
    """Whether all slots are there, and the pool's lock is not held by a thread that was stopped."""
    if not pool.mutex.acquire(timeout=2):
        return False
    try:
        return len(pool.queue) == SLOTS
    finally:
        pool.mutex.release()


def test_step_that_looks_at_its_token_stops_by_itself(instance: dg.DagsterInstance) -> None:
    ended: list[str] = []

    def work(_context: Any) -> None:
        token = stop_token()
        token.wait(60)
        # An exception would strike at one of these instructions.
        for _ in range(100_000):
            pass
        ended.append(str(token.reason))
        token.raise_if_set()

    events = run(work, [0.1], instance)

    failure = next(each for each in events if each.is_step_failure)
    assert ended == ["step s0 took longer than its 0.1 s"]
    assert "took longer than its 0.1 s" in failure.step_failure_data.error.to_string()


def test_step_that_has_asked_for_its_token_and_does_not_look_is_stopped_after_the_grace(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ASK_S", 0.5)
    began = time.monotonic()

    def work(_context: Any) -> None:
        stop_token()
        while True:
            time.sleep(0.01)

    events = run(work, [0.1], instance)

    assert [each.step_key for each in events if each.is_step_failure] == ["s0"]
    assert time.monotonic() - began >= 0.6


def test_marked_stretch_is_finished_before_the_step_is_stopped(instance: dg.DagsterInstance) -> None:
    finished: list[bool] = []

    def work(_context: Any) -> None:
        with uninterrupted():
            end = time.monotonic() + 0.6
            while time.monotonic() < end:
                time.sleep(0.01)
            finished.append(True)
        while True:
            time.sleep(0.01)

    events = run(work, [0.1], instance)

    assert finished == [True]
    assert [each.step_key for each in events if each.is_step_failure] == ["s0"]
