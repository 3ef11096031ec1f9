"""One HTTP endpoint of an object store: signed requests, answers mapped to our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from tidemill_core.errors import ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.lifecycle import stop_here
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage._connections import BROKEN, Connections, Exchange, NotConnected
from tidemill_core.storage.errors import StoreRefused, StoreUnavailable

Headers = Mapping[str, str]
Query = Mapping[str, str]
_THROTTLED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_OVERLOADED = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked; `path` is already percent-encoded, and `key` and `doing` word the errors."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    body: bytes | memoryview = b""
    doing: str
    key: str | None = None
    is_repeatable: bool = True
    """Repeating it after a lost answer does no harm."""

    def encoded_query(self) -> str:
        """The query as it is sent and signed: sorted, every reserved character escaped."""
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(self.query.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Sign = Callable[[Request], Headers]
"""Gives every header to send with a request, credentials included."""


class Endpoint:
    """Sends requests to one endpoint.

    Args:
        base_url: ``scheme://host:port/path``; the path precedes every request's.
        store_url: Names the store in errors.
        sign: Adds credentials; sees the request with its full path.
    """

    def __init__(self, base_url: str, store_url: str, sign: Sign) -> None:
        parts = urlsplit(base_url)
        self.host = parts.netloc
        self.base_path = parts.path.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.store_url, self._sign = store_url, sign
        self._connections = Connections(self.origin)
        self._retry = RetryPolicy(attempts=4, delay_s=0.3, max_delay_s=5)

    def send(self, request: Request, *, also: frozenset[int] = frozenset()) -> Reply:
        """Send a request, and again a few times if the store is busy.

        Args:
            request: What to ask.
            also: Statuses beside 2xx that are an answer, not an error.

        Raises:
            ObjectNotFound: 404.
            PreconditionFailed: 412.
            StoreUnavailable: Throttled, overloaded, or no answer, several times.
            StoreRefused: Any other status.
        """
        try:
            return self._once(request, also)
        except StoreUnavailable as error:
            if not _is_worth_repeating(request, error):
                raise
        return self._retry.call(self._once, request, also, on=lambda error: _is_worth_repeating(request, error))

    def open(self, request: Request) -> Exchange:
        """Send a request and leave its body to be read by `chunks`."""
        exchange = self._request(request)
        if exchange.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._failure(request, exchange.status, exchange.headers, self._body(exchange, request))
        return exchange

    def chunks(self, exchange: Exchange, request: Request, chunk_bytes: int) -> Iterator[bytes]:
        """Read an open body in chunks, and give the connection back."""
        try:
            yield from exchange.chunks(chunk_bytes)
        except BROKEN as error:
            raise StoreUnavailable(self.store_url, request.doing, f"the connection broke ({_short(error)})") from error

    def _once(self, request: Request, also: frozenset[int]) -> Reply:
        exchange = self._request(request)
        body = self._body(exchange, request)
        if exchange.status >= HTTPStatus.MULTIPLE_CHOICES and exchange.status not in also:
            raise self._failure(request, exchange.status, exchange.headers, body)
        return Reply(status=exchange.status, headers=exchange.headers, body=body)

    def _request(self, request: Request) -> Exchange:
        query = request.encoded_query()
        target = f"{self.base_path}{request.path}" + (f"?{query}" if query else "")
        headers = self._sign(request)
        stop_here()
        try:
            return self._connections.send(request.method, target, headers=headers, body=_body(request))
        except BROKEN as error:
            raise self._no_answer(request, error) from error
        except ValueError as error:
            raise StoreRefused(self.store_url, request.doing, reason=str(error)) from error

    def _body(self, exchange: Exchange, request: Request) -> bytes:
        try:
            return exchange.read_all()
        except BROKEN as error:
            raise self._no_answer(request, error) from error

    def _no_answer(self, request: Request, error: BaseException) -> StoreUnavailable:
        is_unclear = not isinstance(error, NotConnected)
        return StoreUnavailable(
            self.store_url, request.doing, f"{self.origin} gave no answer ({_short(error)})", is_unclear=is_unclear
        )

    def _failure(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        if status == HTTPStatus.NOT_FOUND and request.key is not None and b"NoSuchBucket" not in body:
            return ObjectNotFound(self.store_url, request.key)
        if status in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_MODIFIED} and request.key is not None:
            return PreconditionFailed(self.store_url, request.key)
        reason = body[:300].decode("utf-8", "replace").replace("\n", " ")
        if status in _THROTTLED or status in _OVERLOADED:
            return StoreUnavailable(
                self.store_url,
                request.doing,
                f"HTTP {status} {reason}".rstrip(),
                retry_after_s=_retry_after(headers.get("Retry-After")),
                is_unclear=status in _OVERLOADED,
            )
        return StoreRefused(self.store_url, request.doing, status=status, reason=reason)


def http_date(text: str | None) -> datetime:
    """Read an HTTP date; now if there is none."""
    return _date(text) if text else datetime.now(UTC)


@lru_cache(maxsize=64)  # every reply of one second has the same
def _date(text: str) -> datetime:
    return parsedate_to_datetime(text).astimezone(UTC)


def byte_range(start: int, end: int | None) -> Headers:
    """The Range header of bytes [start, end), or none for the whole object."""
    if not start and end is None:
        return {}
    return {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


def sliced(reply: Reply, start: int, end: int | None) -> bytes:
    """Bytes [start, end) of a reply that may hold just them, the whole object, or nothing (416)."""
    if reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return b""
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        return reply.body
    return reply.body[start:end]


def _body(request: Request) -> bytes | memoryview | None:
    return request.body if len(request.body) or request.method in {"PUT", "POST"} else None


def _is_worth_repeating(request: Request, error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) and (request.is_repeatable or not error.is_unclear)


def _retry_after(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return max(0.0, (http_date(text) - datetime.now(UTC)).total_seconds())


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
