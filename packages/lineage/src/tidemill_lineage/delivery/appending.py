"""Append lines to a file that several processes share: whole lines or none, also on a full disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

_TAIL_BYTES = 65_536


def append_lines(path: Path, lines: bytes) -> None:
    """Append lines, each ended by a newline; on return the operating system has them.

    A line that a killed process left unfinished is ended first, so that it swallows none of ours.

    Raises:
        OSError: The disk is full, or the file cannot be written; then it is as it was.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags, 0o644)
    try:
        # the lock makes "cut it back to what it was" safe beside other writers; a kill frees it
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        _write_whole(handle, lines, size)
    finally:
        os.close(handle)


def append_missing(path: Path, lines: Sequence[bytes]) -> None:
    """Append those lines that do not stand near the end of the file already.

    Args:
        path: The file.
        lines: Without line ends. A process killed after it wrote a batch, and before it noted so,
            leaves the batch at the end: that is where it is looked for.

    Raises:
        OSError: As of `append_lines`.
    """
    there = set(_read_tail(path, 2 * sum(map(len, lines)) + _TAIL_BYTES))
    missing = [line for line in lines if line not in there]
    if missing:
        append_lines(path, b"".join(line + b"\n" for line in missing))


def _read_tail(path: Path, size: int) -> list[bytes]:
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read().split(b"\n")
    except FileNotFoundError:
        return []


def replace_file(path: Path, data: bytes) -> None:
    """Put data in a file's place, whole or not at all, and leave nothing beside it.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # undone whatever it was, and raised again
        partial.unlink(missing_ok=True)
        raise


def _write_whole(handle: int, data: bytes, size: int) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(handle, left) :]
    except BaseException:  # undone whatever it was, and raised again
        os.ftruncate(handle, size)
        raise
