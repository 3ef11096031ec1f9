"""The thread between the traced calls and the outbox: reads plans, lets the data go, writes runs.

A call that handles no frames says the same each time, so after the first such call of a job in a run
the others are counted in a `Tally`, which costs no queue and keeps nobody's data alive. Calls with
frames wait in a queue; when plans come faster than they can be read, a call waits a moment and then
goes on, recorded with its inputs as whole datasets.
"""

from __future__ import annotations

import queue
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from tidemill_lineage.delivery.faults import Faults
from tidemill_lineage.delivery.folding import fold
from tidemill_lineage.model import Run
from tidemill_lineage.observed import Call, Spec, to_run

_GATHER_S = 0.1
"""Pause between two writes, so that many calls share one; within the second that is promised."""
_ROOM_S = 0.05
"""How long a call waits for room in the queue before its plan is left unread."""
_KEPT_RUNS = 10_000
"""Runs kept in memory while the outbox cannot be written, as on a full disk."""
_RETRY_S = 0.5

Key = tuple[Spec, str, str]


class Tally:
    """Calls of one job in one run that say the same; the writer takes the count from time to time."""

    __slots__ = ("calls", "ended_at", "run", "started_at")

    def __init__(self, at: float) -> None:
        self.run: Run | None = None
        self.calls = 0
        self.started_at = self.ended_at = at

    def taken(self) -> Run | None:
        """The calls counted since the last time, as a run."""
        if self.run is None or not self.calls:
            return None
        found = replace(self.run, calls=self.calls, started_at=self.started_at, ended_at=self.ended_at)
        self.calls = 0
        return found


