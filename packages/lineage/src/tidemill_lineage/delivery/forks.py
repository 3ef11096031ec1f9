"""Stay whole over a fork: a child makes anew what it must not share, and leaves alone what it inherited.

Three kinds of child differ in how they end. One made by `multiprocessing` runs its finalizers, so it
can write at its end. One that is a daemon (a pool's worker) is killed by a signal when its pool
closes, and one made by a bare `os.fork` often ends by `os._exit`: these run nothing at their end, so
`is_cut_short` tells the tracer to write before each call returns.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

_GUARD_S = 2.0
"""How long a fork waits for the databases of other threads to be at rest."""


class Forked(Protocol):
    """Somebody with threads, locks or connections."""

    def after_fork(self) -> None:
        """Begin afresh in the child."""

    def finish(self) -> None:
        """Write what is left, within a bounded time: this process ends."""


class _State:
    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.has_guard = False
        self.is_bare_fork = False
        self.watched: weakref.WeakSet[Any] = weakref.WeakSet()


_state = _State()


def guard() -> threading.RLock:
    """The lock around every use of a database: a fork waits for it.

    SQLite's own locks would stay locked for ever in a child forked while another thread holds one.
    """
    return _state.guard


def watch(each: Forked) -> None:
    """Tell `each` of forks and of the end of this process, for as long as it lives."""
    _state.watched.add(each)


def is_cut_short() -> bool:
    """Whether this process may end without running anything: see the module."""
    process = sys.modules.get("multiprocessing.process")
    return _state.is_bare_fork or (process is not None and bool(process.current_process().daemon))


class PerProcess(Generic[T]):
    """A connection that is opened once a process, and never used or closed by a forked child.

    Args:
        open_: Opens it.
    """

    def __init__(self, open_: Callable[[], T]) -> None:
        self._open, self._pid = open_, 0
        self._value: T | None = None
        self._inherited: list[T] = []

    def get(self) -> T:
        """Open it, or return what this process opened before."""
        if self._value is None or self._pid != os.getpid():
            if self._value is not None:
                # kept alive: closing a parent's connection would end it for the parent too
                self._inherited.append(self._value)
            self._value, self._pid = self._open(), os.getpid()
        return self._value

    def take(self) -> T | None:
        """Give up what this process opened, for closing; None if it opened nothing."""
        if self._value is None or self._pid != os.getpid():
            return None
        value, self._value = self._value, None
        return value


def finish_all() -> None:
    """Write what every tracer still holds; called once when this process ends."""
    for each in list(_state.watched):
        each.finish()


def _before() -> None:
    _state.has_guard = _state.guard.acquire(timeout=_GUARD_S)


def _after_in_parent() -> None:
    if _state.has_guard:
        _state.guard.release()


def _after_in_child() -> None:
    _state.guard, _state.is_bare_fork = threading.RLock(), True
    for each in list(_state.watched):
        each.after_fork()
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # only the children of multiprocessing call this back, before any code of the user's
        util.register_after_fork(_state, _in_multiprocessing)


def _in_multiprocessing(state: _State) -> None:
    from multiprocessing import util

    state.is_bare_fork = False
    util.Finalize(None, finish_all, exitpriority=100)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
