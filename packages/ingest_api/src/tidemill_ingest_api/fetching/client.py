"""Ask an untrusted API for pages: paced, retried, pinned to known hosts, and never showing a secret."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from urllib.parse import urljoin, urlsplit

from tidemill_core.lifecycle import StopToken
from tidemill_core.retry import Retry
from tidemill_core.telemetry.redact import redact

from tidemill_ingest_api import config, metrics
from tidemill_ingest_api.auth import AuthContext, open_auth
from tidemill_ingest_api.errors import UntrustedUrl, UpstreamRefused, UpstreamThrottled, UpstreamUnavailable
from tidemill_ingest_api.fetching.addresses import address_rules
from tidemill_ingest_api.fetching.decode import decode_json
from tidemill_ingest_api.fetching.limits import is_number, ratelimit_reset_s, retry_after_s
from tidemill_ingest_api.fetching.transport import HttpxTransport
from tidemill_ingest_api.http.messages import Request, Response, Transport
from tidemill_ingest_api.http.urls import origin, shown

REDIRECTS = frozenset({301, 302, 303, 307, 308})
NO_CONTENT, NOT_MODIFIED, UNAUTHORIZED = 204, 304, 401
REDIRECTS_TO_GET = frozenset({301, 302, 303})
_WINDOW_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_SHOWN_BODY = 200
_AUTH_BYTES = 1024 * 1024


@dataclass(slots=True)
class Traffic:
    """What a client did, for reports."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    wait_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, requests: int = 0, retries: int = 0, bytes_: int = 0, wait_s: float = 0.0) -> None:
        """Count; safe from several threads."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.bytes += bytes_
            self.wait_s += wait_s


class Pacer:
    """Says how long to wait before the next request."""

    def __init__(
        self,
        rate: config.RateConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rate, self._clock, self._wall = rate, clock, wall
        count, _, window = (rate.limit or "0/s").partition("/")
        self._count, self._window_s = int(count), _WINDOW_S[window]
        self._sent: deque[float] = deque()
        self._blocked_until = 0.0
        self._lock = threading.Lock()

    def take(self) -> float:
        """Reserve one request; returns the seconds to wait before sending it."""
        with self._lock:
            now = self._clock()
            at = max(now, self._blocked_until)
            if self._count:
                while self._sent and self._sent[0] <= at - self._window_s:
                    self._sent.popleft()
                if len(self._sent) >= self._count:
                    at = self._sent[-self._count] + self._window_s
                self._sent.append(at)
            return at - now

    def observe(self, headers: Mapping[str, str]) -> float | None:
        """Read the API's own limit; returns the seconds until its window starts anew when none is left."""
        waits = [wait_s for wait_s in (self._own_reset_s(headers), ratelimit_reset_s(headers)) if wait_s]
        wait_s = max(waits, default=0.0)
        if wait_s <= 0:
            return None
        with self._lock:
            self._blocked_until = max(self._blocked_until, self._clock() + wait_s)
        return wait_s

    def blocked_s(self) -> float:
        """Seconds until the API's window starts anew; 0 while it has requests left."""
        with self._lock:
            return max(0.0, self._blocked_until - self._clock())

    def _own_reset_s(self, headers: Mapping[str, str]) -> float | None:
        """Read the headers that the configuration names."""
        left = headers.get((self._rate.remaining_header or "").lower(), "")
        reset = headers.get((self._rate.reset_header or "").lower(), "")
        if left.strip() != "0" or not is_number(reset):
            return None
        return float(reset) - (self._wall() if self._rate.reset_unit == "epoch" else 0.0)


