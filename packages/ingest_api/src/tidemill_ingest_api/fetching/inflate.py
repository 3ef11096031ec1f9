"""Decompress a body step by step, so that a small one cannot fill the memory before it is measured."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

ENCODINGS = ("gzip", "deflate")
"""What we ask for and can read."""
_STEP_BYTES = 65_536
_GZIP_OR_ZLIB, _RAW = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS


class BrokenBody(Exception):
    """The compressed bytes are torn or cut short."""


def inflate(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress gzip or deflate, at most 64 KiB at a time.

    Args:
        parts: The body as it comes; several gzip members are read as one.

    Raises:
        BrokenBody: The bytes are not what they are declared to be, or end too early.
    """
    decoder, is_first = zlib.decompressobj(_GZIP_OR_ZLIB), True
    for part in parts:
        rest = part
        while rest:
            if decoder.eof:
                decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                out = decoder.decompress(rest, _STEP_BYTES)
            except zlib.error as error:
                if not is_first:
                    raise BrokenBody(str(error)) from None
                # Some servers send deflate without its zlib header (RFC 9110 8.4.1.2 warns of them).
                decoder, is_first = zlib.decompressobj(_RAW), False
                continue
            is_first = False
            if out:
                yield out
            rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        while not decoder.eof and (out := _more(decoder)):
            yield out
    if not is_first and not decoder.eof:
        raise BrokenBody("the compressed body is cut short")


def _more(decoder: zlib._Decompress) -> bytes:
    """Take what the decoder holds back: a full step may end the input before the output."""
    try:
        return decoder.decompress(decoder.unconsumed_tail, _STEP_BYTES)
    except zlib.error as error:
        raise BrokenBody(str(error)) from None


__all__ = ["ENCODINGS", "BrokenBody", "inflate"]
