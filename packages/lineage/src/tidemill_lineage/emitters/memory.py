"""Keep runs in a list: for tests and notebooks."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill_lineage.emitters._base import Traits
from tidemill_lineage.model import Run


class MemoryEmitter:
    """Remembers every run it was given, in order."""

    name = "memory"
    identity = None
    traits = Traits(local=True)

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.closed = False

    def emit(self, runs: Sequence[Run]) -> None:
        """Remember runs."""
        self.runs.extend(runs)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
