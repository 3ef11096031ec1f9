"""What a scraper sees of the syncs of this process."""

from __future__ import annotations

from tidemill_core.telemetry.metrics import counter, histogram

from tidemill_sync.result import Counts

OBJECTS = counter("tidemill_sync_objects_total", "Objects by what became of them.", ["outcome"])
BYTES = counter("tidemill_sync_bytes_total", "Bytes copied.")
RUNS = counter("tidemill_sync_runs_total", "Runs by their end.", ["state"])
SECONDS = histogram("tidemill_sync_run_seconds", "Seconds a run took.")
_OUTCOMES = ("copied", "replaced", "adopted", "skipped", "vanished", "deleted", "failed")


def observe(counts: Counts, state: str, seconds: float) -> None:
    """Count a finished run."""
    for outcome in _OUTCOMES:
        if count := getattr(counts, outcome):
            OBJECTS.labels(outcome=outcome).inc(count)
    BYTES.inc(counts.bytes)
    RUNS.labels(state=state).inc()
    SECONDS.observe(seconds)
