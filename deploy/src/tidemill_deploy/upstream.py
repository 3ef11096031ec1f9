"""A small upstream HTTP server: the weather as a paged JSON API, as the world serves them.

``GET /v1/weather?page=1&per_page=500`` answers a JSON array with a ``Link`` header
(RFC 8288), an ``ETag`` for every page (RFC 9110) and, for every 20th request, 429
with ``Retry-After``. Rows are ordered by origin and time.
"""

from __future__ import annotations

import hashlib
import json
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from tidemill_deploy.source import MISSING, rows

THROTTLE_EVERY = 20
"""Each time this many requests have come, one is answered 429."""
RETRY_AFTER_S = 1
MAX_PER_PAGE = 1_000
_INTEGERS = frozenset({"year", "month", "day", "hour", "wind_dir"})
_TEXTS = frozenset({"origin", "time_hour"})


def record(row: dict[str, str]) -> dict[str, object]:
    """Type one CSV row of the weather as its API record."""

    def value(name: str, text: str) -> object:
        if text in (MISSING, ""):
            return None
        if name in _TEXTS:
            return text
        return int(float(text)) if name in _INTEGERS else float(text)

    return {name: value(name, text) for name, text in row.items()}


@cache
def weather_records() -> tuple[dict[str, object], ...]:
    """All weather records, by origin and time."""
    found = [record(row) for row in rows("weather")]
    return tuple(sorted(found, key=lambda each: (str(each["origin"]), str(each["time_hour"]))))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Upstream
    routes: ClassVar[frozenset[str]] = frozenset({"/v1/weather"})

    def do_GET(self) -> None:
        """Answer a page, 304, 400, 404 or 429."""
        url = urlsplit(self.path)
        if url.path not in self.routes:
            return self._answer(404, {"error": f"no such path {url.path}; try /v1/weather"})
        if next(self.server.requests) % THROTTLE_EVERY == 0:
            return self._answer(429, {"error": "slow down"}, {"Retry-After": str(RETRY_AFTER_S)})
        query = parse_qs(url.query)
        try:
            page = int(query.get("page", ["1"])[0])
            per_page = min(int(query.get("per_page", ["100"])[0]), MAX_PER_PAGE)
            if page < 1 or per_page < 1:
                raise ValueError(page)
        except ValueError:
            return self._answer(400, {"error": "page and per_page are positive integers"})
        return self._page(page, per_page)

    def _page(self, page: int, per_page: int) -> None:
        records = self.server.records
        body = json.dumps(records[(page - 1) * per_page : page * per_page], separators=(",", ":")).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "X-Total-Count": str(len(records))}
        last = max(1, -(-len(records) // per_page))
        base = f"{self.server.base_url}/v1/weather?per_page={per_page}&page="
        links = [f'<{base}{last}>; rel="last"']
        if page < last:
            links.append(f'<{base}{page + 1}>; rel="next"')
        headers["Link"] = ", ".join(links)
        if self.headers.get("If-None-Match") == etag:
            return self._answer(304, None, headers)
        return self._send(200, body, headers)

    def _answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"" if value is None else json.dumps(value).encode(), headers or {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:  # noqa: PLR2004 - not modified: no body, no length
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet; the client logs its requests."""


class Upstream(ThreadingHTTPServer):
    """The server, listening on loopback from construction; use as a context manager."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0, records: tuple[dict[str, object], ...] | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.records = weather_records() if records is None else records
        self.requests = count(1)
        self._thread = threading.Thread(target=self.serve_forever, name="upstream", daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop answering."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def __exit__(self, *_: object) -> None:
        """Stop answering at the end of a ``with`` block."""
        self.close()
