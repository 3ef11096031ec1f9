"""Take secrets out of what is logged, shown or stored: by the name of a field, and by the look of a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:password|passwd|pwd|secret|token|authorization|cookie|credentials?"
    r"|(?:api|access|secret|private|account|sas)[_-]?key)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^\s:/@?#]*:)[^\s/]+(@)")
_PAIR = re.compile(
    r"(?i)\b((?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?token|secret[_-]?(?:access[_-]?)?key"
    r"|sig|signature|x-amz-signature|x-amz-security-token|accountkey)\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&,;'\"]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.=~-]{8,}")


def redact(text: str) -> str:
    """Mask passwords in URLs and DSNs, signatures in query strings, and authorization headers.

    >>> redact("cannot reach postgresql://me:hush@db:5432/x")
    'cannot reach postgresql://me:***@db:5432/x'
    """
    if "@" in text:
        text = _URL_PASSWORD.sub(rf"\1{MASK}\2", text)
    if "=" in text:
        text = _PAIR.sub(rf"\1{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def redact_event(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask an event's secret fields and every text in it, at any depth."""
    for name, value in event.items():
        event[name] = _value(name, value)
    return event


def is_secret_name(name: str) -> bool:
    """Tell whether a field of this name holds a secret (``password``, ``api_key``, ``x-auth-token``)."""
    return _SECRET_NAME.search(name) is not None


def _value(name: str, value: Any) -> Any:
    if value is not None and is_secret_name(name):
        return MASK
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _value(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value("", each) for each in value]
    if isinstance(value, BaseException):
        return redact(repr(value))
    return value
