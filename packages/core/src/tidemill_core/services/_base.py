"""What every server is: a name and version, how it is prepared, and how to see that it answers."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The system account a server runs as, where it must not be ours."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one server process is started and stopped."""

    command: tuple[str, ...]
    cwd: Path
    url: str
    """What a client connects to."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """`TIDEMILL_*` variables that point everything at this server."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables added to our own environment for the process."""
    account: Account | None = None
    """Run as this account; None means our own."""
    stop_signal: int = signal.SIGTERM
    """Signal that asks for a clean and fast end."""
    stop_s: float = 20.0
    """Seconds it may take to end before it is killed."""
    start_s: float = 120.0
    """Seconds it may take to answer."""


class Service(Protocol):
    """One kind of server; an instance holds no state but its options."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    @property
    def version(self) -> str:
        """The pinned (or found) version."""
        ...

    def fetch(self) -> Path:
        """Make the programs available and return their folder; costs nothing the second time."""
        ...

    def prepare(self, folder: Path, port: int) -> Launch:
        """Write configuration and data into `folder` where they are missing, and say how to start."""
        ...

    def is_ready(self, launch: Launch) -> bool:
        """Tell whether the started server answers."""
        ...
