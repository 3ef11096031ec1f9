"""Kept-open HTTP/1.1 connections to one origin.

http.client connects (TLS, proxies); heads of requests and replies are written and read here,
because its reading of headers as those of an e-mail is half the cost of a small request.
A path is sent as it is: clients built on a URL type drop the segments ``.`` and ``..``, which
are legal in keys. What was measured: docs/adr/0006-an-http-client-of-two-hundred-lines.md.
"""

from __future__ import annotations

import http.client
import select
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from tidemill_core.storage._net import proxy_for, tls_context

CONNECT_S, READ_S = 10.0, 120.0
_KEPT_IDLE = 64
_JOINED_BYTES = 64 << 10
"""Smaller bodies are sent in one packet with their head."""
_BUFFER_BYTES = 32 << 10
_LINE_BYTES, _MOST_HEADERS = 64 << 10, 200
_EMPTY = (b"\r\n", b"\n", b"")
_BODYLESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

BROKEN = (OSError, http.client.HTTPException)
"""What a connection raises when it breaks."""


class NotConnected(OSError):
    """No connection could be made, so nothing was sent."""


class ReplyHeaders(dict[str, str]):
    """Headers of a reply, found whatever the case of their names."""

    def __getitem__(self, name: str) -> str:
        """Give a header, or raise KeyError."""
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        """Give a header or the default."""
        return super().get(name.lower(), default)


class Exchange:
    """One request whose reply is being read; its connection goes back when the body has ended."""

    def __init__(self, pool: Connections, connection: Connection, method: str) -> None:
        self._pool, self._connection = pool, connection
        self._source = connection.source()
        self.status, version, self.headers = _read_head(self._source)
        self._is_kept = _is_kept(version, self.headers)
        self._left = _body_bytes(method, self.status, self.headers)
        self._is_chunked = self._left is None and "chunked" in self.headers.get("transfer-encoding", "").lower()
        if self._is_chunked:
            self._left = _chunk_bytes(self._source)

    def read_all(self) -> bytes:
        """Read the whole body, and give the connection back.

        Raises:
            IncompleteRead: The body ended before the length that its header said.
        """
        if not self._is_chunked and self._left is not None:
            body = self._taken(self._left)
            self._end()
            return body
        return b"".join(self.chunks(1 << 20))

    def chunks(self, chunk_bytes: int) -> Iterator[bytes]:
        """Read the body in chunks, and give the connection back; a body left unread ends the connection.

        Raises:
            IncompleteRead: The body ended before the length that its header said.
        """
        is_read = False
        try:
            while self._left is None or self._left > 0:
                chunk = self._taken(chunk_bytes if self._left is None else min(chunk_bytes, self._left))
                if not chunk:
                    break
                yield chunk
                if self._is_chunked and not self._left:
                    _expect_line_end(self._source)
                    self._left = _chunk_bytes(self._source)
            is_read = True
        finally:
            if is_read:
                self._end()
            else:
                self.close()

    def close(self) -> None:
        """End the connection: what is left of the body is not wanted."""
        self._connection.close()

    def _taken(self, count: int) -> bytes:
        """Read `count` bytes of the body; fewer only where its length is not known."""
        try:
            piece = self._source.read(count)
        except BaseException:  # undone whatever it was, and raised again
            self.close()
            raise
        if self._left is not None:
            self._left -= len(piece)
            if len(piece) < count:
                self.close()
                raise http.client.IncompleteRead(piece, self._left)
        return piece

    def _end(self) -> None:
        if self._is_chunked and self._left == 0:
            while _line(self._source):
                continue  # trailers
        if self._is_kept and self._left is not None:
            self._pool.keep(self._connection)
        else:
            self.close()