class Client:
    """Fetches pages of one source.

    Args:
        source: Its configuration.
        base_url: Its base URL, looked up.
        transport: Sends requests; default httpx.
        stop: Ends waits early.
        sleep: Replaces waiting, in tests.
        wall: Seconds since 1970, for dates in headers.
    """

    def __init__(
        self,
        source: config.SourceConfig,
        base_url: str,
        *,
        transport: Transport | None = None,
        stop: StopToken | None = None,
        sleep: Callable[[float], object] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.source, self.base_url = source, base_url
        self.traffic = Traffic()
        self._transport = transport or HttpxTransport(source.http, address_rules(source, base_url))
        self._stop = stop or StopToken()
        self._sleep, self._wall = sleep, wall
        self._pacer = Pacer(source.http.rate, wall=wall)
        throttled = source.http.rate.throttled_text
        self._throttled = re.compile(throttled.encode()) if throttled else None
        self._origin = origin(base_url)
        self._allowed = frozenset(host.lower() for host in source.allowed_hosts)
        self._auth = open_auth(source.auth, AuthContext(send=self._send_for_auth, clock=wall))

    def get(
        self,
        url: str,
        *,
        stream: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Response:
        """Fetch one page: status 200, 204 or 304.

        Args:
            url: Where it is.
            stream: For metrics and errors.
            headers: More of them, names in lower case.
            method: GET, or POST for APIs that are asked by a body; it is sent again like a GET.
            body: What a POST sends.

        Raises:
            UpstreamUnavailable: Every attempt failed.
            UpstreamThrottled: The API kept asking us to wait.
            UpstreamRefused: A status that another try cannot change.
            UntrustedUrl: The URL or a redirect leaves the allowed hosts.
            PrivateAddress: Its host leads to an address that is not public and not allowed.
            ResponseTooLarge: The answer exceeds `http.max_response_bytes`.
            Stopped: The stop token was set while waiting.
        """

        def note(retry: Retry) -> None:
            self.traffic.add(retries=1, wait_s=retry.wait_s)
            metrics.RETRIES.labels(source=self.source.source, reason=type(retry.error).__name__).inc()
            metrics.WAIT_SECONDS.labels(source=self.source.source).inc(retry.wait_s)

        policy, request = self.source.http.retry, Request(url=url, headers=headers or {}, method=method, body=body)
        if self._sleep is not None:
            return policy.call(self._attempt, request, stream, on_retry=note, sleep=self._sleep)
        return policy.call(self._attempt, request, stream, on_retry=note, stop=self._stop)

    def close(self) -> None:
        """Release connections."""
        self._transport.close()

    def clean(self, url: str) -> str:
        """Take our own secret out of a URL the API gave back."""
        return self._auth.clean(url)

    @property
    def fingerprint(self) -> str:
        """Names the credentials without telling them, empty without any: ETags may differ by reader."""
        identity = self._auth.identity
        return sha256(identity.encode()).hexdigest()[:8] if identity else ""

    def _attempt(self, request: Request, stream: str) -> Response:
        blame = f"stream {stream!r}"
        for _ in range(self.source.http.max_redirects + 1):
            self._trust(request.url, blame)
            answer = self._send_authorized(request, stream)
            if answer.status not in REDIRECTS:
                return self._judge(answer)
            blame = f"a redirect of {shown(request.url)}"
            request = replace(request, url=urljoin(request.url, answer.headers.get("location", "")))
            if answer.status in REDIRECTS_TO_GET and request.method == "POST":
                raise UpstreamRefused(shown(request.url), answer.status, "a POST is not redirected as a GET")
        raise UpstreamRefused(shown(request.url), answer.status, "too many redirects")

    def _send_authorized(self, request: Request, stream: str) -> Response:
        """Send with credentials where they belong; a 401 is tried once more with new ones, where there are."""
        common = {"accept": "application/json", "user-agent": "tidemill-ingest"}
        plain = replace(request, headers={**common, **self.source.http.headers, **request.headers})
        if origin(request.url) != self._origin:
            return self._send(plain, stream)
        sent = self._auth.apply(plain)
        answer = self._send(sent, stream)
        if answer.status == UNAUTHORIZED and self._auth.renew(sent):
            answer = self._send(self._auth.apply(plain), stream)
        return answer

    def _send(self, request: Request, stream: str) -> Response:
        blocked_s, deadline_s = self._pacer.blocked_s(), self.source.http.retry.deadline_s
        if deadline_s is not None and blocked_s > deadline_s:
            # An API may say anything here, also a time in a hundred years: no run sleeps through that unseen.
            raise UpstreamThrottled(shown(request.url), None, round(blocked_s, 1))
        self._pause(self._pacer.take())
        self._stop.raise_if_set()
        began, status = time.perf_counter(), "error"
        try:
            answer = self._transport.send(request, max_bytes=self.source.http.max_response_bytes)
            status = str(answer.status)
        finally:
            labels = {"source": self.source.source, "stream": stream}
            metrics.REQUESTS.labels(**labels, status=status).inc()
            metrics.REQUEST_SECONDS.labels(**labels).observe(time.perf_counter() - began)
            self.traffic.add(requests=1)
        self.traffic.add(bytes_=len(answer.body))
        return replace(answer, url=self.clean(request.url))

    def _send_for_auth(self, request: Request) -> Response:
        """Send a request for credentials: not paced, and of no stream."""
        self._stop.raise_if_set()
        sent = replace(request, headers={"user-agent": "tidemill-ingest", **request.headers})
        answer = self._transport.send(sent, max_bytes=_AUTH_BYTES)
        metrics.REQUESTS.labels(source=self.source.source, stream="", status=str(answer.status)).inc()
        return answer

    def _judge(self, answer: Response) -> Response:
        reset_s = self._pacer.observe(answer.headers)
        asked_s = retry_after_s(answer.headers.get("retry-after"), self._wall())
        url, status = shown(answer.url), answer.status
        if status in {NOT_MODIFIED, NO_CONTENT}:
            return answer
        if status == 200:  # noqa: PLR2004  # the one status with a page in it
            if self._throttled and self._throttled.search(answer.body):
                raise UpstreamThrottled(url, status, asked_s or reset_s)
            return replace(answer, value=decode_json(answer.body, answer.headers, url))
        is_quota = status == 403 and (asked_s is not None or reset_s is not None)  # noqa: PLR2004  # GitHub's way
        if status == 429 or is_quota:  # noqa: PLR2004  # too many requests
            raise UpstreamThrottled(url, status, asked_s if asked_s is not None else reset_s)
        if status in self.source.http.retry_statuses:
            raise UpstreamUnavailable(url, f"HTTP {status}", asked_s)
        text = answer.body[:_SHOWN_BODY].decode(errors="replace").strip()
        raise UpstreamRefused(url, status, redact(self._masked(text)))

    def _masked(self, text: str) -> str:
        for secret in self._auth.secrets:
            text = text.replace(secret, "***") if secret else text
        return text

    def _trust(self, url: str, blame: str) -> None:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in {"http", "https"}:
            raise UntrustedUrl(shown(url), blame, f"whose scheme {parts.scheme!r} we do not speak")
        if parts.scheme == "http" and self._origin[0] == "https":
            raise UntrustedUrl(shown(url), blame, "which is not encrypted while base_url is")
        if origin(url)[1:] == self._origin[1:]:
            return
        if host not in self._allowed and f"{host}:{origin(url)[2]}" not in self._allowed:
            raise UntrustedUrl(shown(url), blame, f"whose host {host} is not allowed")

    def _pause(self, wait_s: float) -> None:
        if wait_s <= 0:
            return
        self.traffic.add(wait_s=wait_s)
        metrics.WAIT_SECONDS.labels(source=self.source.source).inc(wait_s)
        if self._sleep is not None:
            self._sleep(wait_s)
        else:
            self._stop.wait(wait_s)


__all__ = ["Client", "Pacer", "Traffic"]
