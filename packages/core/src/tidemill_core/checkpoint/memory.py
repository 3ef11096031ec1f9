"""Checkpoints in this process's memory: the double for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from tidemill_core.checkpoint._base import Checkpoint
from tidemill_core.checkpoint._values import check_name, decoded, encoded
from tidemill_core.errors import CheckpointConflict

_Saved = dict[tuple[str, str], tuple[str, int, datetime]]

_named: dict[str, _Saved] = {}


def open_memory(url: str) -> MemoryCheckpoints:
    """Open ``memory://`` alone, or ``memory://name`` shared by all who name it in this process."""
    name = url.partition("://")[2]
    return MemoryCheckpoints(_named.setdefault(name, {}) if name else {})


class MemoryCheckpoints:
    """A checkpoint store that ends with the process; see `CheckpointStore` for the contract."""

    _lock = Lock()

    def __init__(self, saved: _Saved | None = None) -> None:
        self._saved: _Saved = {} if saved is None else saved

    def load(self, scope: str, key: str) -> Checkpoint | None:
        """Read one value, or None."""
        check_name(scope, key)
        with self._lock:
            found = self._saved.get((scope, key))
        return _checkpoint(scope, key, found) if found else None

    def save(
        self, scope: str, key: str, value: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Checkpoint:
        """Write one value."""
        check_name(scope, key)
        text = encoded(value)
        with self._lock:
            before = self._saved.get((scope, key))
            version = before[1] if before else 0
            if expected_version not in {None, version}:
                raise CheckpointConflict(scope, key, expected_version or 0, version)
            self._saved[scope, key] = saved = (text, version + 1, datetime.now(UTC))
        return _checkpoint(scope, key, saved)

    def delete(self, scope: str, key: str) -> None:
        """Forget one value."""
        check_name(scope, key)
        with self._lock:
            self._saved.pop((scope, key), None)

    def scan(self, scope: str) -> Iterator[Checkpoint]:
        """Yield every value of a scope at one instant, ascending by key."""
        with self._lock:
            found = sorted((key, saved) for (of, key), saved in self._saved.items() if of == scope)
        return iter([_checkpoint(scope, key, saved) for key, saved in found])

    def close(self) -> None:
        """Nothing is open."""


def _checkpoint(scope: str, key: str, saved: tuple[str, int, datetime]) -> Checkpoint:
    text, version, saved_at = saved
    return Checkpoint(scope=scope, key=key, value=decoded(text), version=version, saved_at=saved_at)
