"""Run the service in this process until a signal ends it."""

from __future__ import annotations

import socket

import click
import uvicorn

from tidemill_sync.api.rest import create_app
from tidemill_sync.config import ServeConfig
from tidemill_sync.service import SyncService


def serve(config: ServeConfig) -> None:
    """Listen, print the address, and serve until SIGINT or SIGTERM."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((config.host, config.port))
    listener.listen(128)
    app = create_app(SyncService(config))
    click.echo(f"http://{config.host}:{listener.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
