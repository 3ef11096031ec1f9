"""A real HTTP server on loopback that pages through records in every way we know, and fails on request.

    with FakeApi([{"id": 1}, {"id": 2}]) as api:
        api.fail(Answer(status=429, headers={"Retry-After": "0"}))
        ...  # GET {api.base_url}/link

Routes: ``/link`` (Link header), ``/page``, ``/offset``, ``/cursor``, ``/next`` (URL in the
body), ``/all`` (one page). Every page has an ETag made of its body.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_HOLD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A scripted answer; `cut` sends only half of the body that it announced."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that came in; header names are lower case."""

    path: str
    headers: Mapping[str, str]


class FakeApi:
    """The server; a context manager.

    Args:
        records: What it serves; may be changed between requests.
        per_page: Records on a page.
        has_etags: Whether pages carry ETags and 304 is answered.
        has_total: Whether ``/page`` and ``/offset`` tell the total.
    """

    def __init__(
        self, records: list[dict[str, Any]], *, per_page: int = 2, has_etags: bool = True, has_total: bool = False
    ) -> None:
        self.records, self.per_page, self.has_etags, self.has_total = records, per_page, has_etags, has_total
        self.seen: list[Seen] = []
        self._script: deque[Answer] = deque()
        self._held: tuple[int, threading.Event, threading.Event] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, *answers: Answer) -> None:
        """Answer the next requests so, one each."""
        self._script.extend(answers)

    def hold(self, page: int) -> tuple[threading.Event, threading.Event]:
        """Hold every request for a page back.

        Returns:
            An event that is set when such a request came, and one to set to let it go on.
        """
        self._held = (page, threading.Event(), threading.Event())
        return self._held[1], self._held[2]

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Choose the answer to a request."""
        self.seen.append(Seen(path=path, headers=headers))
        if self._script:
            return self._script.popleft()
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        start = self._start(url.path, query)
        if start is None:
            return Answer(status=404, body=b'{"error":"no such path"}')
        self._wait(start // self.per_page + 1)
        size = len(self.records) if url.path == "/all" else self.per_page
        return self._page(url.path, start, size, headers)

    def _start(self, route: str, query: Mapping[str, str]) -> int | None:
        match route:
            case "/all":
                return 0
            case "/link" | "/page" | "/next":
                return (int(query.get("page", "1")) - 1) * self.per_page
            case "/offset":
                return int(query.get("offset", "0"))
            case "/cursor":
                return int(query.get("cursor", "0"))
            case _:
                return None

    def _page(self, route: str, start: int, size: int, asked: Mapping[str, str]) -> Answer:
        chosen, following = self.records[start : start + size], start + size
        is_last = following >= len(self.records)
        page = following // self.per_page + 1
        headers: dict[str, str] = {"Content-Type": "application/json"}
        body: Any = {"data": chosen}
        if route in {"/link", "/all"}:
            body = chosen
        if route == "/link" and not is_last:
            last = -(-len(self.records) // self.per_page)
            headers["Link"] = f'</link?page={page}>; rel="next", </link?page={last}>; rel="last"'
        elif route == "/next":
            body["next"] = None if is_last else f"{self.base_url}/next?page={page}"
        elif route == "/cursor":
            body["next"] = None if is_last else str(following)
        elif self.has_total and isinstance(body, dict):
            body |= {"total": len(self.records), "pages": -(-len(self.records) // self.per_page)}
        encoded = json.dumps(body).encode()
        if self.has_etags:
            headers["ETag"] = f'"{hashlib.sha256(encoded).hexdigest()[:16]}"'
            if asked.get("if-none-match") == headers["ETag"]:
                return Answer(status=304, headers=headers, body=b"")
        return Answer(headers=headers, body=encoded)

    def _wait(self, page: int) -> None:
        if self._held and self._held[0] == page:
            self._held[1].set()
            self._held[2].wait(_HOLD_S)


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer as the API says."""
            answer = api.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 304:  # noqa: PLR2004  # not modified has no body
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.cut:
                self.wfile.write(answer.body[: len(answer.body) // 2])
                self.close_connection = True
            elif answer.status != 304:  # noqa: PLR2004  # as above
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Stay quiet."""

    return Handler
