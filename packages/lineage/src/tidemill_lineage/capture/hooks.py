"""See what a traced call collects half-way, so that a plan that starts from it is followed further.

While a call that handles frames runs, collecting a LazyFrame is noted: the plan, and the frame it gave.
Polars' own eager operations go the same way. The hooks do nothing outside such calls, and are gone when the
last of them has ended. The interface is private to polars: where it is another, there are no hooks, and an
unknown frame stands for all inputs of the call.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from contextvars import Token as ContextToken
from typing import Any

Made = list[tuple[Any, Any]]
"""LazyFrames that were collected, and what each gave."""
Token = ContextToken[Made | None]

_MOST_MADE = 200
"""Collections noted in one call; a loop that collects more keeps no more frames alive."""
_NAMES = ("collect", "_collect_eager")
_made: ContextVar[Made | None] = ContextVar("tidemill_lineage_made", default=None)
_lock = threading.Lock()
_active = 0
_originals: dict[str, Callable[..., Any]] = {}


def start(made: Made) -> Token:
    """Note into `made` what this thread or task collects, until `stop`."""
    enter()
    return _made.set(made)


def stop(token: Token) -> None:
    """Note no more; what was noted around this goes on."""
    try:
        # A coroutine that was closed by another task: its context is gone, and the note with it.
        with suppress(ValueError):
            _made.reset(token)
    finally:
        leave()


def enter() -> None:
    """Put the hooks in place, unless they are."""
    global _active  # noqa: PLW0603  # calls that run now, counted under the lock
    polars = sys.modules.get("polars")
    with _lock:
        _active += 1
        if _active == 1 and polars is not None:
            for name in _NAMES:
                original = polars.LazyFrame.__dict__.get(name)
                if original is not None:
                    _originals[name] = original
                    setattr(polars.LazyFrame, name, _noted(original))


def leave() -> None:
    """Take the hooks away when no call runs any more."""
    global _active  # noqa: PLW0603  # as above
    with _lock:
        _active -= 1
        if _active == 0:
            for name, original in _originals.items():
                setattr(sys.modules["polars"].LazyFrame, name, original)
            _originals.clear()


def after_fork() -> None:
    """Begin without hooks in a forked child: the calls of other threads do not go on there."""
    global _lock, _active  # as above
    _lock, _active = threading.Lock(), 1
    leave()


def _noted(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def collect(frame: Any, *args: Any, **kwargs: Any) -> Any:
        made = _made.get()
        if made is None:
            return original(frame, *args, **kwargs)
        # one collection may call another inside polars: only the outer is the user's
        token = _made.set(None)
        try:
            result = original(frame, *args, **kwargs)
        finally:
            _made.reset(token)
        if len(made) < _MOST_MADE:
            made.append((frame, result))
        return result

    return collect
