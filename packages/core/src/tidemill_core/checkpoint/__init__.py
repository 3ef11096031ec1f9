"""Durable progress by URL: ``memory://``, ``sqlite:///path``, ``postgresql://...``."""

from __future__ import annotations

from collections.abc import Callable

from tidemill_core.checkpoint._base import Checkpoint, CheckpointStore
from tidemill_core.checkpoint.errors import CheckpointUnavailable
from tidemill_core.errors import CheckpointConflict, CheckpointError, ConfigError
from tidemill_core.plugins import Registry

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "CheckpointConflict",
    "CheckpointError",
    "CheckpointStore",
    "CheckpointUnavailable",
    "open_checkpoints",
]

CHECKPOINTS: Registry[Callable[[str], CheckpointStore]] = Registry("tidemill.checkpoint", "checkpoint store")
"""Openers by URL scheme; an opener takes the whole URL."""


def open_checkpoints(url: str) -> CheckpointStore:
    """Open a checkpoint store; its tables are made when they are missing.

    Args:
        url: ``memory://`` (this object only) or ``memory://name`` (shared in the process),
            ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or ``postgresql://...``.

    Raises:
        PluginError: No installed checkpoint store knows the scheme.
        CheckpointUnavailable: The database is not reachable.

    Example:
        >>> checkpoints = open_checkpoints("memory://")
        >>> checkpoints.save("job", "cursor", {"page": 7}).version
        1
        >>> checkpoints.load("job", "cursor").value["page"]
        7
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise ConfigError(f"{url!r} is not a checkpoint URL: write sqlite:///path, postgresql://... or memory://")
    return CHECKPOINTS.get("postgresql" if scheme == "postgres" else scheme)(url)
