"""Record what functions do to data while they run: decorate them, or name a run around them.

The call itself only puts a tuple into a bounded queue. Plans are read and runs are emitted in a
background thread. Whatever goes wrong there is counted and logged once per class; the traced
function never notices.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast, overload

from tidemill_core.telemetry import get_logger

from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.errors import StrictFailure
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import DatasetUrn, Run
from tidemill_lineage.observed import Call, Spec, to_run
from tidemill_lineage.wrapping import wrap

P = ParamSpec("P")
R = TypeVar("R")

RUN_ID_VARIABLE = "TIDEMILL_RUN_ID"
"""Environment variable that hands a run id on to child processes."""

_BATCH = 256
_run_id: ContextVar[str | None] = ContextVar("tidemill_lineage_run", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracerStats:
    """What a tracer has done and lost so far.

    Attributes:
        captured: Calls put into the queue.
        dropped: Calls the full queue had no room for.
        emitted: Runs handed to every emitter without an error.
        errors: How often each class of error was met, by ``where:class``.
    """

    captured: int
    dropped: int
    emitted: int
    errors: Mapping[str, int] = field(default_factory=dict)


class Tracer:
    """Traces functions and emits what it learns.

    Args:
        emitters: Where runs go, besides `graph`.
        queue_size: Calls that may wait for the background thread; more are dropped and counted.
        strict: Raise `StrictFailure` from `flush` if anything was lost: for tests.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        emitters: Sequence[Emitter] = (),
        *,
        queue_size: int = 10_000,
        strict: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.emitters, self.strict, self._clock = tuple(emitters), strict, clock
        self._queue_size = queue_size
        self._captured = self._dropped = self._emitted = 0
        self._errors: Counter[str] = Counter()
        self._graph = Graph()
        self._unmerged: list[Run] = []
        self._thread: threading.Thread | None = None
        self._queue: queue.Queue[Call | Run | None]
        self.start_afresh()
        _tracers.add(self)

    @overload
    def trace(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def trace(
        self,
        *,
        inputs: Mapping[str, DatasetUrn] | None = None,
        output: DatasetUrn | None = None,
        job: str | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def trace(
        self,
        function: Callable[P, R] | None = None,
        *,
        inputs: Mapping[str, DatasetUrn] | None = None,
        output: DatasetUrn | None = None,
        job: str | None = None,
    ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, coroutine function, generator or async generator.

        Args:
            function: What is decorated, when used without brackets.
            inputs: URN of what each parameter holds. A DataFrame given for a parameter annotated as
                LazyFrame is turned into one.
            output: URN of what the returned (or yielded) frame becomes; without it the function's
                own name stands there.
            job: Name of the job; default the function's module and name.
        """

        def decorate(traced: Callable[P, R]) -> Callable[P, R]:
            spec = Spec.of(traced, inputs=inputs or {}, output=output, job=job)
            return cast("Callable[P, R]", wrap(self, traced, spec))

        return decorate if function is None else decorate(function)

    @contextmanager
    def run(self, name: str, *, run_id: str | None = None, flush_s: float = 10.0) -> Iterator[str]:
        """Give every traced call inside one run id; flush at the end.

        Args:
            name: What runs, such as ``nightly``; part of the id.
            run_id: Use this id rather than a new one.
            flush_s: Wait at most this long for emitters when the block ends.
        """
        token = _run_id.set(run_id or f"{name}-{uuid.uuid4()}")
        try:
            yield cast("str", _run_id.get())
        finally:
            _run_id.reset(token)
            self.flush(timeout_s=flush_s)

    def record(self, run: Run) -> None:
        """Emit a run that was made by hand, by `capture.sql` or by `capture.declared`."""
        self._put(run)

    def current_run(self) -> str:
        """The id of the run this call belongs to: of `run`, of the environment, else of this process."""
        return _run_id.get() or self._default_run

    def graph(self, *, timeout_s: float = 10.0) -> Graph:
        """Flush, and return all that this tracer has seen as a graph."""
        self.flush(timeout_s=timeout_s)
        with self._lock:
            self._graph, self._unmerged = merge(self._graph, self._unmerged), []
            return self._graph

    @property
    def stats(self) -> TracerStats:
        """What was done and lost so far."""
        with self._lock:
            return TracerStats(
                captured=self._captured, dropped=self._dropped, emitted=self._emitted, errors=dict(self._errors)
            )

    def flush(self, *, timeout_s: float = 10.0) -> bool:
        """Wait until everything captured so far is emitted.

        Returns:
            False if the time was up before.

        Raises:
            StrictFailure: In strict mode, if anything was lost so far.
        """
        done = self._queue.all_tasks_done
        deadline = time.monotonic() + timeout_s
        with done:
            while self._queue.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                done.wait(left)
            empty = not self._queue.unfinished_tasks
        if self.strict and (self._errors or self._dropped):
            raise StrictFailure(f"lineage was lost: {dict(self._errors)}, {self._dropped} calls dropped")
        return empty

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Flush, stop the thread and close the emitters."""
        self.flush(timeout_s=timeout_s)
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_s)
            self._thread = None
        for emitter in self.emitters:
            self._guard(f"close {emitter.name}", emitter.close)

    def default_run(self, run_id: str) -> None:
        """Give calls outside any `run` this id, rather than one made up for the process."""
        self._default_run = run_id

    def begin(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Call | None, tuple[Any, ...], dict[str, Any]]:
        """Note that a traced call begins; returns the arguments to call it with."""
        try:
            args, kwargs = spec.prepared(args, kwargs)
            inputs = spec.inputs_of(args, kwargs)
            return Call(spec=spec, run_id=self.current_run(), inputs=inputs, started_at=self._clock()), args, kwargs
        except Exception as error:  # noqa: BLE001  # the traced function must never fail because of us
            self._count("capture", error)
            return None, args, kwargs

    def end(self, call: Call | None, results: Sequence[Any], error: BaseException | None = None) -> None:
        """Note that a traced call ended, with what it returned or yielded, or with an error."""
        if call is None:
            return
        try:
            call.finish(results, error, self._clock())
        except Exception as failed:  # noqa: BLE001  # the traced function must never fail because of us
            self._count("capture", failed)
            return
        self._put(call)

    def start_afresh(self) -> None:
        """Begin with an empty queue and no thread: at first, and in a forked child."""
        self._queue = queue.Queue(self._queue_size)
        self._thread = None
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._default_run = os.environ.get(RUN_ID_VARIABLE) or f"process-{uuid.uuid4()}"

    def _put(self, item: Call | Run) -> None:
        try:
            self._queue.put_nowait(item)
            with self._counting:
                self._captured += 1
            if self._thread is None:
                self._start_thread()
        except queue.Full:
            with self._counting:
                self._dropped += 1
        except Exception as error:  # noqa: BLE001  # the traced function must never fail because of us
            self._count("capture", error)

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tidemill-lineage", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            items = [self._queue.get()]
            while len(items) < _BATCH and items[-1] is not None:
                try:
                    items.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            self._emit([run for item in items if item is not None and (run := self._to_run(item)) is not None])
            for _ in items:
                self._queue.task_done()
            if items[-1] is None:
                return

    def _to_run(self, item: Call | Run) -> Run | None:
        if isinstance(item, Run):
            return item
        found: list[Run] = []
        self._guard("capture", lambda: found.append(to_run(item)))
        return found[0] if found else None

    def _emit(self, runs: list[Run]) -> None:
        if not runs:
            return
        with self._lock:
            self._unmerged.extend(runs)
            if len(self._unmerged) > _BATCH:
                self._graph, self._unmerged = merge(self._graph, self._unmerged), []
        taken = [self._guard(emitter.name, lambda each=emitter: each.emit(runs)) for emitter in self.emitters]  # type: ignore[misc]
        if all(taken):
            with self._lock:
                self._emitted += len(runs)

    def _guard(self, where: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # lineage is never worth the pipeline; counted and logged
            self._count(where, error)
            return False
        return True

    def _count(self, where: str, error: BaseException) -> None:
        kind = f"{where}:{type(error).__name__}"
        with self._lock:
            self._errors[kind] += 1
            first = self._errors[kind] == 1
        if first:
            get_logger(__name__).warning("lineage_failed", where=where, error=repr(error), note="logged once per class")


_tracers: weakref.WeakSet[Tracer] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for tracer in list(_tracers):
        tracer.strict = False
        tracer.flush(timeout_s=5.0)


def _after_fork() -> None:
    for tracer in list(_tracers):
        tracer.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
