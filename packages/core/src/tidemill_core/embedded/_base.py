"""The value that every embedded server is handed out as."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServer:
    """A server that runs for this machine's processes.

    Attributes:
        url: What a client connects to: a PostgreSQL URL, or Kafka bootstrap servers.
        pid: Its process.
        started: Whether this process started it.
        identity: Changes whenever its data is not what it was before: for the mock broker
            at every start, for PostgreSQL never while its folder is kept.
    """

    url: str
    pid: int
    started: bool
    identity: str

    @property
    def bootstrap(self) -> str:
        """The same as `url`, by the name Kafka clients use."""
        return self.url
