"""Stop cleanly: signals set a token that loops look at, and what was opened is closed in reverse order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Self

from tidemill_core.errors import Stopped
from tidemill_core.telemetry import get_logger

__all__ = [
    "Shutdown",
    "ShutdownFault",
    "StopToken",
    "Stopped",
    "stop_here",
    "stop_on_signals",
    "stop_token",
    "uninterrupted",
]

log = get_logger(__name__)


class StopToken:
    """A request to stop, shared by the threads of one piece of work; once set it stays set.

    `set` may be called from a signal handler: it takes no lock that the interrupted
    thread could hold (`threading.Event.set` does).
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._error: BaseException | None = None
        self._gate = threading.Lock()
        self._gate.acquire()
        self.is_watched = False
        """Whether the work that it is for has asked for it (`stop_token`), and so may be trusted to look at it."""
        self.is_overdue = False
        """Whether the work has had its time to stop by itself; `stop_here` raises from then on."""
        self.is_delivered = False
        """Whether `stop_here` has raised; it does so once."""

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """Why to stop, such as ``SIGTERM``; None while not set."""
        return self._reason

    def set(self, reason: str = "stop requested", *, error: BaseException | None = None) -> None:
        """Ask everybody to stop; the first reason is kept.

        Args:
            reason: Why, such as ``SIGTERM``.
            error: What `raise_if_set` raises; by default `Stopped`.
        """
        if self._reason is None:
            self._error = error
            self._reason = reason
            self._open()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until set or until `timeout_s` has passed; tells whether it is set."""
        if not self.is_set and self._gate.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s)):
            self._open()  # let the next waiter through
        return self.is_set

    def raise_if_set(self) -> None:
        """Raise `Stopped` (or the error that was given) when set; call it between units of work."""
        if self._reason is not None:
            raise self._error or Stopped(self._reason)

    def _open(self) -> None:
        with suppress(RuntimeError):  # already open: two threads set it at once
            self._gate.release()


_CURRENT: ContextVar[StopToken | None] = ContextVar("tidemill_stop_token", default=None)
_SHIELDS: dict[int, int] = {}
"""How deep each thread is inside `uninterrupted`; a thread writes its own entry only."""


def stop_token() -> StopToken:
    """Give the token of the work that calls this, to look at between units.

    Inside a step of the `threads` executor it is set when the step is past its timeout or the
    run is stopped; elsewhere nobody sets it. A thread that the work starts does not inherit it:
    hand it over.

    Example:
        >>> stop_token().is_set
        False
    """
    token = _CURRENT.get()
    if token is None:
        return StopToken()
    token.is_watched = True
    return token


def stop_here() -> None:
    """Stop the step that calls this, if it has not stopped in time by itself; for code that shares a pool.

    Call it where nothing is taken yet. The `threads` executor raises no exception inside such code, so
    a step that does nothing but call it would otherwise never be stopped.
    """
    token = _CURRENT.get()
    if token is not None and token.is_overdue and not token.is_delivered:
        token.is_delivered = True
        token.raise_if_set()


@contextmanager
def working_under(token: StopToken) -> Iterator[None]:
    """Make `token` the one that `stop_token` gives, in this thread and context."""
    _SHIELDS.pop(threading.get_ident(), None)  # the number of a thread that ended is used again
    reset = _CURRENT.set(token)
    try:
        yield
    finally:
        _CURRENT.reset(reset)


class uninterrupted:  # noqa: N801 - it is used as a function
    """Mark a stretch in which a step on a thread must not be stopped by an exception.

    The `threads` executor stops a step that does not look at its `stop_token` by raising an
    exception at whatever instruction it is at. Wrap the few instructions that take something
    shared, hold it for an instant, or give it back:

        with uninterrupted():
            connection = pool.get()
        try:
            ...
        finally:
            with uninterrupted():
                pool.put(connection)

    Keep it short: while a step is inside, it cannot be stopped.
    """

    def __enter__(self) -> None:
        me = threading.get_ident()
        _SHIELDS[me] = _SHIELDS.get(me, 0) + 1

    def __exit__(self, *_error: object) -> None:
        me = threading.get_ident()
        depth = _SHIELDS.get(me, 1) - 1
        if depth:
            _SHIELDS[me] = depth
        else:
            _SHIELDS.pop(me, None)


def is_uninterrupted(thread: int) -> bool:
    """Tell whether the thread of that identifier is inside `uninterrupted`."""
    return thread in _SHIELDS


@contextmanager
def stop_on_signals(
    token: StopToken | None = None, *, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[StopToken]:
    """Yield a token that the first signal sets; the second raises KeyboardInterrupt.

    The former handlers come back at the end. Outside the main thread, where Python
    allows no handlers, it is the token of the step that runs there (`stop_token`).
    """
    token = token or stop_token()

    def handle(number: int, _frame: FrameType | None) -> None:
        if token.is_set:
            raise KeyboardInterrupt
        token.set(signal.Signals(number).name)

    former = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.signal(number, handle) for number in signals}
    try:
        yield token
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownFault:
    """Something that did not close: `error` is None when it only took too long."""

    name: str
    seconds: float
    error: BaseException | None = None


class Shutdown:
    """Closes what was opened, last opened first; one that hangs or fails does not keep the others open.

    with Shutdown() as shutdown:
        shutdown.push("health", health.stop, deadline_s=2)
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object], float | None]] = []

    def push(self, name: str, close: Callable[[], object], deadline_s: float | None = 10.0) -> None:
        """Add a step.

        Args:
            name: What is closed, for logs.
            close: Called once, without arguments.
            deadline_s: Seconds to wait for it, in a thread of its own; None calls it in
                the closing thread and waits as long as it takes.
        """
        self._steps.append((name, close, deadline_s))

    def run(self) -> tuple[ShutdownFault, ...]:
        """Close everything, in reverse order; returns what failed or took too long (both are logged)."""
        faults = []
        while self._steps:
            fault = _close(*self._steps.pop())
            if fault:
                log.warning("close_failed", what=fault.name, seconds=round(fault.seconds, 3), error=fault.error)
                faults.append(fault)
        return tuple(faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.run()


def _close(name: str, close: Callable[[], object], deadline_s: float | None) -> ShutdownFault | None:
    began = time.monotonic()
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            close()
        except Exception as error:  # noqa: BLE001  # the others must still be closed; it is reported
            errors.append(error)

    if deadline_s is None:
        attempt()
        is_late = False
    else:
        thread = threading.Thread(target=attempt, name=f"close {name}", daemon=True)
        thread.start()
        thread.join(deadline_s)
        is_late = thread.is_alive()
    if errors or is_late:
        return ShutdownFault(name=name, seconds=time.monotonic() - began, error=errors[0] if errors else None)
    return None
