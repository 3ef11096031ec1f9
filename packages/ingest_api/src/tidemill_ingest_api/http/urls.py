"""URLs: shown without secrets, compared by origin, their query changed."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tidemill_core.telemetry.redact import redact


def shown(url: str) -> str:
    """Write a URL for people: without user info, query values that look like secrets masked."""
    parts = urlsplit(url)
    return redact(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


def without_params(url: str, names: set[str | None]) -> str:
    """Drop query parameters."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in names]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def set_param(url: str, name: str, value: str) -> str:
    """Set one query parameter."""
    parts = urlsplit(without_params(url, {name}))
    return urlunsplit(parts._replace(query="&".join(filter(None, [parts.query, urlencode({name: value})]))))


def origin(url: str) -> tuple[str, str, int]:
    """Take scheme, host and port; port -1 where it is none."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, (parts.hostname or "").lower(), port or (443 if parts.scheme == "https" else 80)


def with_params(url: str, params: Mapping[str, str]) -> str:
    """Set query parameters, keeping the others and their order."""
    if not params:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in params]
    return urlunsplit(parts._replace(query=urlencode([*kept, *params.items()])))
