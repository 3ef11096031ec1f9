"""`tidemill metrics`: Prometheus metrics of a Dagster instance."""

from __future__ import annotations

import click

from tidemill_core.cli_output import Bounded


@click.group()
def metrics() -> None:
    """Serve Prometheus metrics of a Dagster instance."""


@metrics.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9091, show_default=True, type=Bounded(0, 65_535), help="Port; 0 takes a free one.")
def serve(host: str, port: int) -> None:
    """Serve /metrics of the instance in DAGSTER_HOME (default: the Tidemill home's) until interrupted."""
    from tidemill_core.defs.metrics import serve as serve_metrics
    from tidemill_core.lifecycle import stop_on_signals

    with stop_on_signals() as stop:
        serve_metrics(host, port, stop, announce=lambda url: click.echo(f"{url}/metrics", err=True))
