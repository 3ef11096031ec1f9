"""One thread a sink: takes runs from the outbox, hands them over, and moves the sink's place."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tidemill_lineage.delivery.faults import Faults, say
from tidemill_lineage.delivery.outbox import Outbox, Parcel
from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.errors import EmitRefused, GraphError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_LOOK_S = 5.0
"""How often an idle courier looks for what other processes, now dead, have left."""
_BUSY_S = 0.02
"""How soon it asks again for a sink that another process is delivering to."""


class Courier:
    """Delivers to one sink, in order, until it is stopped.

    Args:
        emitter: The sink.
        key: What the outbox calls it.
        box: Where the runs are.
        faults: Who counts what goes wrong.
    """

    def __init__(self, emitter: Emitter, key: str, box: Outbox, faults: Faults) -> None:
        self.emitter, self.key, self._box, self._faults = emitter, key, box, faults
        self._lock = -1
        self._is_stopping = False
        self.after_fork()

    def after_fork(self) -> None:
        """Begin without a thread: at first, and in a forked child."""
        self._wake = threading.Event()
        self.moved = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pause_s = 0.0
        self.failures = 0
        self._is_stopping = False
        if self._lock >= 0:
            # a parent killed later must not leave its sink locked by this child
            # first forgotten, then closed: a child forked between the two must not close another's file
            lock, self._lock = self._lock, -1
            os.close(lock)
        self.has_closed = False

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"tidemill-lineage {self.key}", daemon=True)
            self._thread.start()

    def wake(self, *, hurry: bool = False) -> None:
        """Say that there is something new; `hurry` ends the pause after a failure."""
        if hurry or not self._pause_s:
            self._wake.set()

    def wait(self, upto: int, deadline: float, *, attempts: int | None = None) -> bool:
        """Wait until the sink has every row up to `upto`.

        Args:
            upto: Number of a row of the outbox.
            deadline: Give up then (monotonic).
            attempts: Give up, too, after so many failures.

        Returns:
            False if it was given up.
        """
        self.start()
        self.wake(hurry=True)
        while self._box.waiting(self.key, upto=upto):
            left = deadline - time.monotonic()
            if left <= 0 or (attempts is not None and self.failures >= attempts):
                return False
            with self.moved:
                # bounded: the rows may be taken by another process, which does not notify us
                self.moved.wait(min(left, 0.05))
        return True

    def stop(self) -> None:
        """Ask the thread to end after one more try; it closes the emitter, so that a hung one holds nobody."""
        self._is_stopping = True
        self.start()
        self._wake.set()

    def join(self, deadline: float) -> bool:
        """Wait for the thread's end; False if the deadline came first."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            return not self._thread.is_alive()
        return True

    def _work(self) -> None:
        while True:
            self._wake.clear()
            self._deliver()
            if self._is_stopping:
                break
            self._wake.wait(self._pause_s or _LOOK_S)
        self._guarded(f"close {self.emitter.name}", self.emitter.close)

    def _deliver(self) -> None:
        """Hand over all there is; sets how long to pause after a failure."""
        with self._sole() as mine:
            if not mine:
                self._pause_s = _BUSY_S if self._guarded_waiting() else 0.0
                return
            before, self._pause_s = self._pause_s, 0.0
            ok = self._guarded("outbox", self._box.reap)
            while ok:
                parcels: list[Parcel] = []
                ok = self._guarded("outbox", lambda: parcels.extend(self._box.next(self.key)))  # noqa: B023  # run at once
                if not ok or not parcels:
                    break
                ok = self._hand_over(parcels)
            if not ok:
                self.failures += 1
                with self.moved:
                    self.moved.notify_all()
                self._pause_s = min(max(before * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            elif before and self.failures:
                self.failures = 0
                say("lineage_sink_well", sink=self.key)

    def _hand_over(self, parcels: Sequence[Parcel]) -> bool:
        """Emit parcels and move on; one that is refused by itself is told and left behind."""
        runs = [run for parcel in parcels for run in parcel.runs]
        try:
            self.emitter.emit(runs)
        except (EmitRefused, GraphError) as error:
            if len(parcels) > 1:
                return all(self._hand_over([parcel]) for parcel in parcels)
            self._faults.count(self.emitter.name, error, sink=self.key)
            calls = sum(run.calls for run in runs)
            self._faults.lose(calls, f"{self.key} refused them: {error}")
        except BaseException as error:  # noqa: BLE001  # an emitter is a stranger: whatever it raises is counted, and the rows wait
            self._faults.count(self.emitter.name, error, sink=self.key)
            return False
        if not self._guarded("outbox", lambda: self._box.advance(self.key, parcels)):
            return False
        with self.moved:
            self.moved.notify_all()
        return True

    def _guarded(self, where: str, work: object) -> bool:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  # a full disk or an emitter's close: counted, tried again later
            self._faults.count(where, error)
            return False
        return True

    def _guarded_waiting(self) -> int:
        try:
            return self._box.waiting(self.key)
        except Exception as error:  # noqa: BLE001  # as above
            self._faults.count("outbox", error)
            return 0

    @contextmanager
    def _sole(self) -> Iterator[bool]:
        """Be the only process that delivers to this sink; the kernel frees the lock of a dead one."""
        path = self._box.lock_path(self.key)
        if path is None:
            yield True
            return
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._faults.count("outbox", error)
            yield False
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
            # by name: a child forked meanwhile has the same open file, and closing ours would not free it
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        finally:
            # first forgotten, then closed: a child forked between the two must not close another's file
            lock, self._lock = self._lock, -1
            os.close(lock)
