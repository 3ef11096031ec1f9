"""Runs on disk, one JSON line each, one file per run id: what a killed process leaves behind is still whole.

Several processes can share a file; a reader skips the line that a kill cut short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tidemill_lineage.delivery.appending import append_lines, append_missing
from tidemill_lineage.document import dump_run, parse_run
from tidemill_lineage.emitters._base import Traits
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

    @property
    def identity(self) -> str:
        """The folder."""
        return f"events {self.folder.absolute()}"

    @property
    def traits(self) -> Traits:
        """Files of this machine; each part is a line."""
        return Traits(local=True)

    def emit(self, runs: Sequence[Run]) -> None:
        """Append runs to the files of their ids; what a killed process appended before is not doubled."""
        lines: dict[Path, list[bytes]] = {}
        for run in runs:
            lines.setdefault(self.path_of(run.id), []).append(dump_run(run))
        for path, told in lines.items():
            append_missing(path, told)

    def append(self, run: Run) -> None:
        """Append one run; on return the operating system has it, a kill of this process loses nothing."""
        append_lines(self.path_of(run.id), dump_run(run) + b"\n")

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
