"""Count what goes wrong, and say it once a class: the traced work never hears of it."""

from __future__ import annotations

import threading
from collections import Counter

from tidemill_core.telemetry import get_logger


def say(event: str, **fields: object) -> None:
    """Log a warning; where even that fails, as on a full disk, work goes on."""
    try:
        get_logger("tidemill_lineage").warning(event, **fields)
    except (OSError, ValueError):  # ValueError: the stream was closed, at the end of a process
        return


class Faults:
    """Errors by ``where:class``, and calls that were lost or read only as whole datasets."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begin afresh: at first, and in a forked child."""
        self._lock = threading.Lock()
        self.errors: Counter[str] = Counter()
        self.last: dict[str, str] = {}
        """Where, or which sink -> the words of the last error there."""
        self.lost = self.unread = 0

    def count(self, where: str, error: BaseException, *, sink: str = "") -> None:
        """Count an error of a place, and of one sink of several there; the first of its class is logged."""
        kind = f"{where}:{type(error).__name__}"
        with self._lock:
            self.errors[kind] += 1
            self.last[where] = self.last[sink or where] = str(error)
            first = self.errors[kind] == 1
        if first:
            say("lineage_failed", where=where, error=repr(error), note="logged once per class")

    def lose(self, calls: int, why: str) -> None:
        """Count calls that no sink will ever see; said at 1, 10, 100 and so on."""
        with self._lock:
            before, self.lost = self.lost, self.lost + calls
            after = self.lost
        if len(str(after)) > len(str(before)) or not before:
            say("lineage_dropped", calls=after, why=why)

    def leave_unread(self) -> None:
        """Count a call whose plan was not read, because plans came faster than they could be."""
        with self._lock:
            self.unread += 1
            first = self.unread == 1
        if first:
            note = "its inputs are joined as whole datasets; logged once"
            say("lineage_plan_not_read", note=note)