class Writer:
    """Turns calls into runs, and hands them on.

    Args:
        put: Keeps runs; raises if it cannot.
        faults: Who counts what goes wrong.
        queue_size: Calls with frames that may wait to be read.
    """

    def __init__(self, put: Callable[[Sequence[Run]], None], faults: Faults, queue_size: int) -> None:
        self._put, self._faults, self._queue_size = put, faults, queue_size
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with an empty queue and no thread: at first, and in a forked child."""
        self.captured = self.written = 0
        self._queue: queue.Queue[Call | Run] = queue.Queue(self._queue_size)
        self._overflow: deque[Run] = deque()
        self._unwritten: list[Run] = []
        self._tallies: dict[Key, Tally] = {}
        self._counting, self._starting = threading.Lock(), threading.Lock()
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._settled = threading.Condition()
        self._asked = self._answered = 0
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def add_call(self, call: Call) -> None:
        """Take a finished call; takes a microsecond or two unless the queue is full."""
        if not call.has_frames:
            key = (call.spec, call.run_id, call.error_type)
            with self._counting:
                self.captured += 1
                tally = self._tallies.get(key)
                if tally is not None:
                    if not tally.calls:
                        tally.started_at = call.started_at
                    tally.calls += 1
                    tally.ended_at = call.ended_at
                    if call.error is not None and tally.run is not None:
                        tally.run = replace(tally.run, error=call.error)
                else:
                    self._tallies[key] = Tally(call.started_at)
            if tally is not None:
                self._awake()
                return
        else:
            with self._counting:
                self.captured += 1
        self._enqueue(call)

    def add_run(self, run: Run) -> None:
        """Take a run that was made by hand."""
        with self._counting:
            self.captured += 1
        self._enqueue(run)

    def settle(self, deadline: float) -> bool:
        """Wait until all that was added before is written; False if the deadline (monotonic) came first."""
        if self._thread is None and not self._queue.qsize() and not self._tallies and not self._unwritten:
            return True
        with self._settled:
            self._asked += 1
            ticket = self._asked
        self._hurry.set()
        self._awake()
        with self._settled:
            while self._answered < ticket:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._settled.wait(left)
        return not self._unwritten

    def forget(self, run_ids: Sequence[str]) -> None:
        """Drop the tallies of runs that have ended."""
        with self._counting:
            for key in [key for key, tally in self._tallies.items() if key[1] in run_ids and not tally.calls]:
                del self._tallies[key]

    def waiting(self) -> int:
        """Count the runs that could not be written yet."""
        return len(self._unwritten) + self._queue.qsize()

    def stop(self, deadline: float) -> None:
        """Write what is left, and end the thread."""
        self.settle(deadline)
        thread = self._thread
        self._is_stopping = True
        self._hurry.set()
        self._awake()
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._thread, self._is_stopping = None, False

    def _enqueue(self, item: Call | Run) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._hurry.set()
            self._awake()
            if isinstance(item, Call):
                try:
                    self._queue.put(item, timeout=_ROOM_S)
                except queue.Full:
                    self._leave_unread(item)
            else:
                self._overflow.append(item)
        self._awake()

    def _leave_unread(self, call: Call) -> None:
        """Record a call by its inputs alone; its frames are let go, so that memory stays bounded."""
        self._faults.leave_unread()
        call.forget_frames()
        self._overflow.append(to_run(call))

    def _awake(self) -> None:
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                _import_readers()
                self._thread = threading.Thread(target=self._work, name="tidemill-lineage writer", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._wake.wait(_RETRY_S if self._unwritten else None)
            self._wake.clear()
            with self._settled:
                asked = self._asked
            self._drain()
            with self._settled:
                self._answered = asked
                self._settled.notify_all()
            if self._is_stopping and self._queue.empty():
                return
            if self._asked == asked:
                # between writes calls gather; whoever waits for one hurries it
                self._hurry.wait(_GATHER_S)
            self._hurry.clear()

    def _drain(self) -> None:
        """Read all that is queued, and write it with what was counted."""
        found, self._unwritten = self._unwritten, []
        while self._overflow:
            found.append(self._overflow.popleft())
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            run = item if isinstance(item, Run) else self._read(item)
            del item  # the data goes now, not when the next call comes
            if run is not None:
                found.append(run)
        with self._counting:
            found += [run for tally in self._tallies.values() if (run := tally.taken()) is not None]
        if not found:
            return
        try:
            runs = fold(found)
        except BaseException as error:  # noqa: BLE001  # a run made by hand may hold anything; the others go on unfolded
            self._faults.count("capture", error)
            runs = found
        self._write(runs)

    def _write(self, runs: list[Run]) -> None:
        try:
            self._put(runs)
            self.written += len(runs)
        except (OSError, sqlite3.Error) as error:  # a full disk or a lost folder: kept, and tried again
            self._faults.count("outbox", error)
            self._keep(runs)
        except BaseException as error:  # noqa: BLE001  # a run that cannot be written down must not hold up the others
            if len(runs) > 1:
                for run in runs:
                    self._write([run])
                return
            self._faults.count("capture", error)
            self._faults.lose(1, f"it cannot be written down: {error!r}")

    def _keep(self, runs: list[Run]) -> None:
        kept = self._unwritten + runs
        if len(kept) > _KEPT_RUNS:
            lost = kept[:-_KEPT_RUNS]
            self._faults.lose(sum(run.calls for run in lost), "the outbox cannot be written")
        self._unwritten = kept[-_KEPT_RUNS:]

    def _read(self, call: Call) -> Run | None:
        try:
            run = to_run(call)
        except BaseException as error:  # noqa: BLE001  # a plan of a stranger's making, read in our thread: counted, never raised
            self._faults.count("capture", error)
            call.forget_frames()
            run = to_run(call)
        if not call.has_frames:
            with self._counting:
                tally = self._tallies.get((call.spec, call.run_id, call.error_type))
                if tally is not None:
                    tally.run = run
        return run


def _import_readers() -> None:
    """Import what the thread will need: a child forked during its first import would wait for ever."""
    if "polars" in sys.modules:
        import tidemill_lineage.capture.polars_plan
        import tidemill_lineage.capture.polars_probe  # noqa: F401
