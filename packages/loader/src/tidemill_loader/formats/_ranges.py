"""Cut a text file into byte ranges at record borders, so that several workers can read one file."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tidemill_loader.formats._base import Unit
from tidemill_loader.formats._text import is_compressed

if TYPE_CHECKING:
    from tidemill_loader.sources import SourceFile

CHUNK_BYTES = 8 << 20
"""Bytes looked at a time when borders are searched."""
BOM = b"\xef\xbb\xbf"
Read = Callable[[int], bytes]
"""Reads that many more bytes of a file; fewer or none at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoting:
    """What decides where a CSV record ends; both are one ASCII character."""

    delimiter: bytes
    quote: bytes
    skip_lines: int = 0
    """Lines before the header, in which a quote means nothing."""


def units_of(source: SourceFile, borders: Sequence[int]) -> list[Unit]:
    """Make a unit of each range between two borders; one without a range for a file that is not cut."""
    size = source.size_bytes
    if size == 0:
        return []
    if not borders:
        return [Unit(index=0, rows=None, size_bytes=size)]
    places = pairwise((0, *borders, size))
    return [Unit(index=at, rows=None, size_bytes=b - a, start=a, end=b) for at, (a, b) in enumerate(places)]


def is_cut(source: SourceFile, split: str, split_bytes: int, *, costs_a_scan: bool) -> bool:
    """Tell whether a file is to be cut: plain, longer than a range, and where it can be looked through cheaply.

    Args:
        source: The file.
        split: As in the load's options.
        split_bytes: About how long a range is.
        costs_a_scan: Borders are found only by reading the whole file.
    """
    if split == "none" or is_compressed(source) or source.size_bytes < 2 * split_bytes:
        return False
    return split == "all" or not costs_a_scan or source.local_path is not None


@contextmanager
def opened_range(source: SourceFile, unit: Unit) -> Iterator[Any]:
    """Open the bytes of a unit as a pyarrow stream."""
    with source.open() as file:
        yield file.get_stream(unit.start or 0, (unit.end or source.size_bytes) - (unit.start or 0))


def line_borders(source: SourceFile, every: int) -> list[int]:
    """Find borders of about `every` bytes, each behind a line's end; reads only a little around each."""
    borders: list[int] = []
    with source.open() as file:
        target = every
        while target < source.size_bytes:
            found = _line_end(file, target, source.size_bytes)
            if found >= source.size_bytes:
                break
            borders.append(found)
            target = found + every
    return borders


def _line_end(file: Any, start: int, size: int) -> int:
    """Find the place behind the first line end at or after `start`; `size` if there is none."""
    file.seek(start)
    at = start
    while chunk := bytes(file.read(1 << 16)):
        end = chunk.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(chunk)
    return size


def csv_borders(read: Read, quoting: Quoting, every: int, *, chunk_bytes: int = CHUNK_BYTES) -> list[int]:
    """Find borders of about `every` bytes between CSV records, by reading the whole file once.

    A quote opens a quoted field only at a field's start, and a doubled one does not end it: what
    pyarrow's parser does, so that the ranges together are the rows of the file. The last border is
    before the file's end.
    """
    scan = _Scan(quoting, every)
    for chunk in _chunks(read, quoting.quote, chunk_bytes):
        scan.look(chunk)
    borders = scan.borders
    return borders[:-1] if borders and borders[-1] >= scan.at else borders


def _chunks(read: Read, quote: bytes, size: int) -> Iterator[bytes]:
    """Read in chunks that do not end in a quote: whether it is a doubled one is seen within a chunk."""
    while chunk := read(size):
        while chunk.endswith(quote) and (more := read(1)):
            chunk += more
        yield chunk


