"""OAuth 2.0 (RFC 6749): an access token by client credentials or by a refresh token, renewed before it ends."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote_plus, urlencode, urlsplit

import orjson
from pydantic import Field, field_validator, model_validator
from tidemill_core.config import SecretStr
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext
from tidemill_ingest_api.auth.basic import basic_header
from tidemill_ingest_api.errors import InvalidResponse, UpstreamRefused, UpstreamThrottled, UpstreamUnavailable
from tidemill_ingest_api.http.messages import Request, Response, check_header
from tidemill_ingest_api.http.urls import shown

log = get_logger(__name__)
_OK, _THROTTLED, _SERVER_ERROR = 200, 429, 500


class OAuth2Auth(AuthConfig):
    """Ask a token endpoint for an access token and send it as ``Authorization: Bearer TOKEN``.

    The token lives in memory only. It is renewed `early_s` before it ends, and when the API answers 401.
    """

    type: Literal["oauth2"]
    token_url: str
    """The token endpoint; https, except on an address of this machine."""
    client_id: str
    """Who asks."""
    client_secret: SecretStr
    """The client's secret; an empty one (a public client) is not sent."""
    refresh_token: SecretStr | None = None
    """Uses the grant ``refresh_token``; unset means ``client_credentials``."""
    refresh_token_file: Path | None = None
    """A file of yours, readable by its owner only, that keeps the refresh token where the server gives a new one each
    time; read before `refresh_token`, replaced whole."""
    scopes: tuple[str, ...] = ()
    """Rights asked for."""
    params: dict[str, str] = Field(default_factory=dict)
    """More parameters of the token request, such as ``audience`` or ``resource``."""
    client_auth: Literal["basic", "body"] = "basic"
    """Where the client's id and secret go: the header, or the body of the token request."""
    early_s: float = Field(default=60.0, ge=0)
    """Seconds before a token's end at which it is renewed; at most half of its life."""

    @field_validator("token_url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
            raise ValueError("must be https://..., because it carries the client's secret")
        if parts.username or parts.password:
            raise ValueError("credentials belong in `client_id` and `client_secret`")
        return value

    @model_validator(mode="after")
    def _one_grant(self) -> Self:
        reserved = {"grant_type", "client_id", "client_secret", "refresh_token", "scope"} & self.params.keys()
        if reserved:
            raise ValueError(f"params: {min(reserved)!r} has a field of its own")
        return self

    def urls(self) -> tuple[str, ...]:
        """The token endpoint."""
        return (self.token_url,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    text: str
    renew_at: float


class OAuth2(Auth):
    """Keeps one token for all threads of a client."""

    config_type = OAuth2Auth

    def __init__(self, config: OAuth2Auth, context: AuthContext) -> None:
        self._config, self._context = config, context
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._refresh = self._first_refresh_token()
        self._shown: set[str] = {config.client_secret.get_secret_value(), self._refresh or ""}

    @property
    def identity(self) -> str:
        """The client and its rights, which stay when tokens change."""
        return f"oauth2 {self._config.token_url} {self._config.client_id} {' '.join(self._config.scopes)}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The client's secret, and every token there was."""
        return tuple(secret for secret in self._shown if secret)

    def apply(self, request: Request) -> Request:
        """Add a token that is valid for a while yet."""
        # One thread asks; the others wait for its token, so that a rotated refresh token is used once.
        with self._lock:
            if self._token is None or self._context.clock() >= self._token.renew_at:
                self._token = self._ask()
            token = self._token
        return replace(request, headers={**request.headers, "authorization": f"Bearer {token.text}"})

    def renew(self, rejected: Request) -> bool:
        """Forget the token, unless another thread has renewed it already."""
        with self._lock:
            if self._token and rejected.headers.get("authorization") == f"Bearer {self._token.text}":
                self._token = None
        return True

    def _ask(self) -> _Token:
        config, secret = self._config, self._config.client_secret.get_secret_value()
        headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        form = {"grant_type": "client_credentials", **config.params}
        if self._refresh is not None:
            form |= {"grant_type": "refresh_token", "refresh_token": self._refresh}
        if config.scopes:
            form["scope"] = " ".join(config.scopes)
        if config.client_auth == "basic" and secret:
            # RFC 6749 2.3.1: id and secret are form-encoded before they are joined.
            headers["authorization"] = basic_header(quote_plus(config.client_id), quote_plus(secret))
        else:
            form |= {"client_id": config.client_id} | ({"client_secret": secret} if secret else {})
        sent = Request(url=config.token_url, headers=headers, method="POST", body=urlencode(form).encode())
        return self._read(self._context.send(sent))

    def _read(self, answer: Response) -> _Token:
        url = shown(self._config.token_url)
        if answer.status == _THROTTLED:
            raise UpstreamThrottled(url, answer.status, None)
        if answer.status >= _SERVER_ERROR:
            raise UpstreamUnavailable(url, f"no access token: HTTP {answer.status}")
        body = _object(answer.body)
        if answer.status != _OK:
            # `error` is a word of RFC 6749 5.2; the rest of the body may repeat what was sent.
            said = f"no access token: {_word(body.get('error'))}"
            raise UpstreamRefused(url, answer.status, said, hint="check `auth`")
        token, kind = body.get("access_token"), body.get("token_type", "bearer")
        if not isinstance(token, str) or not token:
            raise InvalidResponse(url, "the answer has no access_token", hint="check `auth.token_url`")
        if str(kind).lower() != "bearer":
            raise InvalidResponse(url, f"its tokens are of type {_word(kind)}, not bearer", hint="check `auth`")
        self._shown.add(token)
        try:
            check_header("authorization", token)
        except ValueError:
            raise InvalidResponse(url, "its access_token cannot go into a header", hint="check `auth`") from None
        self._rotate(body.get("refresh_token"))
        return _Token(text=token, renew_at=self._context.clock() + self._life_s(body.get("expires_in")))

    def _life_s(self, told: Any) -> float:
        """Seconds for which a token is used; without a word of the server, until it answers 401."""
        try:
            life_s = float(told)
        except (TypeError, ValueError):
            return float("inf")
        return max(0.0, life_s - min(self._config.early_s, life_s / 2))

    def _first_refresh_token(self) -> str | None:
        kept = self._config.refresh_token_file
        if kept is not None:
            with suppress(FileNotFoundError):
                return kept.read_text(encoding="utf-8").strip() or None
        return self._config.refresh_token.get_secret_value() if self._config.refresh_token else None

    def _rotate(self, told: Any) -> None:
        """Keep a new refresh token: the old one ends with its first use."""
        if self._refresh is None or not isinstance(told, str) or told in {"", self._refresh}:
            return
        self._refresh = told
        self._shown.add(told)
        path = self._config.refresh_token_file
        if path is None:
            log.warning("refresh_token_rotated", reason="the next run needs the new one; set auth.refresh_token_file")
            return
        draft = path.with_name(path.name + ".part")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(told, encoding="utf-8")
        draft.replace(path)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: Any) -> str:
    """Show a short plain word that the server chose; nothing that could be a secret or a line of its own."""
    text = str(value)
    return text if text.replace("_", "").isalnum() and len(text) <= 40 else "no reason given"  # noqa: PLR2004


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
