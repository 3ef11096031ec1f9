"""Hear what the other packages announce in this process, and keep it on disk at once."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from tidemill_core.lineage_hooks import DataEvent, subscribe
from tidemill_core.settings import Settings

from tidemill_lineage.capture.declared import from_event
from tidemill_lineage.events import EventLog

_installed: dict[Path, Callable[[], None]] = {}
_lock = threading.Lock()
_process_run = f"process-{uuid.uuid4()}"


def lineage_folder(settings: Settings) -> Path:
    """Where a home keeps its lineage: the graph, the page, and the events of each run."""
    return settings.home.absolute() / "lineage"


def events_of(settings: Settings) -> EventLog:
    """Open the events of a home."""
    return EventLog(lineage_folder(settings) / "events")


def install(settings: Settings | None = None, *, run_id: Callable[[], str | None] | None = None) -> None:
    """Append every event of this process to the event log of the home, from now on.

    Calling it again for the same home does nothing. Each event is on disk before the announcing
    call returns, so a killed process loses none, and processes of one run share its file.

    Args:
        settings: Whose home; default the environment's.
        run_id: Says which run an event without one belongs to, such as the orchestrator's.
    """
    log = events_of(settings or Settings.from_env())
    with _lock:
        if log.folder not in _installed:
            _installed[log.folder] = subscribe(_recorder(log, run_id or (lambda: None)))


def uninstall(settings: Settings | None = None) -> None:
    """Stop what `install` began."""
    with _lock:
        stop = _installed.pop(events_of(settings or Settings.from_env()).folder, None)
    if stop is not None:
        stop()


def _recorder(log: EventLog, run_id: Callable[[], str | None]) -> Callable[[DataEvent], None]:
    def record(event: DataEvent) -> None:
        run = event.run_id or run_id() or os.environ.get("TIDEMILL_RUN_ID") or _process_run
        log.append(from_event(event, run_id=run, at=time.time()))

    return record
