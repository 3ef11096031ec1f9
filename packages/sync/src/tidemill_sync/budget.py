"""Hold all copies of a run together under one limit of bytes in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 1 << 20


class Budget:
    """Bytes that may be in memory at once, given in the order they are asked for.

    Args:
        total_bytes: The limit. A single wish beyond it waits until it is alone, and then has all.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = self._free = total_bytes
        self._changed = Condition()
        # First come, first served: else small objects would hold a large one back for ever.
        self._waiting: deque[object] = deque()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait for `count` bytes, and hold them while inside."""
        wanted, turn = min(count, self._total), object()
        with self._changed:
            self._waiting.append(turn)
            try:
                while self._waiting[0] is not turn or self._free < wanted:
                    self._changed.wait()
                self._free -= wanted
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def give_back_freed_memory() -> None:
    """Let this process return large buffers to the system as soon as they are freed.

    glibc keeps what a thread frees for that thread alone, and after the first large buffer
    does so for buffers of up to 32 MiB: 16 workers would keep four times what the budget
    allows. A fixed threshold turns that off, for the whole process; so only commands call
    this. Elsewhere than on glibc nothing happens. See mallopt(3), M_MMAP_THRESHOLD.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
