"""The exporter: keeps the metrics of one instance up to date, a bounded amount of work at a time."""

import threading
import time
from collections.abc import Callable
from typing import Self

import dagster as dg
from prometheus_client import generate_latest

from tidemill_core.defs.metrics import snapshot
from tidemill_core.defs.metrics.events import EventFollower
from tidemill_core.defs.metrics.families import Families
from tidemill_core.telemetry import get_logger

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DAY_S = 86_400.0
TICKS_S = 600.0
"""Ticks of this many seconds before the start are counted too; they are many."""
NOW_S, SLOW_S = 4.0, 14.0
"""Seconds for which a look at the queue and pools, and at daemons and ticks, is good enough."""

log = get_logger(__name__)


class MetricsExporter:
    """Metrics of one Dagster instance.

    `start` follows the instance on a thread of its own, so that a scrape only writes what
    is known. Without it every scrape refreshes first, for at most `scrape_budget_s`.

    Args:
        instance: What is measured; only read.
        history_s: Events of this many seconds before the start are counted too (ticks: at most 600).
        max_series: Series per metric before the rest shares the one named ``other``.
        interval_s: Seconds between two refreshes of the thread.
        scrape_budget_s: Seconds a scrape may spend on reading events.
        settle_s: Events younger than this are left for the next refresh.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        *,
        history_s: float = DAY_S,
        max_series: int = 1000,
        interval_s: float = 5.0,
        scrape_budget_s: float = 0.05,
        settle_s: float = 1.0,
    ) -> None:
        self.instance, self.families = instance, Families(max_series)
        self.interval_s, self.scrape_budget_s = interval_s, scrape_budget_s
        since = time.time() - history_s
        self._events = EventFollower(instance, self.families, since=since, settle_s=settle_s)
        self._ticks = snapshot.TickFollower(instance, self.families, since=max(since, time.time() - TICKS_S))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._knows_ages = False
        self._done: dict[str, float] = {}

    def start(self) -> Self:
        """Follow the instance on a daemon thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="dagster-metrics", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the thread; stopping twice is no error."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None

    def scrape(self) -> bytes:
        """Write the metrics in Prometheus' text format."""
        if self._thread is None and self._lock.acquire(blocking=False):
            try:
                self._refresh(self.scrape_budget_s, forced=False)
            finally:
                self._lock.release()
        snapshot.ages(self.families, dict(self._events.materialized))
        return generate_latest(self.families.registry)

    def refresh(self, budget_s: float) -> bool:
        """Read what is new, for about `budget_s` seconds; True if everything was read."""
        with self._lock:
            return self._refresh(budget_s, forced=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                caught_up = self._refresh(0.25, forced=False)
            # Between turns of a long catch-up others (a scrape, the databases) get their share.
            self._stop.wait(self.interval_s if caught_up else 0.05)

    def _refresh(self, budget_s: float, *, forced: bool) -> bool:
        began = time.monotonic()
        caught_up = False

        def follow() -> None:
            nonlocal caught_up
            caught_up = self._events.follow(time.monotonic() + budget_s)

        parts: dict[str, tuple[float, Callable[[], None]]] = {
            "queue": (NOW_S, lambda: snapshot.queue(self.instance, self.families)),
            "pools": (NOW_S, lambda: snapshot.pools(self.instance, self.families)),
            "daemons": (SLOW_S, lambda: snapshot.daemons(self.instance, self.families)),
            "ticks": (SLOW_S, self._ticks.follow),
            "assets": (0.0, self._learn_ages),
            "events": (0.0, follow),
        }
        for name, (every_s, work) in parts.items():
            if forced or began - self._done.get(name, -every_s) >= every_s:
                self._done[name] = began
                self._part(name, work)
        self.families.caught_up.set(float(caught_up))
        self.families.refresh_seconds.set(time.monotonic() - began)
        return caught_up

    def _learn_ages(self) -> None:
        if not self._knows_ages:
            for name, moment in snapshot.last_materialized(self.instance).items():
                self._events.materialized.setdefault(name, moment)
            self._knows_ages = True

    def _part(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # a locked or absent database must not end the others; it is counted
            self.families.errors.at(name).inc()
            log.warning("metrics_refresh_failed", part=name, error=repr(error))
