"""A key in a header or in the query."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import model_validator
from tidemill_core.config import SecretStr

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext
from tidemill_ingest_api.http.messages import Request, check_header
from tidemill_ingest_api.http.urls import set_param, without_params


class ApiKeyAuth(AuthConfig):
    """Send a key in a header or in the query."""

    type: Literal["api_key"]
    key: SecretStr
    """The key."""
    name: str = "X-API-Key"
    """Header or query parameter that carries it."""
    place: Literal["header", "query"] = "header"
    """Where it goes; a header is safer, URLs end up in logs."""

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        if self.place == "header":
            check_header(self.name, self.key.get_secret_value())
        return self


class ApiKey(Auth):
    """Adds the key."""

    config_type = ApiKeyAuth

    def __init__(self, config: ApiKeyAuth, context: AuthContext) -> None:
        self._config, self._key, self.context = config, config.key.get_secret_value(), context

    @property
    def identity(self) -> str:
        """The key: another one has other ETags."""
        return self._key if self._config.place == "query" else self._key + self._key

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key."""
        return (self._key,)

    def apply(self, request: Request) -> Request:
        """Add the header or the parameter."""
        if self._config.place == "query":
            return replace(request, url=set_param(request.url, self._config.name, self._key))
        return replace(request, headers={**request.headers, self._config.name.lower(): self._key})

    def clean(self, url: str) -> str:
        """Take the key out of a URL."""
        return without_params(url, {self._config.name}) if self._config.place == "query" else url
