"""The contract of a way to authenticate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidemill_core.config import Config

from tidemill_ingest_api.http.messages import Request, Response


class AuthConfig(Config):
    """What every way's settings have: ``type: Literal["name"]``, and the URLs that it asks itself."""

    type: str

    def urls(self) -> tuple[str, ...]:
        """Give the URLs of its own that it sends requests to; addresses written there in digits are allowed."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthContext:
    """What a way may use of its client.

    Attributes:
        send: Sends one request with the timeouts, limits and address checks of the source; no redirects.
        clock: Seconds since 1970.
    """

    send: Callable[[Request], Response]
    clock: Callable[[], float] = time.time


class Auth(Protocol):
    """Adds credentials to requests; called from several threads, and only for the origin of `base_url`."""

    @property
    def identity(self) -> str:
        """Names whose credentials these are, the same as long as ETags stay valid; only its hash is kept."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that must not be shown; masked in errors."""
        return ()

    def apply(self, request: Request) -> Request:
        """Add the credentials.

        Raises:
            UpstreamError: They have to be asked for and cannot be had.
        """

    def clean(self, url: str) -> str:
        """Take the credentials out of a URL, where they are in it."""
        return url

    def renew(self, rejected: Request) -> bool:  # noqa: ARG002  # the contract
        """Drop the credentials of a request that was answered with 401; True when new ones can be had."""
        return False
