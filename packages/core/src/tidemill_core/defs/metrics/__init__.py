"""Prometheus metrics of a Dagster instance: what runs, waits, fails and grows stale.

Events are read once, from cursors; what cannot be read from events is asked by a few
indexed queries. A scrape costs the same on a history of any length.
"""

from tidemill_core.defs.metrics.exporter import MetricsExporter
from tidemill_core.defs.metrics.web import asgi_app, serve, wsgi_app

__all__ = ["MetricsExporter", "asgi_app", "serve", "wsgi_app"]
