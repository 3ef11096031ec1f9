"""Runs on disk, one JSON line each, one file per run id: what a killed process leaves behind is still whole.

A line is appended with one write, so several processes can share a file, and a reader skips the
line that a kill cut short.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tidemill_lineage.document import dump_run, parse_run
from tidemill_lineage.errors import GraphError
from tidemill_lineage.model import Run

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class EventLog:
    """A folder of ``<run id>.jsonl`` files; an emitter too.

    Args:
        folder: Made when the first run is appended.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters."""
        return "events"

    def emit(self, runs: Sequence[Run]) -> None:
        """Append runs to the files of their ids."""
        for run in runs:
            self.append(run)

    def append(self, run: Run) -> None:
        """Append one run; on return the operating system has it, a kill of this process loses nothing."""
        line = b"\n" + dump_run(run) + b"\n"  # the leading newline ends a line that a kill cut short
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            handle = os.open(self.path_of(run.id), flags, 0o644)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path_of(run.id), flags, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def close(self) -> None:
        """Nothing is held open."""

    def path_of(self, run_id: str) -> Path:
        """Name the file of a run."""
        return self.folder / f"{_UNSAFE.sub('_', run_id) or 'none'}.jsonl"

    def run_ids(self) -> list[str]:
        """List the runs that have a file, oldest change first."""
        return [path.stem for path in self._paths()]

    def read(self, run_id: str | None = None) -> Iterator[Run]:
        """Yield the runs of one file, or of all; lines that were cut short are skipped.

        Raises:
            GraphError: The asked run has no file.
        """
        if run_id is not None and not self.path_of(run_id).exists():
            known = ", ".join(self.run_ids()[-5:]) or "none"
            raise GraphError(f"no events of run {run_id!r} in {self.folder}; the latest are: {known}")
        for path in self._paths() if run_id is None else [self.path_of(run_id)]:
            yield from parse_lines(path.read_bytes().split(b"\n"))

    def prune(self, keep: int) -> list[str]:
        """Delete all but the `keep` files changed last (their runs are in the merged graph already)."""
        old = self._paths()[: -keep or None]
        for path in old:
            path.unlink(missing_ok=True)
        return [path.stem for path in old]

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime, path.name))


def parse_lines(lines: Iterable[bytes]) -> Iterator[Run]:
    """Yield the runs among lines; those that are cut short or empty are skipped."""
    for line in lines:
        if line:
            try:
                yield parse_run(line)
            except GraphError:
                continue
