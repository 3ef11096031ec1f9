"""Watch what a traced call does to frames: the doors are in place while such calls run, and gone afterwards.

Collecting a polars LazyFrame is noted with its plan and the frame it gave; polars' own eager operations go the same
way. Operations of pandas, pyarrow, DuckDB and polars' series are noted by what their result is made of
(`capture.watch`). Each library's doors are gated by its version: without them, what it makes stands for all inputs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import Token as ContextToken
from importlib import import_module
from typing import Any

from tidemill_lineage.capture.watch.op import Door, current
from tidemill_lineage.capture.watch.seen import Seen
from tidemill_lineage.capture.watch.trail import Trail

Token = ContextToken[Trail | None]

_LIBRARIES = {
    "polars": "tidemill_lineage.capture.watch.polars_doors",
    "pandas": "tidemill_lineage.capture.watch.pandas_doors",
    "pyarrow": "tidemill_lineage.capture.watch.arrow_doors",
    "duckdb": "tidemill_lineage.capture.watch.duckdb_doors",
}
"""Library -> the module that says what is watched in it, imported when the library is there."""
_doors: dict[str, Mapping[str, list[Door]]] = {}
_lock = threading.Lock()
_active = 0
_open: dict[tuple[str, str], list[tuple[Door, Any]]] = {}


def start(trail: Trail, libraries: Iterable[str] = ()) -> Token:
    """Note on `trail` what this thread or task does, until `stop`.

    Args:
        trail: Of the call.
        libraries: Those whose every operation is of interest from the start; of the others only what leads to them.
    """
    trail.need, trail.explain_relation = need, _relation
    enter(libraries)
    return current.set(trail)


def stop(token: Token) -> None:
    """Note no more; what was noted around this goes on."""
    try:
        # A coroutine that was closed by another task: its context is gone, and the note with it.
        with suppress(ValueError):
            current.reset(token)
    finally:
        leave()


def enter(libraries: Iterable[str] = ()) -> None:
    """Put the doors in place, unless they are."""
    global _active  # noqa: PLW0603  # calls that run now, counted under the lock
    with _lock:
        _active += 1
        for name in _LIBRARIES:
            if name in sys.modules:
                _put(name, "entry")
        for name in libraries:
            _put(name, "deep")


def need(library: str) -> None:
    """Open all doors of a library that came in while the call ran."""
    with _lock:
        if _active and library in sys.modules:
            _put(library, "deep")


def leave() -> None:
    """Take the doors away when no call runs any more."""
    global _active  # noqa: PLW0603  # as above
    with _lock:
        _active -= 1
        if _active == 0:
            for opened in reversed(_open.values()):
                for door, before in reversed(opened):
                    door.close(before)
            _open.clear()


def _put(library: str, part: str) -> None:
    if (library, part) not in _open:
        _open[library, part] = [(door, door.open()) for door in _doors_of(library).get(part, ())]


def after_fork() -> None:
    """Begin without doors in a forked child: the calls of other threads do not go on there."""
    global _lock, _active  # as above
    _lock, _active = threading.Lock(), 1
    leave()


def _relation(trail: Trail, relation: Any) -> Seen:
    from tidemill_lineage.capture.watch.duckdb_doors import seen_of

    return seen_of(trail, relation)


def _doors_of(library: str) -> Mapping[str, list[Door]]:
    if library not in _doors:
        try:
            _doors[library] = import_module(_LIBRARIES[library]).doors()
        except Exception as error:  # noqa: BLE001  # a version with other insides: not watched, and its results are assumed
            _doors[library] = {}
            faults[library] = error
    return _doors[library]


faults: dict[str, Exception] = {}
"""Libraries whose doors could not be made, and why."""
