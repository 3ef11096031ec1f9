"""A token in the header ``Authorization``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import field_validator
from tidemill_core.config import SecretStr

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext
from tidemill_ingest_api.http.messages import Request, check_header


class BearerAuth(AuthConfig):
    """Send ``Authorization: Bearer TOKEN``."""

    type: Literal["bearer"]
    token: SecretStr
    """The token; write ``${GITHUB_TOKEN}``. An empty one sends no header."""

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr) -> SecretStr:
        check_header("authorization", value.get_secret_value())
        return value


class Bearer(Auth):
    """Adds the token."""

    config_type = BearerAuth

    def __init__(self, config: BearerAuth, context: AuthContext) -> None:
        self._token, self.context = config.token.get_secret_value(), context

    @property
    def identity(self) -> str:
        """The token: another one has other ETags."""
        return f"Bearer {self._token}{self._token}" if self._token else ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self._token,)

    def apply(self, request: Request) -> Request:
        """Add the header, where there is a token."""
        if not self._token:
            return request
        return replace(request, headers={**request.headers, "authorization": f"Bearer {self._token}"})
