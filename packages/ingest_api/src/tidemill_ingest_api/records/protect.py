"""Drop or hash personal values of a record, before anything of it is stored, served, shown or logged."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tidemill_ingest_api.config import ProtectConfig

Change = Callable[[Any], Any]
_GONE = object()
EVERY = "*"


class Protector:
    """Applies a stream's rules; knows which of their paths no record had."""

    def __init__(self, config: ProtectConfig) -> None:
        key = config.key.get_secret_value().encode() if config.key else b""
        self._met: set[str] = set()
        self._paths = (*config.drop, *config.hash)
        self._rules: list[tuple[str, list[str], Change]] = [
            *((path, path.split("."), _dropped) for path in config.drop),
            *((path, path.split("."), lambda value: hashed(value, key)) for path in config.hash),
        ]

    def apply(self, record: Mapping[str, Any]) -> Any:
        """Copy a record with its rules applied; what no rule touches is not copied."""
        found: Any = record
        for path, steps, change in self._rules:
            changed = _changed(found, steps, change)
            if changed is not found:
                self._met.add(path)
                found = changed
        return found

    def unmet(self) -> tuple[str, ...]:
        """List the paths that no record had so far: they may be misspelled and protect nothing."""
        return tuple(path for path in self._paths if path not in self._met)


def rules_fingerprint(config: ProtectConfig) -> str:
    """Name rules and key without telling the key: rows that were made by others are made anew."""
    key = config.key.get_secret_value().encode() if config.key else b""
    return str(hashed([config.drop, config.hash], key))


def hashed(value: Any, key: bytes) -> Any:
    """Hash a value with HMAC-SHA-256 to 64 hex digits; equal values have equal hashes, null stays null.

    >>> hashed("ada@example.org", b"a key of sixteen")[:12], hashed(None, b"k")
    ('c2c3aa795a78', None)
    """
    if value is None:
        return None
    text = value.encode() if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(key, text, "sha256").hex()


def _dropped(_value: Any) -> Any:
    return _GONE


def _changed(value: Any, steps: list[str], change: Change) -> Any:
    """Follow a path and change what is at its end; the same object where the path ends early."""
    if not steps:
        return change(value)
    if isinstance(value, list):
        items = [_changed(each, steps, change) for each in value]
        is_same = all(new is old for new, old in zip(items, value, strict=True))
        return value if is_same else [each for each in items if each is not _GONE]
    if not isinstance(value, dict):
        return value
    head, *rest = steps
    names = list(value) if head == EVERY else [head] if head in value else []
    changes = {name: _changed(value[name], rest, change) for name in names}
    if all(new is value[name] for name, new in changes.items()):
        return value
    return {name: each for name, each in {**value, **changes}.items() if each is not _GONE}


__all__ = ["Protector", "hashed", "rules_fingerprint"]
