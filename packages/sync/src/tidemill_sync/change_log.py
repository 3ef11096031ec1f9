"""Write a line of JSON for every key that runs change, before the manifest notes it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill_sync.errors import LogUnwritable


class ChangeLog:
    """Appends to one file, which several runs may share: lines are written whole.

    A run that is killed may lack the lines of the objects in flight; as their notes are
    missing too, the next run looks at them again and logs what it finds: ``adopted`` for an
    object that is there already, ``gone`` for one that neither side has any more.

    Args:
        path: The file; None logs nothing. It is made with its folder.
        run_id: Stands in every line.
        clock: Gives the time of a line.

    Raises:
        LogUnwritable: The file cannot be opened.
    """

    def __init__(
        self, path: Path | None, run_id: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path, self._run_id, self._clock = path, run_id, clock
        self._lines: list[str] = []
        self._file: int | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._end_broken_line(self._file)
        except OSError as error:
            raise LogUnwritable(path, error) from error

    @staticmethod
    def _end_broken_line(file: int) -> None:
        """A full disk or a kill may have left half a line; the next must not become a part of it."""
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")

    def add(self, kind: str, key: str, **facts: Any) -> None:
        """Note a change; `flush` writes it. Facts that are None or empty are left out."""
        if self._file is None:
            return
        known: Mapping[str, Any] = {name: value for name, value in facts.items() if value not in (None, "")}
        line = {"at": self._clock().isoformat(), "run": self._run_id, "kind": kind, "key": key, **known}
        self._lines.append(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Write what was noted, through to the disk.

        Raises:
            LogUnwritable: It could not be written.
        """
        if self._file is None or not self._lines:
            return
        left = memoryview("".join(self._lines).encode())
        self._lines.clear()
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            assert self._path is not None
            raise LogUnwritable(self._path, error) from error

    def close(self) -> None:
        """Write the rest and close the file."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None
