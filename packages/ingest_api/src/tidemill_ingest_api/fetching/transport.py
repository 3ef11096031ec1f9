"""Send one request to an untrusted server and read at most so much, for at most so long.

httpx stands behind `messages.Transport`; no type of its appears outside this module.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tidemill_core.telemetry.redact import redact

from tidemill_ingest_api import config
from tidemill_ingest_api.errors import InvalidResponse, ResponseTooLarge, UntrustedUrl, UpstreamUnavailable
from tidemill_ingest_api.fetching.addresses import AddressRules
from tidemill_ingest_api.fetching.inflate import ENCODINGS, BrokenBody, inflate
from tidemill_ingest_api.http.messages import Request, Response
from tidemill_ingest_api.http.urls import shown

if TYPE_CHECKING:
    import httpcore
    import httpx


class HttpxTransport:
    """The real transport.

    Args:
        http: Timeouts and the number of connections.
        rules: Which addresses hosts may lead to. A request that goes through a proxy of the environment
            (``HTTPS_PROXY``) is not checked here: the proxy resolves the name.
    """

    def __init__(self, http: config.HttpConfig, rules: AddressRules) -> None:
        import httpx

        self._max_s = http.max_response_s
        self._deadline = _Deadline()
        limits = httpx.Limits(max_connections=http.concurrency, max_keepalive_connections=http.concurrency)
        guarded = _guarded_transport(rules, self._deadline, limits)
        self._direct = httpx.Client(transport=guarded, timeout=http.timeout_s, follow_redirects=False)
        self._proxied: httpx.Client | None = None
        if getproxies():
            self._proxied = httpx.Client(timeout=http.timeout_s, follow_redirects=False, limits=limits)

    def send(self, request: Request, *, max_bytes: int) -> Response:
        """Send a request and read at most `max_bytes`."""
        import httpx

        url = shown(request.url)
        self._deadline.set(time.monotonic() + self._max_s)
        client = self._proxied if self._proxied is not None and _has_proxy(request.url) else self._direct
        headers = {"accept-encoding": ", ".join(ENCODINGS), **request.headers}
        try:
            with client.stream(request.method, request.url, headers=headers, content=request.body) as answer:
                lower = {name.lower(): value for name, value in answer.headers.items()}
                body = self._read(answer.iter_raw(), lower, url, max_bytes)
                return Response(url=request.url, status=answer.status_code, headers=lower, body=body)
        except (httpx.TransportError, BrokenBody, OSError) as error:
            raise UpstreamUnavailable(url, redact(f"{type(error).__name__} {error}".strip())) from None
        except httpx.InvalidURL as error:
            raise UntrustedUrl(url, "the configuration", f"which is no URL ({error})") from None

    def close(self) -> None:
        """Close the connection pools."""
        self._direct.close()
        if self._proxied is not None:
            self._proxied.close()

    def _read(self, raw: Iterable[bytes], headers: Mapping[str, str], url: str, max_bytes: int) -> bytes:
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > max_bytes:
            raise ResponseTooLarge(url, max_bytes)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", *ENCODINGS}:
            raise InvalidResponse(url, f"its content-encoding {encoding!r} is none that was asked for")
        parts, size = [], 0
        for part in inflate(raw) if encoding in ENCODINGS else raw:
            size += len(part)
            if size > max_bytes:
                raise ResponseTooLarge(url, max_bytes)
            if self._deadline.left() <= 0:
                raise UpstreamUnavailable(url, "the answer came too slowly (http.max_response_s)")
            parts.append(part)
        return b"".join(parts)


class _Deadline:
    """When the answer that this thread waits for must be whole."""

    def __init__(self) -> None:
        self._local = threading.local()

    def set(self, at: float) -> None:
        self._local.at = at

    def left(self) -> float:
        """Seconds left; negative when it has passed."""
        return float(getattr(self._local, "at", float("inf"))) - time.monotonic()


def _has_proxy(url: str) -> bool:
    parts = urlsplit(url)
    proxies = getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.netloc.rpartition("@")[2])


def _guarded_transport(rules: AddressRules, deadline: _Deadline, limits: httpx.Limits) -> httpx.HTTPTransport:
    """Make httpx's transport connect to checked addresses, and give up at the deadline."""
    import httpcore
    import httpx

    class Stream(httpcore.NetworkStream):
        """Bytes of one connection; headers that trickle in end at the deadline as bodies do."""

        def __init__(self, inner: httpcore.NetworkStream) -> None:
            self._inner = inner
            self.write, self.close, self.get_extra_info = inner.write, inner.close, inner.get_extra_info  # type: ignore[method-assign]  # passed on as they are

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            left = deadline.left()
            if left <= 0:
                raise httpcore.ReadTimeout("the answer came too slowly (http.max_response_s)")
            return self._inner.read(max_bytes, left if timeout is None else min(timeout, left))

        def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
            return Stream(self._inner.start_tls(*args, **kwargs))

    class Backend(httpcore.SyncBackend):
        """Opens connections; the name stays in the request and in the TLS handshake."""

        def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
            connect: Callable[..., httpcore.NetworkStream] = super().connect_tcp
            failed: Exception = httpcore.ConnectError(f"{host} has no address")
            for address in rules.addresses(host, port):
                try:
                    return Stream(connect(address, port, *args, **kwargs))
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failed = error
            raise failed

    transport = httpx.HTTPTransport(limits=limits)
    transport.close()
    # httpx has no seam for where a name leads, httpcore below it has one: `network_backend`. Only this
    # attribute of httpx is private; `httpx<0.29` is pinned, and test_addresses fails if it moves.
    transport._pool = httpcore.ConnectionPool(  # noqa: SLF001
        ssl_context=httpx.create_ssl_context(),
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        keepalive_expiry=limits.keepalive_expiry,
        network_backend=Backend(),
    )
    return transport


__all__ = ["HttpxTransport"]
