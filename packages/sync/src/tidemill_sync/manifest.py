"""What earlier runs copied: a note per key, and a line per run; in SQLite, or PostgreSQL when workers share it.

One run of a job holds its lease; a killed process loses it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from tidemill_core.errors import ConfigError

from tidemill_sync.plan import Entry

PAGE_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run as it is kept: `state` is running, done, failed or stopped; `result` is its counts as JSON."""

    run_id: str
    job: str
    source: str
    target: str
    state: str
    started_at: float
    ended_at: float | None
    result: dict[str, Any]


class Manifest(Protocol):
    """Notes of one job, durable; a save returns when it is committed."""

    def lease(self, job: str) -> AbstractContextManager[bool]:
        """Hold the job while inside; gives False if another process holds it."""
        ...

    def entries(self, job: str) -> Iterator[Entry]:
        """Every note of a job, ascending by UTF-8 key, a page at a time: saves may go on meanwhile."""
        ...

    def entry(self, job: str, key: str) -> Entry | None:
        """The note of one key."""
        ...

    def save(self, job: str, entries: Iterable[Entry], forget: Iterable[str] = ()) -> None:
        """Write notes, and drop some, in one transaction."""
        ...

    def record(self, run: RunRecord) -> None:
        """Write or overwrite the line of a run."""
        ...

    def runs(self, limit: int = 20) -> list[RunRecord]:
        """The latest runs, newest first."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def open_manifest(url: str) -> Manifest:
    """Open ``sqlite:///path`` or ``postgresql://...``; tables are made.

    Raises:
        ConfigError: The URL is of another kind.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from tidemill_sync.manifest_sqlite import SqliteManifest

        path = url.removeprefix("sqlite:///")
        return SqliteManifest(Path(path))
    if scheme in {"postgresql", "postgres"}:
        from tidemill_sync.manifest_postgres import PostgresManifest

        return PostgresManifest(url)
    raise ConfigError("the manifest must be sqlite:///path or postgresql://...")


def job_id(source: str, target: str) -> str:
    """Name the pair of places: runs between the same two share their notes."""
    return sha256(f"{source.rstrip('/')}\n{target.rstrip('/')}".encode()).hexdigest()[:24]
