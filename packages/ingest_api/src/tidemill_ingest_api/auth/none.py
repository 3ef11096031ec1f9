"""No credentials."""

from __future__ import annotations

from typing import Literal

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext
from tidemill_ingest_api.http.messages import Request


class NoAuth(AuthConfig):
    """Send no credentials."""

    type: Literal["none"] = "none"


class NoCredentials(Auth):
    """Requests go as they are."""

    config_type = NoAuth

    def __init__(self, config: NoAuth, context: AuthContext) -> None:
        self.config, self.context = config, context

    @property
    def identity(self) -> str:
        """Nobody."""
        return ""

    def apply(self, request: Request) -> Request:
        """Add nothing."""
        return request
