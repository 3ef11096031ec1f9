"""What checkpoint stores raise, beside `CheckpointConflict` of the kernel.

CheckpointError
└── CheckpointUnavailable   (Transient) the database is locked or not reachable
"""

from __future__ import annotations

from tidemill_core.errors import CheckpointError, TransientError


class CheckpointUnavailable(CheckpointError, TransientError):
    """The database behind the checkpoints is locked or not reachable; try again."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        super().__init__(f"checkpoints in {where} are not reachable: {reason.strip()}; try again")
