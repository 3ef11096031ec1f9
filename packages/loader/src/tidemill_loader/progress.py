"""Show how far a load is: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from tidemill_core.telemetry import get_logger

if TYPE_CHECKING:
    from tidemill_loader.plan import Plan

log = get_logger(__name__)
LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Hears what a load does; called from several threads."""

    def start(self, plan: Plan, pending: int) -> None:
        """The load begins; `pending` of the plan's units are left to do."""

    def advance(self, rows: int, size: int) -> None:
        """`rows` were sent, `size` bytes in wire format."""

    def unit_done(self) -> None:
        """A unit was committed."""


class NoProgress:
    """Says nothing."""

    def start(self, plan: Plan, pending: int) -> None:
        """Say nothing."""

    def advance(self, rows: int, size: int) -> None:
        """Say nothing."""

    def unit_done(self) -> None:
        """Say nothing."""


class LogProgress:
    """Writes a log line every few seconds."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s, self._lock = every_s, threading.Lock()
        self._rows = self._units = self._pending = 0
        self._table = ""
        self._next = 0.0

    def start(self, plan: Plan, pending: int) -> None:
        """Log what will be done."""
        self._table, self._pending, self._next = plan.config.table, pending, time.monotonic() + self._every_s
        skipped = len(plan.tasks) - pending
        log.info("load_started", table=self._table, files=len(plan.files), units=pending, units_already_loaded=skipped)

    def advance(self, rows: int, size: int) -> None:
        """Count, and log if it is time."""
        del size
        with self._lock:
            self._rows += rows
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self._every_s
            log.info("load_running", table=self._table, rows=self._rows, units_done=self._units, units=self._pending)

    def unit_done(self) -> None:
        """Count."""
        with self._lock:
            self._units += 1


class BarProgress:
    """Draws a bar on stderr: units done, rows and speed; a context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._lock, self._rows, self._began = threading.Lock(), 0, time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rows]:,} rows, {task.fields[speed]:,}/s"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, plan: Plan, pending: int) -> None:
        """Begin a bar for this table."""
        self._rows, self._began = 0, time.monotonic()
        total = len(plan.tasks)
        self._task = self._bar.add_task(plan.config.table, total=total, completed=total - pending, rows=0, speed=0)

    def advance(self, rows: int, size: int) -> None:
        """Count rows."""
        del size
        with self._lock:
            self._rows += rows
            speed = int(self._rows / max(time.monotonic() - self._began, 0.001))
            self._bar.update(self._task, rows=self._rows, speed=speed)

    def unit_done(self) -> None:
        """Move the bar."""
        self._bar.advance(self._task)


def is_terminal() -> bool:
    """Tell whether a person watches stderr."""
    return sys.stderr.isatty()
