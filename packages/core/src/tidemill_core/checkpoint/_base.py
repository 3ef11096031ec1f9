"""The contract every checkpoint store keeps: small JSON values under (scope, key), versioned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved value. `version` starts at 1 and grows by one at every save."""

    scope: str
    key: str
    value: Mapping[str, Any]
    version: int
    saved_at: datetime


class CheckpointStore(Protocol):
    """Durable progress. `save` returns only when the value would survive a crash of this process."""

    def load(self, scope: str, key: str) -> Checkpoint | None:
        """Read one value, or None."""

    def save(
        self, scope: str, key: str, value: Mapping[str, Any], *, expected_version: int | None = None
    ) -> Checkpoint:
        """Write one value; with `expected_version` (0 = must not exist) only if nobody saved since.

        Raises:
            CheckpointConflict: The stored version is not `expected_version`.
        """

    def delete(self, scope: str, key: str) -> None:
        """Forget one value; a missing one is no error."""

    def scan(self, scope: str) -> Iterator[Checkpoint]:
        """Yield every value of a scope, ascending by key."""

    def close(self) -> None:
        """Release files and connections."""
