"""What a run of a DAG does while another one goes on: wait, skip, refuse, or cancel the older one."""

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

import dagster as dg

from tidemill_core.dag.errors import AnotherRunGoesOn, LockLost, RunSkipped
from tidemill_core.dag.spec import DagSpec, Overlap
from tidemill_core.defs.dag.locks import Lock, lock_for
from tidemill_core.defs.dag.status import CANCEL_TAG, OWNER_TAG, PROCESS_TAG, is_lost, process_started
from tidemill_core.errors import PostgresError
from tidemill_core.settings import Settings

OVERLAP_TAG = "tidemill/overlap"
"""On queued runs of a DAG with `overlap: wait`; the home's run queue allows one run for each value."""
POLL_S = 0.25
CHECK_S = 5.0
"""Seconds between two looks whether the lock is still held."""
DOUBT_S = 60.0
"""Seconds that it may be unknown; then it counts as lost."""
_HELD: ContextVar[Mapping[str, "Holding"]] = ContextVar("held", default=MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A run that asks whether it may go on."""

    dag: str
    overlap: Overlap
    run_id: str | None = None
    """None while the run does not exist yet."""
    asked: float = field(default_factory=time.time)
    """When it was asked for; of two runs that cancel older ones, the later one wins."""
    shares: bool = True
    """Whether the run may write to the warehouse, the lake or a topic."""


class Holding:
    """The lock of a run while it is held; it is looked at again and again, for a connection can be cut.

    Args:
        lock: The lock, taken.
        on_loss: Called once if somebody else may have it.
    """

    def __init__(self, lock: Lock, *, on_loss: Callable[[], None] = _thread.interrupt_main) -> None:
        self.is_lost = False
        self._lock, self._on_loss = lock, on_loss
        self._end = threading.Event()
        # Held for the look and the interrupt together, so that none comes after the run has ended.
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="tidemill lock", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        with self._guard:
            self._lock.release()

    def _watch(self) -> None:
        known = time.monotonic()
        while not self._end.wait(CHECK_S):
            with self._guard:
                if self._end.is_set():
                    return
                try:
                    is_held = self._lock.is_held()
                    known = time.monotonic()
                except PostgresError:
                    is_held = time.monotonic() - known < DOUBT_S
                if not is_held:
                    self.is_lost = True
                    self._on_loss()
                    return


def holding(dag: str) -> Holding | None:
    """Find what this process holds of a DAG; None if its runs need no lock."""
    return _HELD.get().get(dag)


def shares_state(spec: DagSpec) -> bool:
    """Whether two runs of a DAG could do work of ours twice: it has tasks that are more than commands."""
    return any(task.use or task.call for task in spec.tasks)


@contextmanager
def take_turn(
    instance: dg.DagsterInstance,
    turn: Turn,
    *,
    say: Callable[[str], None] = lambda _text: None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the DAG's lock, once the rule lets this run go on.

    Args:
        instance: Where runs are recorded; its storage decides which lock is used.
        turn: Who asks.
        say: Told once why the run has to wait.
        pause: Sleeps between two looks; what it raises ends the waiting.

    Raises:
        AnotherRunGoesOn: The rule is `refuse`.
        RunSkipped: The rule is `skip`, or a later run has taken the place of this one.
        LockLost: The lock was lost during the run.
        PostgresUnavailable: The server of the lock does not answer.
    """
    if turn.overlap == "allow" or turn.dag in _HELD.get():
        yield
        return
    lock = lock_for(instance, turn.dag, settings=Settings.from_env(), shares=turn.shares)
    if lock is None:
        yield
        return
    try:
        _wait(instance, turn, lock, say, pause)
        with Holding(lock) as held:
            before = _HELD.set({**_HELD.get(), turn.dag: held})
            try:
                yield
            except KeyboardInterrupt as error:
                if not held.is_lost:
                    raise
                raise LockLost(turn.dag) from error
            finally:
                _HELD.reset(before)
    finally:
        lock.release()


def _wait(
    instance: dg.DagsterInstance, turn: Turn, lock: Lock, say: Callable[[str], None], pause: Callable[[float], None]
) -> None:
    asked_to_stop: set[str] = set()
    is_told = False
    while not lock.try_take():
        runs = running(instance, turn.dag, but=turn.run_id)
        others = f"run {runs[0].run_id}" if runs else "another run"
        if turn.overlap == "refuse":
            raise AnotherRunGoesOn(turn.dag, others)
        if turn.overlap == "skip":
            raise RunSkipped(turn.dag, f"{others} goes on")
        if turn.overlap == "cancel_older":
            _refuse_superseded(instance, turn)
            for run in runs:
                if run.run_id not in asked_to_stop:
                    asked_to_stop.add(run.run_id)
                    cancel(instance, run)
        if not is_told:
            is_told = True
            say(f"waiting for {others} of DAG {turn.dag!r} to end")
        pause(POLL_S)
    if turn.overlap == "cancel_older":
        _refuse_superseded(instance, turn)


def running(instance: dg.DagsterInstance, dag: str, *, but: str | None = None) -> list[dg.DagsterRun]:
    """List the runs of a DAG that have a process at work, the newest first."""
    statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(job_name=dag, statuses=statuses))
    return [run for run in runs if run.run_id != but and not is_lost(run)]


def _refuse_superseded(instance: dg.DagsterInstance, turn: Turn) -> None:
    records = instance.get_run_records(dg.RunsFilter(job_name=turn.dag), limit=1)
    for record in records:
        is_own = record.dagster_run.run_id == turn.run_id
        if not is_own and record.create_timestamp.timestamp() > turn.asked:
            raise RunSkipped(turn.dag, f"run {record.dagster_run.run_id} was started later and takes its place")


def cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Ask the process of a run to stop: by a signal, by Dagster, or by a tag that its heartbeat reads."""
    owner = run.tags.get(OWNER_TAG)
    pid = _pid_here(owner or run.tags.get(PROCESS_TAG, ""))
    if pid is not None:
        if owner is None:
            # Dagster takes an interrupt for a failure, unless the run is being cancelled.
            instance.report_run_canceling(run)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    elif owner is not None:
        instance.add_run_tags(run.run_id, {CANCEL_TAG: "true"})
    else:
        with suppress(Exception):  # a launcher may raise anything; the run then goes on, and is waited for
            instance.run_coordinator.cancel_run(run.run_id)


def _pid_here(process: str) -> int | None:
    """Find a process of this host by its tag; None if it is another host's, this very process, or gone."""
    host, _, rest = process.partition(":")
    pid, _, started = rest.partition(":")
    if host != socket.gethostname() or int(pid) == os.getpid() or process_started(int(pid)) != started:
        return None
    return int(pid)
