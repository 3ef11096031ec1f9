"""Bound a call that a library leaves unbounded: a server that was stopped answers nothing, for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tidemill_lineage.errors import EmitterDown

_MOST_LEFT = 4


class Bounded:
    """Runs calls in threads of their own, and leaves behind one that takes too long.

    Args:
        where: Who is called, for the error.
        timeout_s: The longest a call may take.
    """

    def __init__(self, where: str, timeout_s: float) -> None:
        self._where, self._timeout_s = where, timeout_s
        self._left: list[threading.Thread] = []

    def call(self, work: Callable[[], None]) -> None:
        """Do the work, or give up on it.

        Raises:
            EmitterDown: It took too long, or too many calls before it still hang.
            BaseException: What the work raised.
        """
        self._left = [each for each in self._left if each.is_alive()]
        if len(self._left) >= _MOST_LEFT:
            raise EmitterDown(self._where, f"{len(self._left)} calls before this one have had no answer")
        raised: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # raised again by the caller below
                raised.append(error)

        thread = threading.Thread(target=guarded, name=f"tidemill-lineage call to {self._where}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if thread.is_alive():
            self._left.append(thread)
            raise EmitterDown(self._where, f"no answer in {self._timeout_s:g} s")
        if raised:
            raise raised[0]
