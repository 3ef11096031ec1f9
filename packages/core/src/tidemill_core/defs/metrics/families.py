"""The metrics that the exporter offers, each with a bound on its series."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OTHER = "other"
"""Value of every label of the one series that takes what exceeds a metric's bound."""
RUN_BUCKETS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
WAIT_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class _Labelled(Protocol):
    def labels(self, *values: str) -> Self: ...

    def remove(self, *values: str) -> None: ...


F = TypeVar("F", bound=_Labelled)


@dataclass(slots=True)
class Bounded(Generic[F]):
    """A metric with at most `limit` series; later label values share the series `other`."""

    family: F
    labels: int
    limit: int
    seen: set[tuple[str, ...]] = field(default_factory=set)

    def at(self, *values: str) -> F:
        """Choose the series of these label values."""
        if values not in self.seen:
            if len(self.seen) >= self.limit:
                return self.family.labels(*(OTHER,) * self.labels)
            self.seen.add(values)
        return self.family.labels(*values)

    def keep(self, current: Iterable[tuple[str, ...]]) -> None:
        """Remove every series but those in `current`; for gauges of things that end."""
        gone = self.seen - set(current)
        for values in gone:
            self.family.remove(*values)
        self.seen -= gone


class Families:
    """Every metric, in a registry of its own.

    Args:
        max_series: Series per metric before the rest shares one.
    """

    def __init__(self, max_series: int = 1000) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, doc: str, *labels: str) -> Bounded[Counter]:
            return Bounded(Counter(f"dagster_{name}", doc, labels, registry=registry), len(labels), max_series)

        def gauge(name: str, doc: str, *labels: str) -> Bounded[Gauge]:
            return Bounded(Gauge(f"dagster_{name}", doc, labels, registry=registry), len(labels), max_series)

        def histogram(name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Bounded[Histogram]:
            family = Histogram(f"dagster_{name}", doc, labels, registry=registry, buckets=buckets)
            return Bounded(family, len(labels), max(1, max_series // len(buckets)))

        self.runs = counter("runs", "Runs that ended.", "job", "status")
        self.runs_active = gauge("runs_active", "Runs that have not ended.", "job", "status")
        self.run_seconds = histogram(
            "run_duration_seconds", "From start to end of a run.", RUN_BUCKETS, "job", "status"
        )
        self.run_retries = counter("run_retries", "Runs that ended and were a retry of another.", "job")
        self.queue_depth = Gauge("dagster_queue_depth", "Runs waiting in the queue.", registry=registry)
        self.queue_oldest = Gauge(
            "dagster_queue_oldest_seconds", "Age of the run that has waited longest, 0 if none.", registry=registry
        )
        self.queue_seconds = histogram("queue_wait_seconds", "From queued to launched.", WAIT_BUCKETS, "job")
        self.steps = counter("steps", "Steps that ended, of runs that ended.", "job", "step", "status")
        self.step_seconds = histogram("step_duration_seconds", "Of steps' last try.", STEP_BUCKETS, "job", "step")
        self.step_retries = counter("step_retries", "Tries of steps after their first.", "job", "step")
        self.pool_slots = gauge("pool_slots", "Limit of a pool.", "pool")
        self.pool_used = gauge("pool_slots_used", "Slots of a pool that are taken.", "pool")
        self.pool_pending = gauge("pool_steps_pending", "Steps that wait for a slot.", "pool")
        self.materializations = counter("materializations", "Materializations of an asset.", "asset")
        self.asset_age = gauge("asset_age_seconds", "Since the asset was last materialized.", "asset")
        self.checks = counter("check_results", "Evaluations of an asset check.", "asset", "check", "result")
        self.check_passed = gauge("check_passed", "1 if the last evaluation passed.", "asset", "check")
        self.ticks = counter("ticks", "Ticks of schedules and sensors that ended.", "kind", "name", "status")
        self.daemon_healthy = gauge("daemon_healthy", "1 if the daemon runs without errors.", "daemon")
        self.daemon_age = gauge("daemon_heartbeat_age_seconds", "Since the daemon's last heartbeat.", "daemon")
        self.caught_up = Gauge("dagster_exporter_caught_up", "1 if no known event is unread.", registry=registry)
        self.refresh_seconds = Gauge("dagster_exporter_refresh_seconds", "Time of the last refresh.", registry=registry)
        self.errors = counter("exporter_errors", "Parts of a refresh that failed.", "part")
