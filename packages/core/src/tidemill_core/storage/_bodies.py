"""Read what can be put, and refuse keys no store should hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from tidemill_core.storage._base import Body
from tidemill_core.storage.errors import KeyRefused

T = TypeVar("T")

MAX_KEY_BYTES = 1024
_PARTS_AT_ONCE = 4


def checked_key(url: str, key: str) -> str:
    """Return `key` if it is 1 to 1,024 bytes of UTF-8 without NUL.

    Raises:
        KeyRefused: It is not.
    """
    if not key:
        raise KeyRefused(url, key, "a key has at least one character")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise KeyRefused(url, key, "it is not valid Unicode") from error
    if size > MAX_KEY_BYTES:
        raise KeyRefused(url, key[:40] + "…", f"it has {size} bytes, {MAX_KEY_BYTES} are allowed")
    if "\0" in key:
        raise KeyRefused(url, key, "it holds a NUL character")
    return key


def read_all(body: Body) -> bytes:
    """Read a body into memory."""
    if isinstance(body, Path):
        return body.read_bytes()
    if isinstance(body, bytes | memoryview):
        return bytes(body)
    return body.read()


def parts_of(body: Body, part_bytes: int) -> Iterator[bytes | memoryview]:
    """Cut a body into parts of exactly `part_bytes`, the last one shorter; an empty body is one empty part."""
    if isinstance(body, Path):
        with body.open("rb") as file:
            yield from _file_parts(file, part_bytes)
    elif isinstance(body, bytes | memoryview):
        view = memoryview(body)
        for start in range(0, max(len(view), 1), part_bytes):
            yield view[start : start + part_bytes]
    else:
        yield from _file_parts(body, part_bytes)


def _file_parts(file: BinaryIO, part_bytes: int) -> Iterator[bytes]:
    part = _read_exactly(file, part_bytes)
    while True:
        following = _read_exactly(file, part_bytes) if len(part) == part_bytes else b""
        yield part
        if not following:
            return
        part = following


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, or what there is before the end; raw and pipe reads may come short."""
    first = file.read(size)
    if len(first) == size or not first:
        return first
    pieces = [first]
    missing = size - len(first)
    while missing and (piece := file.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def part_size(body: Body, least_bytes: int, most_parts: int) -> int:
    """Choose the bytes per part so that a body fits into `most_parts`.

    A stream may tell its size by an attribute `size_bytes`; one that does not gets parts twice as large.
    """
    if isinstance(body, Path):
        size = body.stat().st_size
    elif isinstance(body, bytes | memoryview):
        size = len(body)
    else:
        size = getattr(body, "size_bytes", 2 * least_bytes * most_parts)
    return max(least_bytes, -(-size // most_parts))


def in_parallel(send: Callable[[int, bytes | memoryview], T], parts: Iterable[bytes | memoryview]) -> list[T]:
    """Send parts, numbered from 1, a few at a time; memory holds no more than those.

    Returns:
        What `send` gave, in order of the parts.
    """
    done: list[T] = []
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
        try:
            for number, part in enumerate(parts, 1):
                if len(waiting) == _PARTS_AT_ONCE:
                    done.append(waiting.popleft().result())
                waiting.append(pool.submit(send, number, part))
            done.extend(each.result() for each in waiting)
        except BaseException:  # undone whatever it was, and raised again
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return done