class Connections:
    """Connections to one origin, opened as they are needed and kept for the next request.

    Args:
        origin: ``scheme://host:port``, reached by the environment's proxy if it names one.
        ca_bundle: File or folder of the authorities to trust; None means the system's.

    Raises:
        ConfigError: The CA bundle cannot be read, or the proxy has no address.
    """

    def __init__(self, origin: str, ca_bundle: str | None = None) -> None:
        parts = urlsplit(origin)
        self._host = parts.hostname or ""
        self._context = tls_context(ca_bundle) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._context else 80)
        self.proxy = proxy_for(origin)
        # A proxy reads requests that are not encrypted: it wants them with the whole URL, and its password in each.
        self._forwarded = self.proxy.headers if self.proxy and self._context is None else None
        self._origin, self._named = origin, parts.netloc
        # A list's append and pop are atomic: threads share it without a lock.
        self._idle: list[Connection] = []

    def send(
        self, method: str, target: str, *, headers: Mapping[str, str], body: bytes | memoryview | None
    ) -> Exchange:
        """Send a request and wait for the head of its reply.

        Raises:
            NotConnected: No connection could be made.
            OSError: The connection broke, or the other side was silent for two minutes.
            HTTPException: The reply is not HTTP.
        """
        if self._forwarded is not None:
            target, headers = self._origin + target, {"Host": self._named, **_without_host(headers), **self._forwarded}
        connection = self._connected()
        try:
            connection.ask(method, target, headers, body)
            return Exchange(self, connection, method)
        except BaseException:  # undone whatever it was, and raised again
            connection.close()
            raise

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose reply has been read to its end."""
        if len(self._idle) < _KEPT_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def _connected(self) -> Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if connection.is_open():
                return connection
            connection.close()
        connection = self._new()
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NotConnected(str(error) or type(error).__name__) from error
        connection.sock.settimeout(READ_S)
        return connection

    def _new(self) -> Connection:
        host, port = (self.proxy.host, self.proxy.port) if self.proxy else (self._host, self._port)
        if self._context is None:
            return Connection(host, port, timeout=CONNECT_S)
        connection = TlsConnection(host, port, timeout=CONNECT_S, context=self._context)
        if self.proxy:
            connection.set_tunnel(self._host, self._port, dict(self.proxy.headers))
        return connection


class Connection(http.client.HTTPConnection):
    """An open connection: a request is written whole, and its reply read from `source`."""

    _reading: BinaryIO | None = None

    def source(self) -> BinaryIO:
        """Where replies are read from."""
        if self._reading is None:
            self._reading = cast("BinaryIO", self.sock.makefile("rb", _BUFFER_BYTES))
        return self._reading

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | memoryview | None) -> None:
        """Send one request.

        Raises:
            ValueError: A header cannot be sent: it holds a line break, or is not Latin-1.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if "host" not in headers and "Host" not in headers:
            lines.append(f"Host: {self._named()}")
        if "Accept-Encoding" not in headers:
            lines.append("Accept-Encoding: identity")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""])
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
            raise ValueError(f"a header of {method} {target} holds a line break")
        data = head.encode("latin-1")
        if body is None or len(body) > _JOINED_BYTES:
            self.sock.sendall(data)
            if body is not None:
                self.sock.sendall(body)
        else:
            self.sock.sendall(data + body)

    def is_open(self) -> bool:
        """Tell whether an idle connection may be used: one that can be read has been ended by the other side."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it, with what reads from it."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        super().close()

    def _named(self) -> str:
        host = self._tunnel_host or self.host  # type: ignore[attr-defined]  # set by set_tunnel
        port = self._tunnel_port if self._tunnel_host else self.port  # type: ignore[attr-defined]
        name = f"[{host}]" if ":" in host else host
        return name if port == self.default_port else f"{name}:{port}"


class TlsConnection(Connection, http.client.HTTPSConnection):
    """The same over TLS."""


def _without_host(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "host"}


def _read_head(source: BinaryIO) -> tuple[int, bytes, ReplyHeaders]:
    """Read status, version and headers; replies that only say "go on" are passed over (RFC 9112)."""
    while True:
        first = source.readline(_LINE_BYTES)
        if not first:
            raise http.client.RemoteDisconnected("the connection was closed without a reply")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise http.client.BadStatusLine(repr(first[:80]))
        headers = ReplyHeaders()
        for line in _lines(source):
            name, _, value = line.partition(":")
            dict.__setitem__(headers, name.lower(), value.strip())
        status = int(rest[:3])
        if status >= HTTPStatus.OK:
            return status, version, headers


def _lines(source: BinaryIO) -> list[str]:
    """Read the lines of a head up to the empty one."""
    found: list[bytes] = []
    while (line := source.readline(_LINE_BYTES)) not in _EMPTY:
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        found.append(line)
        if len(found) > _MOST_HEADERS:
            raise http.client.HTTPException("a reply has too many headers")
    if not line:
        raise http.client.IncompleteRead(b"".join(found))
    return b"".join(found).decode("latin-1").split("\n")[:-1]


def _line(source: BinaryIO) -> bytes:
    """Read one line, without its end."""
    line = source.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise http.client.IncompleteRead(line)
    return line.rstrip(b"\r\n")


def _is_kept(version: bytes, headers: ReplyHeaders) -> bool:
    said = headers.get("connection", "").lower()
    return "keep-alive" in said if version == b"HTTP/1.0" else "close" not in said


def _body_bytes(method: str, status: int, headers: ReplyHeaders) -> int | None:
    """How long the body is; None if only its end tells."""
    if method == "HEAD" or status in _BODYLESS:
        return 0
    if "transfer-encoding" in headers or "content-length" not in headers:
        return None
    length = headers["content-length"]
    if not length.isdigit():
        raise http.client.HTTPException(f"a reply has the length {length[:40]!r}")
    return int(length)


def _chunk_bytes(source: BinaryIO) -> int:
    """Read the size of the next chunk; 0 is the last."""
    text = _line(source).partition(b";")[0].strip()
    try:
        return int(text, 16)
    except ValueError as error:
        raise http.client.HTTPException(f"a chunk has the size {text[:40]!r}") from error


def _expect_line_end(source: BinaryIO) -> None:
    if _line(source):
        raise http.client.HTTPException("a chunk is longer than it said")
