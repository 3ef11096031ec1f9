"""One HTTP endpoint of an object store: pooled connections, signed requests, answers mapped to our errors.

urllib3 is used directly because it sends a path as it is: clients built on a URL type
drop the segments ``.`` and ``..``, which are legal in keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from threading import Lock
from typing import cast
from urllib.parse import quote

import urllib3

from tidemill_core.errors import ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.lifecycle import stop_here
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage.errors import StoreRefused, StoreUnavailable

Headers = Mapping[str, str]
Query = Mapping[str, str]
_CONNECT_S, _READ_S = 10.0, 120.0
_CONNECTIONS = 64
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
        parts = urllib3.util.parse_url(base_url)
        self.host = parts.netloc or ""
        self.base_path = (parts.path or "").rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.store_url, self._sign = store_url, sign
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._lock = Lock()
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

    def open(self, request: Request) -> urllib3.BaseHTTPResponse:
        """Send a request and leave its body to be read; the caller releases the connection."""
        response = self._request(request, preload=False)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            body = response.read(decode_content=False)
            response.release_conn()
            raise self._failure(request, response.status, response.headers, body)
        return response

    def chunks(self, response: urllib3.BaseHTTPResponse, request: Request, chunk_bytes: int) -> Iterator[bytes]:
        """Read an open body in chunks, and give the connection back."""
        try:
            while chunk := response.read(chunk_bytes, decode_content=False):
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreUnavailable(self.store_url, request.doing, f"the connection broke ({_short(error)})") from error
        finally:
            response.close()
            response.release_conn()

    def _once(self, request: Request, also: frozenset[int]) -> Reply:
        response = self._request(request, preload=True)
        if response.status >= HTTPStatus.MULTIPLE_CHOICES and response.status not in also:
            raise self._failure(request, response.status, response.headers, response.data)
        return Reply(status=response.status, headers=response.headers, body=response.data)

    def _request(self, request: Request, *, preload: bool) -> urllib3.BaseHTTPResponse:
        query = request.encoded_query()
        target = f"{self.base_path}{request.path}" + (f"?{query}" if query else "")
        headers = dict(self._sign(request))
        stop_here()
        try:
            return self._connections().urlopen(
                request.method,
                target,
                body=cast("bytes | None", _body(request)),
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=preload,
                decode_content=False,
                assert_same_host=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            is_unclear = not isinstance(
                error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError
            )
            raise StoreUnavailable(
                self.store_url, request.doing, f"{self.origin} gave no answer ({_short(error)})", is_unclear=is_unclear
            ) from error

    def _connections(self) -> urllib3.HTTPConnectionPool:
        with self._lock:
            if self._pool is None:
                timeout = urllib3.Timeout(connect=_CONNECT_S, read=_READ_S)
                self._pool = _manager(self.origin, timeout).connection_from_url(self.origin)
            return self._pool

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
    return parsedate_to_datetime(text).astimezone(UTC) if text else datetime.now(UTC)


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
    """The body to send; urllib3 takes any buffer, whatever its annotation says."""
    return request.body if len(request.body) or request.method in {"PUT", "POST"} else None


def _is_worth_repeating(request: Request, error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) and (request.is_repeatable or not error.is_unclear)


def _manager(origin: str, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """Make a pool manager, through the environment's proxy if the store is reached by https."""
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get("https") if origin.startswith("https") else None
    host = origin.partition("://")[2].partition(":")[0]
    if proxy and not proxy_bypass(host):
        return urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS, timeout=timeout)
    return urllib3.PoolManager(maxsize=_CONNECTIONS, timeout=timeout)


def _retry_after(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return max(0.0, (http_date(text) - datetime.now(UTC)).total_seconds())


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
