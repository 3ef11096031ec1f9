"""Offer the metrics over HTTP: a server of its own, or a WSGI or ASGI app to mount in another."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import dagster as dg

from tidemill_core.defs.metrics.exporter import CONTENT_TYPE, MetricsExporter
from tidemill_core.errors import ServiceError
from tidemill_core.lifecycle import StopToken


def wsgi_app(exporter: MetricsExporter) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Make a WSGI app that answers every path with the metrics."""

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = exporter.scrape()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))])
        return [body]

    return app


def asgi_app(exporter: MetricsExporter) -> Callable[..., Awaitable[None]]:
    """Make an ASGI app that answers every path with the metrics; mount it in Starlette or FastAPI."""

    async def app(scope: dict[str, Any], _receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        import asyncio

        if scope["type"] != "http":
            return
        body = await asyncio.to_thread(exporter.scrape)
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def serve(host: str, port: int, stop: StopToken, *, announce: Callable[[str], None] = print) -> None:
    """Serve ``/metrics`` and ``/livez`` of the instance in DAGSTER_HOME, or the Tidemill home's, until `stop`.

    Raises:
        ServiceError: The address cannot be listened on.
    """
    with _instance() as instance:
        exporter = MetricsExporter(instance).start()
        try:
            server = ThreadingHTTPServer((host, port), _handler(exporter))
        except OSError as error:
            raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.1,), name="metrics-http", daemon=True)
        thread.start()
        announce(f"http://{host}:{server.server_address[1]}")
        try:
            while not stop.wait(3600):
                continue
        finally:
            server.shutdown()
            server.server_close()
            exporter.stop()


def _instance() -> dg.DagsterInstance:
    import os

    from tidemill_core.defs.home import prepare_home
    from tidemill_core.settings import Settings

    if not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(prepare_home(Settings.from_env()))
    return dg.DagsterInstance.get()


def _handler(exporter: MetricsExporter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE, exporter.scrape())
            elif path == "/livez":
                self._answer(HTTPStatus.OK, "text/plain", b"ok\n")
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"try /metrics or /livez\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's word
            """Say nothing: a line per scrape helps nobody."""

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
