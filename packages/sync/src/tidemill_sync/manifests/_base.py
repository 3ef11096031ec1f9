"""The contract of a manifest: what earlier runs copied, a note per key and a line per run.

One run of a job holds its lease; a killed process loses it at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from tidemill_sync.plan import Entry

PAGE_ROWS = 5_000
"""Notes read at once."""


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

    def pieces(self, job: str, key: str) -> list[tuple[int, str]]:
        """What is kept about an object that is being written by parts: texts by number, ascending."""
        ...

    def begun(self, job: str) -> list[tuple[str, str]]:
        """Every key that has pieces, with the text of piece 0."""
        ...

    def save_piece(self, job: str, key: str, number: int, text: str) -> None:
        """Write or overwrite a piece."""
        ...

    def drop_pieces(self, job: str, key: str) -> None:
        """Drop all pieces of a key."""
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


def job_id(source: str, target: str) -> str:
    """Name the pair of places: runs between the same two share their notes."""
    return sha256(f"{source.rstrip('/')}\n{target.rstrip('/')}".encode()).hexdigest()[:24]


def run_of_row(row: Sequence[Any]) -> RunRecord:
    """Read a run from its columns, in the order of `RunRecord`; the last is JSON text."""
    run_id, job, source, target, state, started_at, ended_at, result = row
    return RunRecord(
        run_id=run_id,
        job=job,
        source=source,
        target=target,
        state=state,
        started_at=started_at,
        ended_at=ended_at,
        result=json.loads(result),
    )
