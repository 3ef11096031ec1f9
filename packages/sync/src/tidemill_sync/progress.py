"""Show a run on stderr: a live line on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tidemill_core.telemetry import get_logger

from tidemill_sync.plan import Action
from tidemill_sync.result import Counts, Progress

log = get_logger(__name__)
_LOG_EVERY_S = 10.0


def progress_for(*, is_quiet: bool = False) -> Progress:
    """Choose how to show a run on this stderr."""
    if sys.stderr.isatty() and not is_quiet:
        return LiveProgress()
    return LogProgress()


class LogProgress:
    """Logs the counts every ten seconds."""

    def __init__(self) -> None:
        self._logged_at = time.monotonic()

    def planned(self, action: Action) -> None:
        """Nothing to show."""

    def moved(self, counts: Counts) -> None:
        """Log, if it is time."""
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.info("sync_progress", seen=counts.source_objects, copied=counts.copied, bytes=counts.bytes)

    def close(self) -> None:
        """Nothing to end."""


class LiveProgress:
    """A bar that grows with the plan."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        self._bar: Any = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[objects]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("sync", total=0, objects="")
        self._bytes = 0
        self._bar.start()

    def planned(self, action: Action) -> None:
        """Let the bar grow."""
        if action.kind in {"copy", "replace"}:
            self._bytes += action.size_bytes

    def moved(self, counts: Counts) -> None:
        """Show where we are."""
        done = counts.copied + counts.replaced + counts.adopted
        objects = f"{done} copied, {counts.skipped} unchanged, {counts.failed} failed, {counts.source_objects} seen"
        self._bar.update(self._task, total=self._bytes, completed=counts.bytes, objects=objects)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()
