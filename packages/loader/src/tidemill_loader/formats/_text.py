"""What text formats share: samples of whole lines, decompression, counting."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidemill_loader.errors import SourceUnreadable

if TYPE_CHECKING:
    from tidemill_loader.sources import SourceFile

_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


class Counted:
    """Numbers bad rows where the parser does not."""

    def __init__(self, first: int) -> None:
        self.first, self._bad = first, -1

    def next_bad(self) -> int:
        """Answer the next number."""
        self._bad += 1
        return self._bad


def codec_of(source: SourceFile) -> str | None:
    """Name the compression that the end of a file's name tells."""
    return next((codec for suffix, codec in _CODECS.items() if source.key.lower().endswith(suffix)), None)


def is_compressed(source: SourceFile) -> bool:
    """Tell whether a file is compressed, by the end of its name."""
    return codec_of(source) is not None


@contextmanager
def decompressed(source: SourceFile) -> Iterator[Any]:
    """Open a file as a pyarrow stream, decompressed by the end of its name."""
    import pyarrow as pa

    codec = codec_of(source)
    with source.open() as stream:
        try:
            yield pa.CompressedInputStream(stream, codec) if codec else stream
        except OSError as error:
            raise SourceUnreadable(source.url, " ".join(str(error).split())) from error


def sample_of(source: SourceFile, size: int) -> io.BytesIO:
    """Read about `size` bytes from the beginning, cut after the last whole line (or the file's end)."""
    with decompressed(source) as stream:
        data = bytes(stream.read(size))
        if len(data) == size and stream.read(1):
            data = data[: data.rfind(b"\n") + 1] or data
    return io.BytesIO(data)
