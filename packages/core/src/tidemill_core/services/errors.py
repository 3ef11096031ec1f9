"""What can go wrong with a server we fetch and start.

ServiceError             (core) a server we need is not there, or did not start
├── ServiceMissing       (Permanent) a tool or package it needs is not installed
├── ServiceFetchFailed   (Transient) its package could not be downloaded or built
└── ServiceStartFailed   (Transient) it ended, or did not answer in time
"""

from __future__ import annotations

from pathlib import Path

from tidemill_core.errors import ConfigError, PermanentError, ServiceError, TransientError


class ServiceMissing(ServiceError, PermanentError):
    """Something the server needs is not on this machine."""

    def __init__(self, name: str, needs: str, remedy: str) -> None:
        self.name, self.needs = name, needs
        super().__init__(f"{name} needs {needs}, which is not here; {remedy}")


class ServiceFetchFailed(ServiceError, TransientError):
    """The package of a server could not be downloaded or built."""

    def __init__(self, name: str, command: str, output: str) -> None:
        self.name, self.command = name, command
        super().__init__(f"{name} could not be fetched: `{command}` failed; its last lines:\n{output}")


class UnknownService(ServiceError, ConfigError):
    """There is no server of that name."""

    def __init__(self, name: str, hint: str) -> None:
        self.name = name
        super().__init__(f"unknown service {name!r}{hint}")


class ServiceStartFailed(ServiceError, TransientError):
    """The server ended early, or did not answer in time."""

    def __init__(self, name: str, why: str, log: Path) -> None:
        self.name, self.log = name, log
        super().__init__(f"{name} did not start: {why}; see {log}{_tail(log)}")


def _tail(log: Path, lines: int = 8) -> str:
    """Quote the end of a log, or nothing when there is none."""
    if not log.is_file():
        return ""
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return "".join(f"\n    {line}" for line in text)
