"""A small HTTP server for probes and scrapes: /livez, /readyz, /metrics and /status.

    with HealthServer(port=8080, checks={"postgres": check_postgres}) as health:
        ...

`/livez` answers as long as the process can (a failing check in `live` asks the
platform to restart it), `/readyz` runs every check, `/metrics` is Prometheus' text
format, `/status` is whatever the service tells about itself, as JSON.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tidemill_core.errors import ServiceError
from tidemill_core.telemetry import get_logger
from tidemill_core.telemetry.redact import redact

Check = Callable[[], str | None]
"""Returns None when all is well, else what is wrong."""

log = get_logger(__name__)


class HealthServer:
    """Serves a process's health on its own threads.

    Args:
        host: Address to listen on; loopback unless told.
        port: 0 takes a free one; see `port` after `start`.
        checks: What `/readyz` asks; a check that raises is a failing check.
        live: What `/livez` asks; keep it to "is the loop still turning".
        status: Gives the JSON value of `/status`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        checks: Mapping[str, Check] | None = None,
        *,
        live: Mapping[str, Check] | None = None,
        status: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.host, self._port = host, port
        self.checks, self.live = dict(checks or {}), dict(live or {})
        self.status = status
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._server.server_address[1] if self._server else self._port

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> Self:
        """Listen, and answer from a daemon thread.

        Raises:
            ServiceError: The address cannot be listened on.
        """
        try:
            self._server = ThreadingHTTPServer((self.host, self._port), _handler(self))
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {self.host}:{self._port} for health and metrics: {error.strerror or error}"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)
        self._thread.start()
        log.debug("health_server_started", url=self.url)
        return self

    def stop(self) -> None:
        """Stop listening; stopping twice is no error."""
        server, self._server = self._server, None
        if server is None:
            return
        self._port = server.server_address[1]
        server.shutdown()
        server.server_close()
        if self._thread:
            self._thread.join(5)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Answer a request path with (status, content type, body); needs no server."""
        if path == "/livez":
            return _checked(self.live)
        if path == "/readyz":
            return _checked(self.checks)
        if path == "/metrics":
            from tidemill_core.telemetry import metrics

            return HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.render()
        if path == "/status" and self.status:
            return _json(HTTPStatus.OK, self.status())
        known = ["/livez", "/readyz", "/metrics", *(["/status"] if self.status else [])]
        return _json(HTTPStatus.NOT_FOUND, {"error": f"no such page; try {', '.join(known)}"})


def _checked(checks: Mapping[str, Check]) -> tuple[HTTPStatus, str, bytes]:
    results = {name: _run(check) for name, check in checks.items()}
    is_well = not any(results.values())
    status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(status, {"ok": is_well, "checks": {name: reason or "ok" for name, reason in results.items()}})


def _run(check: Check) -> str | None:
    try:
        reason = check()
    except Exception as error:  # noqa: BLE001  # a check that raises is a failing check, whatever it raised
        reason = repr(error)
    return redact(reason) if reason else None


def _json(status: HTTPStatus, value: Any) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", json.dumps(value, default=str).encode() + b"\n"


def _handler(health: HealthServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "tidemill"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            try:
                status, kind, body = health.answer(self.path.partition("?")[0])
            except Exception as error:  # a fault in a status callable is an answer, not a crash
                log.exception("health_answer_failed", path=self.path)
                status, kind, body = _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": redact(repr(error))})
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # the standard library's spelling

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            log.debug("health_request", line=format % args)

    return Handler
