"""One HTTP endpoint of an object store: pooled connections, signed requests, answers mapped to our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from ssl import SSLCertVerificationError
from threading import Lock
from typing import Protocol
from urllib.parse import quote

from tidemill_core.errors import ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.lifecycle import stop_here
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage._connections import BROKEN, Connections, Exchange, NotConnected
from tidemill_core.storage.errors import CredentialsRefused, StoreRefused, StoreUnavailable

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

    def having(self, headers: Headers) -> Request:
        """The same request with more headers."""
        return replace(self, headers={**self.headers, **headers})

    def encoded_query(self) -> str:
        """The query as it is sent and signed: sorted, every reserved character escaped."""
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(self.query.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where requests go; `path` precedes every request's, and `query` (encoded, perhaps secret) follows it."""

    origin: str
    host: str
    path: str = ""
    query: str = ""
    ca_bundle: str | None = None

    @classmethod
    def of(cls, base_url: str, *, query: str = "", ca_bundle: str | None = None) -> Place:
        """Cut up ``scheme://host:port/path``."""
        scheme, _, rest = base_url.partition("://")
        host, slash, path = rest.partition("/")
        return cls(
            origin=f"{scheme}://{host}",
            host=host,
            path=(slash + path).rstrip("/"),
            query=query,
            ca_bundle=ca_bundle,
        )


class Access(Protocol):
    """Who we are to a store, and where it is; answers may teach both."""

    def place(self) -> Place:
        """Where requests go now."""

    def signed(self, request: Request, place: Place) -> Headers:
        """Every header to send, credentials included."""

    def corrected(self, sent: Headers, reply: Reply) -> str | None:
        """Learn from a refusal; names what is other now, such as ``region``, or None if nothing is."""

    def advice(self, reply: Reply, code: str) -> tuple[bool, str]:
        """Whether a refusal is about who we are, and what to do."""


class Endpoint:
    """Sends requests to a store.

    Args:
        store_url: Names the store in errors.
        access: Where it is, and who we are.
    """

    def __init__(self, store_url: str, access: Access) -> None:
        self.store_url, self._access = store_url, access
        self._connections: dict[str, Connections] = {}
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
            CredentialsRefused: Who we are is not accepted, even after it was renewed.
            CredentialsMissing: Nothing says who we are.
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
        corrections: set[str] = set()
        while True:
            exchange, sent = self._request(request)
            if exchange.status < HTTPStatus.MULTIPLE_CHOICES:
                return exchange
            reply = Reply(status=exchange.status, headers=exchange.headers, body=self._body(exchange, request))
            if not self._is_corrected(sent, reply, corrections):
                raise self._failure(request, reply)

    def chunks(self, exchange: Exchange, request: Request, chunk_bytes: int) -> Iterator[bytes]:
        """Read an open body in chunks, and give the connection back."""
        try:
            yield from exchange.chunks(chunk_bytes)
        except BROKEN as error:
            raise StoreUnavailable(self.store_url, request.doing, f"the connection broke ({_short(error)})") from error

    def _once(self, request: Request, also: frozenset[int]) -> Reply:
        corrections: set[str] = set()
        while True:
            exchange, sent = self._request(request)
            reply = Reply(status=exchange.status, headers=exchange.headers, body=self._body(exchange, request))
            if reply.status < HTTPStatus.MULTIPLE_CHOICES or reply.status in also:
                return reply
            # A refusal was not carried out, so that even a conditional write may be sent again.
            if not self._is_corrected(sent, reply, corrections):
                raise self._failure(request, reply)

    def _is_corrected(self, sent: Headers, reply: Reply, corrections: set[str]) -> bool:
        """Tell whether asking again may succeed: each kind of correction is tried once a request."""
        kind = self._access.corrected(sent, reply)
        if kind is None or kind in corrections:
            return False
        corrections.add(kind)
        return True

    def _request(self, request: Request) -> tuple[Exchange, Headers]:
        place = self._access.place()
        headers = self._access.signed(request, place)
        query = request.encoded_query()
        if place.query:
            query = f"{query}&{place.query}" if query else place.query
        target = (f"{place.path}{request.path}" or "/") + (f"?{query}" if query else "")
        connections = self._connections.get(place.origin) or self._connected(place)
        stop_here()
        try:
            return connections.send(request.method, target, headers=headers, body=_body(request)), headers
        except BROKEN as error:
            raise self._no_answer(request, error) from error
        except ValueError as error:
            raise StoreRefused(self.store_url, request.doing, reason=str(error)) from error

    def _connected(self, place: Place) -> Connections:
        with self._lock:
            found = self._connections.get(place.origin) or Connections(place.origin, place.ca_bundle)
            self._connections[place.origin] = found
        return found

    def _body(self, exchange: Exchange, request: Request) -> bytes:
        try:
            return exchange.read_all()
        except BROKEN as error:
            raise self._no_answer(request, error) from error

    def _no_answer(self, request: Request, error: BaseException) -> StorageError:
        place = self._access.place()
        connections = self._connections.get(place.origin)
        by = f" by the proxy {connections.proxy}" if connections and connections.proxy else ""
        if isinstance(error.__cause__ or error, SSLCertVerificationError):
            reason = f"the certificate of {place.origin}{by} is not trusted ({_short(error)}); name its authority by"
            return StoreRefused(self.store_url, request.doing, reason=f"{reason} ca_bundle (TIDEMILL_CA_BUNDLE)")
        reason = f"{place.origin}{by} gave no answer ({_short(error)})"
        return StoreUnavailable(self.store_url, request.doing, reason, is_unclear=not isinstance(error, NotConnected))

    def _failure(self, request: Request, reply: Reply) -> StorageError:
        status = reply.status
        code, reason = told(reply.body)
        if status == HTTPStatus.NOT_FOUND and request.key is not None and code != "NoSuchBucket":
            return ObjectNotFound(self.store_url, request.key)
        if status in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_MODIFIED} and request.key is not None:
            return PreconditionFailed(self.store_url, request.key)
        if status in _THROTTLED or status in _OVERLOADED:
            return StoreUnavailable(
                self.store_url,
                request.doing,
                f"HTTP {status} {reason}".rstrip(),
                retry_after_s=_retry_after(reply.headers.get("Retry-After")),
                is_unclear=status in _OVERLOADED,
            )
        code = code or reply.headers.get("x-ms-error-code", "")
        is_identity, advice = self._access.advice(reply, code)
        kind = CredentialsRefused if is_identity else StoreRefused
        told_reason = reason or code
        return kind(self.store_url, request.doing, status=status, reason="; ".join(filter(None, (told_reason, advice))))


_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<(?:Message|message)>([^<]*)</")


def told(body: bytes) -> tuple[str, str]:
    """Read an error body (XML or JSON): its code, and one line that leaves out tokens a server echoes."""
    code, message = _CODE.search(body), _MESSAGE.search(body)
    if code:
        name = code[1].decode("utf-8", "replace")
        words = message[1].decode("utf-8", "replace") if message else ""
        return name, " ".join(f"{name} {words}".split())[:300]
    if body[:1] == b"{" and (found := _json_message(body)):
        return "", found
    return "", " ".join(body[:300].decode("utf-8", "replace").split())


def _json_message(body: bytes) -> str:
    import json

    try:
        error = json.loads(body).get("error")
    except ValueError:
        return ""
    words = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(words or "").split())[:300]


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
