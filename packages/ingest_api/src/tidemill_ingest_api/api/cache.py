"""Encoded pages in memory, the least used forgotten first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar

_OVERHEAD_BYTES = 200


class Sized(Protocol):
    """Something that knows how many bytes it holds."""

    @property
    def size_bytes(self) -> int:
        """Bytes held."""


V = TypeVar("V", bound=Sized)


class PageCache(Generic[V]):
    """A least-recently-used cache.

    Args:
        max_bytes: What all values together may hold; a value larger than a quarter is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._pages: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> V | None:
        """Find a value, and count it as used."""
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
            return page

    def put(self, key: Hashable, page: V) -> None:
        """Keep a value, forgetting others where it needs room."""
        size = page.size_bytes + _OVERHEAD_BYTES
        if size * 4 > self.max_bytes:
            return
        with self._lock:
            old = self._pages.pop(key, None)
            if old is not None:
                self.bytes -= old.size_bytes + _OVERHEAD_BYTES
            self._pages[key] = page
            self.bytes += size
            while self.bytes > self.max_bytes:
                _, dropped = self._pages.popitem(last=False)
                self.bytes -= dropped.size_bytes + _OVERHEAD_BYTES

    def __len__(self) -> int:
        return len(self._pages)
