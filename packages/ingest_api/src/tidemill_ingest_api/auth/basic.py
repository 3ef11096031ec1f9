"""A user and a password in the header ``Authorization`` (RFC 7617)."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Literal

from tidemill_core.config import SecretStr

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext
from tidemill_ingest_api.http.messages import Request


class BasicAuth(AuthConfig):
    """Send a user and a password."""

    type: Literal["basic"]
    user: str
    """User name."""
    password: SecretStr
    """Password."""


class Basic(Auth):
    """Adds user and password."""

    config_type = BasicAuth

    def __init__(self, config: BasicAuth, context: AuthContext) -> None:
        self._password, self.context = config.password.get_secret_value(), context
        self._header = basic_header(config.user, self._password)

    @property
    def identity(self) -> str:
        """User and password."""
        return self._header + self._password

    @property
    def secrets(self) -> tuple[str, ...]:
        """The password, and what it is sent as."""
        return (self._password, self._header.removeprefix("Basic "))

    def apply(self, request: Request) -> Request:
        """Add the header."""
        return replace(request, headers={**request.headers, "authorization": self._header})


def basic_header(user: str, password: str) -> str:
    """Write the header's value."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
