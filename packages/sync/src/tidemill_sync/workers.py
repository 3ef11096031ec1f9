"""Threads that work off actions: a bounded queue in, results out, and little between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[T, R]):
    """What became of one item: its result, or the error that its work raised."""

    item: T
    result: R | None
    error: BaseException | None


class Workers(Generic[T, R]):
    """Threads that apply one function to items; for a pool of futures, waiting alone costs more than a small copy.

    Args:
        work: Applied to each item, on any thread.
        threads: How many items at once.
        most: Items given and not taken back at most; `give` must not be called beyond.
    """

    def __init__(self, work: Callable[[T], R], *, threads: int, most: int) -> None:
        self._work, self._most = work, most
        self._given: SimpleQueue[T | None] = SimpleQueue()
        self._done: SimpleQueue[Done[T, R]] = SimpleQueue()
        self._out = 0
        self._limit = threads
        self._threads: list[Thread] = []

    @property
    def is_full(self) -> bool:
        """Whether something must be taken back before more is given."""
        return self._out >= self._most

    @property
    def is_idle(self) -> bool:
        """Whether all that was given has been taken back."""
        return not self._out

    def give(self, item: T) -> None:
        """Hand an item to the threads."""
        self._out += 1
        if len(self._threads) < min(self._limit, self._out):
            thread = Thread(target=self._loop, name=f"sync-{len(self._threads)}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._given.put(item)

    def take(self, *, waiting: bool) -> Iterator[Done[T, R]]:
        """Take back what is done; with `waiting`, at least one if any is out."""
        if waiting and self._out:
            self._out -= 1
            yield self._done.get()
        with suppress(Empty):
            while self._out:
                done = self._done.get_nowait()
                self._out -= 1
                yield done

    def end(self) -> Iterator[Done[T, R]]:
        """Drop what no thread has begun, wait for the rest, and take it back."""
        with suppress(Empty):
            while True:
                self._given.get_nowait()
                self._out -= 1
        for _ in self._threads:
            self._given.put(None)
        while self._out:
            self._out -= 1
            yield self._done.get()
        for thread in self._threads:
            thread.join()

    def _loop(self) -> None:
        while (item := self._given.get()) is not None:
            try:
                done = Done(item, self._work(item), None)
            except BaseException as error:  # noqa: BLE001  # handed to the main thread, which raises it
                done = Done(item, None, error)
            self._done.put(done)
