"""Record what functions do to data while they run: decorate them, or name a run around them.

The traced call only notes what it handled. A writer thread reads plans and writes runs to the outbox
on disk; one courier a sink delivers them from there. Whatever goes wrong is counted and logged once
per class; the traced function never notices.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, overload

from tidemill_core.settings import Settings

from tidemill_lineage.capture import hooks
from tidemill_lineage.delivery import forks
from tidemill_lineage.delivery.dispatch import Dispatch
from tidemill_lineage.delivery.faults import Faults, say
from tidemill_lineage.delivery.writer import Writer
from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.errors import StrictFailure
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import DatasetUrn, Run
from tidemill_lineage.observed import Call, Spec
from tidemill_lineage.wrapping import wrap

P = ParamSpec("P")
R = TypeVar("R")

RUN_ID_VARIABLE = "TIDEMILL_RUN_ID"
"""Environment variable that hands a run id on to child processes."""

EXIT_S = 1.5
"""How long the end of a process waits for sinks; what they have not taken stays in the outbox."""

_WRITE_S = 5.0
"""How long the end of a run, a fork or a process waits for the outbox, which is a local file."""
_CLOSE_S = 0.5
"""What `close` keeps of its time to close the emitters."""
_RUN_S = 60.0
"""Calls outside any run are one run for this long, or until the next flush."""
_BATCH = 256
_run_id: ContextVar[str | None] = ContextVar("tidemill_lineage_run", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracerStats:
    """What a tracer has done and lost so far.

    Attributes:
        captured: Calls, and runs recorded by hand.
        written: Records that are safe in the outbox; calls of one job in one run share one.
        dropped: Calls that no sink will see; each time is logged.
        unread: Calls whose plan was not read, recorded as whole datasets.
        waiting: Sink -> records it has not taken yet.
        errors: How often each class of error was met, by ``where:class``.
    """

    captured: int
    written: int
    dropped: int
    unread: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)


class Tracer:
    """Traces functions and delivers what it learns.

    Args:
        emitters: Where runs go, besides `graph`. What one cannot take now waits in the outbox, for
            this process or the next that has the same emitter.
        outbox: The file they wait in; default ``lineage/outbox.sqlite`` in the home.
        queue_size: Calls with frames that may wait for their plans to be read.
        strict: Raise `StrictFailure` from `flush` if anything was lost: for tests.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        emitters: Sequence[Emitter] = (),
        *,
        outbox: Path | str | None = None,
        queue_size: int = 1_000,
        strict: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.emitters, self.strict, self._clock = tuple(emitters), strict, clock
        self._faults = Faults()
        self._writer = Writer(self._keep, self._faults, queue_size)
        path = Path(outbox) if outbox is not None else Settings.from_env().home.absolute() / "lineage" / "outbox.sqlite"
        self._dispatch = Dispatch(self.emitters, path, self._faults)
        self._graph = Graph()
        self._unmerged: list[Run] = []
        self._given_run: str | None = None
        self._begin_afresh()
        forks.watch(self)

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
        """Decorate a function, method, callable object, coroutine function, generator or async generator.

        Frames that one traced step returns and another takes join the two, also in lists, tuples and
        dicts; nothing need be declared for that.

        Args:
            function: What is decorated, when used without brackets.
            inputs: URN of what each parameter holds. A DataFrame given for a parameter annotated as
                LazyFrame is turned into one.
            output: URN of what the returned (or yielded) frame becomes; without it the function's
                own name stands there.
            job: Name of the job; default the function's module and name.
        """

        def decorate(traced: Callable[P, R]) -> Callable[P, R]:
            if isinstance(traced, (staticmethod, classmethod)):
                # what they hold is traced, so that a class still binds it in their way
                return cast("Callable[P, R]", type(traced)(decorate(traced.__func__)))
            spec = Spec.of(traced, inputs=inputs or {}, output=output, job=job)
            return cast("Callable[P, R]", wrap(self, traced, spec))

        return decorate if function is None else decorate(function)

    @contextmanager
    def run(self, name: str, *, run_id: str | None = None, flush_s: float = 2.0) -> Iterator[str]:
        """Give every traced call inside one run id; at the end all of it is safe in the outbox.

        Args:
            name: What runs, such as ``nightly``; part of the id.
            run_id: Use this id rather than a new one.
            flush_s: Wait at most this long, in seconds, for sinks that are files of this machine;
                others are not waited for.
        """
        found = run_id or f"{name}-{uuid.uuid4()}"
        token = _run_id.set(found)
        self._open_runs[found] += 1
        self._dispatch.begin(found)
        try:
            yield found
        finally:
            _run_id.reset(token)
            self._open_runs -= Counter([found])
            self._writer.settle(time.monotonic() + _WRITE_S)
            if found not in self._open_runs:
                self._end([found])
            self._dispatch.wait(time.monotonic() + flush_s, local_only=True)

    def record(self, run: Run) -> None:
        """Deliver a run that was made by hand, by `capture.sql` or by `capture.declared`."""
        self._writer.add_run(run)
        self._settle_if_cut_short()

    def current_run(self) -> str:
        """The id of the run this call belongs to: of `run`, of the environment, else one of this tracer."""
        found = _run_id.get()
        if found is not None:
            return found
        if self._is_own_run and self._clock() - self._own_since > _RUN_S:
            self._next_own_run()
        return self._default_run

    def graph(self, *, timeout_s: float = 10.0) -> Graph:
        """Return all that this tracer has seen so far in this process as a graph."""
        self._writer.settle(time.monotonic() + timeout_s)
        with self._lock:
            self._graph, self._unmerged = merge(self._graph, self._unmerged), []
            return self._graph

    @property
    def stats(self) -> TracerStats:
        """What was done and lost so far."""
        faults = self._faults
        return TracerStats(
            captured=self._writer.captured,
            written=self._writer.written,
            dropped=faults.lost,
            unread=faults.unread,
            waiting=self._dispatch.waiting(),
            errors=dict(faults.errors),
        )

    def flush(self, *, timeout_s: float = 10.0) -> bool:
        """Wait until every sink has what was captured so far; calls outside any run end theirs.

        Returns:
            False if the time was up before; what is left waits in the outbox.

        Raises:
            StrictFailure: In strict mode, if anything was lost so far.
        """
        deadline = time.monotonic() + timeout_s
        written = self._writer.settle(deadline)
        if self._is_own_run:
            self._next_own_run()
        self._end(None)
        delivered = written and self._dispatch.wait(deadline)
        if self.strict and (self._faults.errors or self._faults.lost):
            raise StrictFailure(f"lineage was lost: {dict(self._faults.errors)}, {self._faults.lost} calls dropped")
        return delivered

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Flush, end all runs, stop the threads and close the emitters, all within the time.

        What a sink has not taken by then stays in the outbox; a warning says so.
        """
        deadline = time.monotonic() + timeout_s
        # a sink that does not come back must leave time to close the others
        delivered = self._finish(deadline - min(_CLOSE_S, timeout_s / 4))
        if not delivered:
            self._say_what_waits()
        self._dispatch.stop(deadline)
        if self.strict and (self._faults.errors or self._faults.lost):
            raise StrictFailure(f"lineage was lost: {dict(self._faults.errors)}, {self._faults.lost} calls dropped")

    def default_run(self, run_id: str) -> None:
        """Give calls outside any `run` this id, rather than one made up for the process."""
        self._given_run = self._default_run = run_id
        self._is_own_run = False
        self._dispatch.begin(run_id)

    def begin(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_whole: bool = True
    ) -> tuple[Call | None, tuple[Any, ...], dict[str, Any]]:
        """Note that a traced call begins; returns the arguments to call it with.

        Args:
            spec: Of the function.
            args: What it was called with.
            kwargs: As above.
            is_whole: It runs in one go; in the pauses of a generator, others' work would be noted as its own.
        """
        try:
            args, kwargs = spec.prepared(args, kwargs)
            inputs = spec.inputs_of(args, kwargs)
            call = Call(spec=spec, run_id=self.current_run(), inputs=inputs, started_at=self._clock())
            if is_whole and (inputs is not spec.plain_inputs or spec.may_read):
                call.watch()
        except Exception as error:  # noqa: BLE001  # the traced function must never fail because of us
            self._faults.count("capture", error)
            return None, args, kwargs
        return call, args, kwargs

    def end(self, call: Call | None, results: Sequence[Any], error: BaseException | None = None) -> None:
        """Note that a traced call ended, with what it returned or yielded, or with an error."""
        if call is None:
            return
        try:
            if call.token is not None:
                for fault in call.unwatch():
                    self._faults.count("watch", fault)
            call.finish(results, error, self._clock())
            self._writer.add_call(call)
            self._settle_if_cut_short()
        except Exception as failed:  # noqa: BLE001  # the traced function must never fail because of us
            self._faults.count("capture", failed)

    def after_fork(self) -> None:
        """Begin afresh in a forked child: no threads, no queue, its own connections."""
        hooks.after_fork()
        self._faults.after_fork()
        self._writer.after_fork()
        self._dispatch.after_fork()
        self._begin_afresh()

    def finish(self) -> None:
        """Deliver what can be delivered in a short time, because this process ends."""
        try:
            # rows of other processes may still wait when ours are delivered: those are theirs to tell of
            if not self._finish(time.monotonic() + EXIT_S):
                self._say_what_waits()
        except BaseException as error:  # noqa: BLE001  # the end of a process is no time to fail
            self._faults.count("exit", error)

    def _begin_afresh(self) -> None:
        self._lock = threading.Lock()
        self._open_runs: Counter[str] = Counter()
        self._next_own_run()
        given = self._given_run or os.environ.get(RUN_ID_VARIABLE)
        self._is_own_run = not given
        self._default_run = given or self._default_run

    def _next_own_run(self) -> None:
        self._default_run, self._own_since = f"process-{uuid.uuid4()}", self._clock()

    def _settle_if_cut_short(self) -> None:
        if forks.is_cut_short() and not self._writer.settle(time.monotonic() + _WRITE_S):
            self._faults.count("outbox", TimeoutError(f"a call of a worker was not written within {_WRITE_S:g} s"))

    def _finish(self, deadline: float) -> bool:
        # the outbox is a local file and comes first: it may take longer than the sinks are given
        self._writer.stop(max(deadline, time.monotonic() + EXIT_S / 2))
        self._open_runs.clear()
        self._dispatch.end()
        return self._dispatch.wait(deadline) and not self._writer.waiting()

    def _end(self, run_ids: Sequence[str] | None) -> None:
        """End runs, default all that are not held open by a block or by somebody else's id."""
        held = [*self._open_runs, *([] if self._is_own_run else [self._default_run])]
        self._dispatch.end(run_ids, but=[] if run_ids else held)
        if run_ids:
            self._writer.forget(run_ids)

    def _keep(self, runs: Sequence[Run]) -> None:
        self._dispatch.put(runs)
        # merged only when asked or when many wait, and after the outbox has them: it must not write them twice
        with self._lock:
            self._unmerged.extend(runs)
            if len(self._unmerged) <= _BATCH:
                return
            found, self._unmerged = self._unmerged, []
            try:
                self._graph = merge(self._graph, found)
            except Exception as error:  # noqa: BLE001  # a run made by hand may hold anything; sinks judge for themselves
                self._faults.count("graph", error)

    def _say_what_waits(self) -> None:
        waiting = {sink: count for sink, count in self._dispatch.waiting().items() if count}
        if waiting or self._writer.waiting():
            say("lineage_waits", runs=waiting, unwritten=self._writer.waiting(), outbox=str(self._dispatch.path))


@atexit.register
def _finish_all() -> None:
    forks.finish_all()
