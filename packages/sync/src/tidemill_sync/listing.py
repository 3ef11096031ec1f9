"""Read a listing ahead of who merges it, so that both sides are asked at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 2
_LOOK_S = 0.2


def ahead(items: Iterable[T], *, at_most: int = _AHEAD) -> Iterator[T]:
    """Yield items that a thread reads in advance, a few at most; its errors are raised here.

    Args:
        items: Read on another thread, and closed there when the reader stops early.
        at_most: Items read and not yet yielded.
    """
    waiting: Queue[T | _End] = Queue(at_most)
    is_over = Event()
    # Begun by the first `next`, so that a listing nobody reads asks nothing.
    Thread(target=_read, args=(items, waiting, is_over), name="sync-list", daemon=True).start()
    try:
        while not isinstance(found := waiting.get(), _End):
            yield found
        if found.error is not None:
            raise found.error
    finally:
        is_over.set()


@dataclass(frozen=True, slots=True)
class _End:
    """No more items, or the error that ended them."""

    error: BaseException | None = None


def _read(items: Iterable[T], waiting: Queue[T | _End], is_over: Event) -> None:
    end = _End()
    try:
        for item in items:
            if not _is_taken(item, waiting, is_over):
                return
    except BaseException as error:  # noqa: BLE001  # raised again by the reader
        end = _End(error)
    _is_taken(end, waiting, is_over)


def _is_taken(item: T | _End, waiting: Queue[T | _End], is_over: Event) -> bool:
    """Wait for room; False once the reader has stopped."""
    while not is_over.is_set():
        try:
            waiting.put(item, timeout=_LOOK_S)
        except Full:
            continue
        return True
    return False
