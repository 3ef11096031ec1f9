"""When a running step is late, is made to stop, and is left behind: numbers only, no threads and no clock.

The scheduler keeps one `Deadlines`; whoever runs the steps asks it what is due and does it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Due(Enum):
    """What is to be done about a step."""

    ASK = "ask"
    """It is past its timeout: ask it to stop."""
    RAISE = "raise"
    """It was asked and had its time: raise an exception in it, as often as it takes until that is possible."""
    LEAVE = "leave"
    """It does not stop: fail it and leave its thread behind."""


@dataclass(slots=True)
class _Deadline:
    late_at: float | None
    raise_at: float | None = None
    leave_at: float | None = None
    is_raised: bool = False


class Deadlines:
    """The deadlines of the steps that run; seconds on any one clock that the caller reads.

    Example:
        >>> deadlines = Deadlines()
        >>> deadlines.begin("copy", now=100.0, timeout_s=5.0)
        >>> list(deadlines.due(106.0))
        [('copy', <Due.ASK: 'ask'>)]
        >>> deadlines.ask("copy", now=106.0, patience_s=2.0, leave_s=10.0)
        True
        >>> list(deadlines.due(109.0))
        [('copy', <Due.RAISE: 'raise'>)]
    """

    def __init__(self) -> None:
        self._of: dict[str, _Deadline] = {}

    def begin(self, key: str, *, now: float, timeout_s: float | None) -> None:
        """Note that a step has started; without a timeout only an interrupt stops it."""
        self._of[key] = _Deadline(None if timeout_s is None else now + timeout_s)

    def end(self, key: str) -> None:
        """Forget a step that has ended or was left behind."""
        self._of.pop(key, None)

    def ask(self, key: str, *, now: float, patience_s: float, leave_s: float) -> bool:
        """Note that a step is asked to stop, and until when it may take its time.

        Asked a second time (an interrupt after a timeout, a second interrupt) it keeps the moment
        at which the exception is raised, and may only be left behind sooner.

        Args:
            key: The step.
            now: The moment.
            patience_s: Seconds until an exception is raised in it.
            leave_s: Seconds until it is left behind.

        Returns:
            Whether this is the first time.
        """
        deadline = self._of[key]
        is_first = deadline.raise_at is None
        if deadline.raise_at is None:
            deadline.raise_at = now + patience_s
        leave_at = now + leave_s
        deadline.leave_at = leave_at if deadline.leave_at is None else min(deadline.leave_at, leave_at)
        return is_first

    def raised(self, key: str) -> None:
        """Note that the exception was raised in a step."""
        self._of[key].is_raised = True

    def due(self, now: float) -> Iterator[tuple[str, Due]]:
        """Name what is to be done by now; of a step that is to be left behind, only that."""
        for key, deadline in list(self._of.items()):
            if deadline.leave_at is not None and now > deadline.leave_at:
                yield key, Due.LEAVE
            elif deadline.raise_at is not None:
                if not deadline.is_raised and now >= deadline.raise_at:
                    yield key, Due.RAISE
            elif deadline.late_at is not None and now > deadline.late_at:
                yield key, Due.ASK

    def next_at(self) -> float | None:
        """Give the first moment at which anything can be due; None if nothing ever is."""
        moments = [moment for deadline in self._of.values() for moment in self._ahead(deadline)]
        return min(moments, default=None)

    @staticmethod
    def _ahead(deadline: _Deadline) -> Iterator[float]:
        if deadline.leave_at is not None:
            yield deadline.leave_at
        if deadline.raise_at is None:
            if deadline.late_at is not None:
                yield deadline.late_at
        elif not deadline.is_raised:
            yield deadline.raise_at