class _Scan:
    """Walks through a file and knows at every place whether it is inside a quoted field."""

    def __init__(self, quoting: Quoting, every: int) -> None:
        self._quoting, self._every = quoting, every
        self._opening = re.compile(rb"(?<=[\r\n" + re.escape(quoting.delimiter) + rb"])" + re.escape(quoting.quote))
        self._inside = False
        self._before = b"\n"  # the byte before this chunk: a file begins as a field does
        self._skip = quoting.skip_lines
        self._target: int | None = None
        self.at = 0
        self.borders: list[int] = []

    def look(self, chunk: bytes) -> None:
        """Take in the next chunk."""
        start = self._begin(chunk) if self._target is None else 0
        toggles = self._toggles(chunk, start)
        if self._target is not None:
            self._cut(chunk, toggles)
        self._inside = bool((self._inside + len(toggles)) % 2)
        self._before = chunk[-1:]
        self.at += len(chunk)

    def _begin(self, chunk: bytes) -> int:
        """Pass over a mark, skipped lines and empty lines; the first record after them is never cut off."""
        at = len(BOM) if self.at == 0 and chunk.startswith(BOM) else 0
        while self._skip:
            end = re.compile(rb"\r\n|\r|\n").search(chunk, at)
            if end is None:
                return len(chunk)
            at, self._skip = end.end(), self._skip - 1
        start = re.compile(rb"[^\r\n]").search(chunk, at)
        if start is None:
            return len(chunk)
        self._target = self.at + start.start() + self._every
        return start.start()

    def _toggles(self, chunk: bytes, start: int) -> Sequence[int]:
        """List the places where a quoted field begins or ends (a doubled quote ends it and begins it again)."""
        if chunk.find(self._quoting.quote, start) < 0:
            return ()
        found = self._regular_toggles(chunk, start)
        return self._all_toggles(chunk, start) if found is None else found

    def _regular_toggles(self, chunk: bytes, start: int) -> Sequence[int] | None:
        """Answer all quotes if they alternate as they must; None if one of them stands within a plain field."""
        import pyarrow as pa
        import pyarrow.compute as pc

        before = self._window(chunk, start)
        window = pa.Array.from_buffers(pa.uint8(), len(before), [None, pa.py_buffer(before)])
        places = pc.indices_nonzero(pc.equal(window.slice(1), self._quoting.quote[0]))
        opening = places[int(self._inside) :: 2]
        allowed = pa.array([*b"\r\n", self._quoting.delimiter[0], self._quoting.quote[0]], pa.uint8())
        # `places` count from the chunk, the window begins one byte earlier: the same index is the byte before
        if pc.all(pc.is_in(window.take(opening), allowed), min_count=0).as_py() is False:
            return None
        placed = pc.add(places, pa.scalar(start, pa.uint64()))
        return memoryview(placed.buffers()[1])[: len(placed) * 8].cast("Q")

    def _window(self, chunk: bytes, start: int) -> bytes:
        """Put the byte before it in front of a chunk; the first record of a file begins as behind a line's end."""
        return (self._before if start == 0 else b"\n") + chunk[start:]

    def _all_toggles(self, chunk: bytes, start: int) -> list[int]:
        """Walk from quote to quote, exactly: some of them are plain characters."""
        window = self._window(chunk, start)
        quote = self._quoting.quote
        toggles: list[int] = []
        inside, at = self._inside, 1
        while True:
            if not inside:
                opening = self._opening.search(window, at)
                if opening is None:
                    break
                place = opening.start()
            else:
                place = window.find(quote, at)
                if place < 0:
                    break
                if window[place + 1 : place + 2] == quote:
                    at = place + 2
                    continue
            toggles.append(start + place - 1)
            inside, at = not inside, place + 1
        return toggles

    def _cut(self, chunk: bytes, toggles: Sequence[int]) -> None:
        while self._target is not None and self._target < self.at + len(chunk):
            border = self._border(chunk, toggles, max(0, self._target - self.at))
            if border is None:
                return  # the record goes on in the next chunk; the target is behind us then
            self.borders.append(self.at + border)
            self._target = self.at + border + self._every

    def _border(self, chunk: bytes, toggles: Sequence[int], at: int) -> int | None:
        while (end := chunk.find(b"\n", at)) >= 0:
            passed = bisect_left(toggles, end)
            if (self._inside + passed) % 2 == 0:
                return end + 1
            # within quotes: go on behind the end of the field
            at = toggles[passed] if passed < len(toggles) else len(chunk)
        return None
