"""Prometheus metrics by name: declared anywhere, registered once, prometheus_client loaded by the first use.

    ROWS = counter("tidemill_loader_rows_total", "Rows written.", ("table",))
    ROWS.labels(table="raw.planes").inc(n)

A label's values must come from a bounded set (tables, topics, states), never from data
(keys, offsets, user names): each combination is kept for ever. A metric that passes
`MAX_SERIES` combinations counts the rest under ``other``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tidemill_core.errors import PermanentError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["CONTENT_TYPE", "MAX_SERIES", "Metric", "counter", "gauge", "histogram", "registry", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_SERIES = 1_000
OTHER = "other"

_lock = threading.RLock()
_declared: dict[str, Metric] = {}


class Metric:
    """A counter, gauge or histogram; without labels it is used directly, with labels through `labels`."""

    def __init__(
        self, kind: str, name: str, doc: str, labels: Sequence[str], buckets: Sequence[float] | None = None
    ) -> None:
        self.kind, self.name, self.doc = kind, name, doc
        self.label_names, self.buckets = tuple(labels), tuple(buckets) if buckets else None
        self._series: set[tuple[str, ...]] = set()
        self._metric: Any = None

    def labels(self, **values: object) -> Any:
        """Choose one series; values outside the first `MAX_SERIES` combinations share ``other``."""
        key = tuple(str(values[name]) for name in self.label_names)
        with _lock:
            if key not in self._series and len(self._series) >= MAX_SERIES:
                key = (OTHER,) * len(key)
            self._series.add(key)
        return self.built().labels(*key)

    def inc(self, amount: float = 1) -> None:
        """Add to a counter or gauge."""
        self.built().inc(amount)

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.built().set(value)

    def observe(self, value: float) -> None:
        """Add one observation to a histogram."""
        self.built().observe(value)

    def built(self) -> Any:
        """The prometheus_client object, registered on first use."""
        if self._metric is None:
            with _lock:
                if self._metric is None:
                    self._metric = self._build()
        return self._metric

    def _build(self) -> Any:
        import prometheus_client as prometheus

        if self.kind == "histogram":
            buckets = self.buckets or prometheus.Histogram.DEFAULT_BUCKETS
            return prometheus.Histogram(self.name, self.doc, self.label_names, registry=registry(), buckets=buckets)
        kind = prometheus.Counter if self.kind == "counter" else prometheus.Gauge
        return kind(self.name, self.doc, self.label_names, registry=registry())


def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Metric:
    """Declare a number that only grows; its name ends in ``_total``.

    Raises:
        PermanentError: The name is taken by a metric of another kind or with other labels.
    """
    return _declare(Metric("counter", name, doc, labels))


def gauge(name: str, doc: str, labels: Sequence[str] = ()) -> Metric:
    """Declare a number that rises and falls.

    Raises:
        PermanentError: The name is taken by a metric of another kind or with other labels.
    """
    return _declare(Metric("gauge", name, doc, labels))


def histogram(name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] | None = None) -> Metric:
    """Declare a distribution, such as of seconds or bytes; `buckets` are upper bounds, ascending.

    Raises:
        PermanentError: The name is taken by a metric of another kind or with other labels.
    """
    return _declare(Metric("histogram", name, doc, labels, buckets))


def registry() -> CollectorRegistry:
    """The registry of this process's metrics: prometheus_client's own."""
    from prometheus_client import REGISTRY

    return REGISTRY


def render() -> bytes:
    """Write every declared metric in Prometheus' text format."""
    from prometheus_client import generate_latest

    for metric in list(_declared.values()):
        metric.built()
    return generate_latest(registry())


def _declare(metric: Metric) -> Metric:
    with _lock:
        known = _declared.setdefault(metric.name, metric)
    if (known.kind, known.label_names) != (metric.kind, metric.label_names):
        raise PermanentError(
            f"metric {metric.name!r} is already a {known.kind} with labels {known.label_names}; choose another name"
        )
    return known
