"""What a run did, while it goes on and at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from tidemill_sync.plan import Action
from tidemill_sync.transfer import Transferred

KEPT_FAILURES = 100


@dataclass(slots=True, kw_only=True)
class Counts:
    """Objects by what became of them; grows during a run."""

    source_objects: int = 0
    target_objects: int = 0
    skipped: int = 0
    copied: int = 0
    replaced: int = 0
    adopted: int = 0
    vanished: int = 0
    deleted: int = 0
    failed: int = 0
    bytes: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    """The first failed keys, each with its reason."""

    def add(self, done: Transferred) -> None:
        """Count a finished transfer."""
        setattr(self, done.outcome, getattr(self, done.outcome) + 1)
        self.bytes += done.bytes

    def fail(self, key: str, reason: str) -> None:
        """Count a failed one."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append((key, reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What a run did. Every copied object was counted in bytes and accepted whole by the target."""

    run_id: str
    source: str
    target: str
    source_objects: int
    target_objects: int
    """Objects the target had before the run."""
    skipped: int
    """Unchanged since an earlier run."""
    copied: int
    replaced: int
    adopted: int
    """Found equal on both sides by reading them."""
    vanished: int
    """Listed, but gone from the source before they were read."""
    deleted: int
    failed: int
    bytes: int
    seconds: float

    @property
    def changed(self) -> int:
        """Objects of the target that the run wrote or deleted."""
        return self.copied + self.replaced + self.deleted

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}

    def sentence(self) -> str:
        """Say it in one line, for people."""
        return (
            f"{self.copied} copied, {self.replaced} replaced, {self.adopted} found equal, "
            f"{self.skipped} unchanged, {self.deleted} deleted; {self.bytes} bytes in {self.seconds:.1f} s"
        )


class Progress(Protocol):
    """Watches a run; called from its main thread only."""

    def planned(self, action: Action) -> None:
        """A key was decided."""
        ...

    def moved(self, counts: Counts) -> None:
        """The counts changed."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Silence:
    """Watches nothing."""

    def planned(self, action: Action) -> None:
        """Ignore it."""

    def moved(self, counts: Counts) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Nothing to end."""
