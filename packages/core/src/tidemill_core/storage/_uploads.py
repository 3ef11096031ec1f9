"""Write one large object by parts that outlive the process: what was sent is told, and is not sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from tidemill_core.storage._base import ObjectInfo

_PARTS_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPart:
    """A part that the store has taken; `checksum` is in the store's own form."""

    number: int
    size_bytes: int
    etag: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An object that is written by parts of `part_bytes`, the last one shorter; perhaps begun by another process."""

    size_bytes: int
    part_bytes: int
    read: Callable[[int, int], bytes]
    """Gives the bytes [start, end) of what is written; called on several threads, and always of one version."""
    began: Callable[[str], None]
    """Told the upload's id before its first part is sent."""
    sent: Callable[[SentPart], None]
    """Told of each part that the store has taken; called on several threads."""
    upload_id: str | None = None
    """The upload to go on with; None begins one."""
    parts: Mapping[int, SentPart] = field(default_factory=dict)
    """What `sent` was told of that upload."""

    def span(self, number: int) -> tuple[int, int]:
        """Where a part, numbered from 1, begins and ends."""
        start = (number - 1) * self.part_bytes
        return start, min(start + self.part_bytes, self.size_bytes)

    @property
    def count(self) -> int:
        """How many parts there are."""
        return max(1, -(-self.size_bytes // self.part_bytes))


class Resuming(Protocol):
    """A store whose uploads can be gone on with; has `put_upload` and `abort_upload`."""

    def put_upload(
        self,
        key: str,
        upload: Upload,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write an object as `put` does. On an error what was sent stays, for another attempt.

        Raises:
            PreconditionFailed: As for `put`; the upload is aborted where the store can do that.
        """

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts, at once or in the store's own time; one that is gone is no error."""


def send_missing(
    upload: Upload, kept: Mapping[int, SentPart], send: Callable[[int, bytes], SentPart]
) -> list[SentPart]:
    """Send the parts that are not kept, a few at a time.

    Returns:
        Every part, in order.
    """

    def one(number: int) -> SentPart:
        if number in kept:
            return kept[number]
        start, end = upload.span(number)
        part = send(number, upload.read(start, end))
        upload.sent(part)
        return part

    with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
        waiting = [pool.submit(one, number) for number in range(1, upload.count + 1)]
        try:
            return [each.result() for each in waiting]
        except BaseException:  # the rest is not begun, whatever it was, and it is raised again
            pool.shutdown(wait=False, cancel_futures=True)
            raise
