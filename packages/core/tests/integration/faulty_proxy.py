"""An HTTP proxy before a real object store that answers wrongly, as told: for tests of what clients do then."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("busy", "broken", "no_answer", "lost_answer", "cut", "no_range", "slow_down")
"""`busy`: 503, not carried out. `broken`: 500, not carried out. `no_answer`: hangs up, not carried out.
`lost_answer`: carried out, then hangs up. `cut`: the body of the answer ends in its middle. `no_range`: the
whole object is sent, whatever part was asked for. `slow_down`: 429 with Retry-After, not carried out."""

_STATUSES = {"busy": 503, "broken": 500, "slow_down": 429}


@dataclass
class FaultyProxy:
    """What the proxy does: `plan` holds a fault, or None, for each of the next requests.

    Attributes:
        target: Host and port of the real server.
        url: Where clients connect.
        done: What was asked and what became of it.
        never: Faults of a plan that are left out.
    """

    target: str
    url: str = ""
    plan: list[str | None] = field(default_factory=list)
    done: list[tuple[str, str, str | None]] = field(default_factory=list)
    never: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, path: str) -> str | None:
        """Take the next fault of the plan."""
        with self.lock:
            fault = self.plan.pop(0) if self.plan else None
            fault = None if fault in self.never else fault
            self.done.append((method, path, fault))
            return fault


class _Handler(BaseHTTPRequestHandler):
    """Passes one request on, or not, as the proxy's plan says."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.next_fault(self.command, self.path)
        if fault in _STATUSES:
            self._refuse(_STATUSES[fault])
        elif fault == "no_answer":
            self.close_connection = True
        else:
            self._pass_on(body, fault)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _pass_on(self, body: bytes, fault: str | None) -> None:
        left_out = {"connection"} | ({"range", "x-ms-range"} if fault == "no_range" else set())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        upstream = http.client.HTTPConnection(self.proxy.target, timeout=60)
        try:
            upstream.request(self.command, self.path, body or None, headers)
            reply = upstream.getresponse()
            content = reply.read()
            if fault == "lost_answer":
                self.close_connection = True
            else:
                self._answer(reply, content, is_cut=fault == "cut" and len(content) > 1)
        finally:
            upstream.close()

    def _answer(self, reply: http.client.HTTPResponse, content: bytes, *, is_cut: bool) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        size = reply.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", size or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
        self.close_connection = self.close_connection or is_cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any  # noqa: N815 - names of the base class

    def log_message(self, *_args: object) -> None:
        return


@contextmanager
def faulty_proxy(target_url: str) -> Iterator[FaultyProxy]:
    """Serve on loopback, passing on to ``http://host:port``."""
    proxy = FaultyProxy(target_url.removeprefix("http://").partition("/")[0])
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
