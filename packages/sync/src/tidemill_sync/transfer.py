"""Copy one object: the source pinned by its etag, the target written only if it is as it was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from tidemill_core.errors import ObjectNotFound, PreconditionFailed, TransientError
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage import ObjectInfo, ObjectStore, fetch

from tidemill_sync.budget import Budget
from tidemill_sync.errors import ObjectMoved
from tidemill_sync.plan import Action, Entry
from tidemill_sync.throttle import Throttle
from tidemill_sync.trash import Keeper, Trash
from tidemill_sync.uploads import Uploads, part_bytes

Outcome = Literal["copied", "replaced", "adopted", "vanished"]
"""``adopted``: both sides were read and are equal; ``vanished``: the source lost it since it was listed."""
_CHUNK_BYTES = 2 << 20
_COMPARED_BYTES = 6 * _CHUNK_BYTES
"""Memory of one comparison: what both sides have read, and are joining."""
_STREAM_BYTES = 6 << 20
"""Chunks of a streamed object; as large as the parts of most stores, so that none is cut or joined."""
_STREAMED_PARTS = 7
"""Parts of one streamed object in memory: sent by the store at once, next to be sent, and being read."""
_RESUMED_PARTS = 5
"""Parts of one object written by noted parts: sent at once, and what one of them is joined from."""
_MOST_PARTS = 10_000
"""Parts of one object at most, by the strictest store (S3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What became of one action; `entry` is the note to keep."""

    key: str
    outcome: Outcome
    bytes: int = 0
    entry: Entry | None = None
    trashed: str | None = None
    """The key in the target under which the replaced object was kept."""


class Transfer:
    """Copies objects from one store to another.

    A read is pinned to the etag that was listed, so that a change in between is a new
    attempt, never a mixture. A write is conditional on the etag that was listed, so that
    another writer is noticed. Bytes are counted on the way, and must be as many as listed.

    Args:
        source: Where to read.
        target: Where to write.
        retry: How often one object is tried.
        throttle: The common bandwidth limit.
        budget: The common limit of memory.
        large_bytes: Larger objects are streamed.
        keeps_metadata: Carry content type and user metadata over.
        trash: Where replaced objects are kept.
        uploads: Goes on inside objects; None writes every object in one go.
        looks_again: Take the new version of what has changed since it was listed; else that is an error.
    """

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        *,
        retry: RetryPolicy,
        throttle: Throttle,
        budget: Budget,
        large_bytes: int,
        keeps_metadata: bool = True,
        trash: Trash | None = None,
        uploads: Uploads | None = None,
        looks_again: bool = True,
    ) -> None:
        self._source, self._target = source, target
        self._retry, self._throttle, self._large_bytes = retry, throttle, large_bytes
        self._keeps_metadata = (
            keeps_metadata and source.capabilities.user_metadata and target.capabilities.user_metadata
        )
        self._uploads = uploads
        self._budget, self._trash, self._looks_again = budget, trash, looks_again

    def apply(self, action: Action) -> Transferred:
        """Do a copy, replace or compare, trying again as the policy says.

        Raises:
            PreconditionFailed: It has changed, and must not be looked at again.
            TidemillError: The last attempt's error.
        """
        assert action.source is not None
        pinned = _Pinned(action.source, action.target, Keeper(self._trash))

        def attempt() -> Transferred:
            try:
                return self._once(action, pinned)
            except PreconditionFailed as moved:
                if not self._looks_again:
                    raise
                self._look_again(action.key, pinned)
                raise ObjectMoved(moved.url, action.key) from moved

        try:
            return self._tried(attempt)
        except ObjectNotFound as gone:
            if gone.url != self._source.url:
                raise
            return Transferred(key=action.key, outcome="vanished")

    def _tried(self, attempt: Callable[[], Transferred]) -> Transferred:
        """Try as the policy says; the machinery of retries is only built once an attempt has failed."""
        try:
            return attempt()
        except TransientError as error:
            first = [error]

        def again() -> Transferred:
            if first:
                raise first.pop()
            return attempt()

        return self._retry.call(again, on=TransientError)

    def _look_again(self, key: str, pinned: _Pinned) -> None:
        pinned.source = self._source.head(key)
        try:
            pinned.target = self._target.head(key)
        except ObjectNotFound:
            pinned.target = None

    def _once(self, action: Action, pinned: _Pinned) -> Transferred:
        source, target = pinned.source, pinned.target
        if action.kind == "compare" and target is not None and self._are_equal(source, target):
            return Transferred(key=action.key, outcome="adopted", entry=entry_of(source, target))
        conditions: dict[str, object] = {}
        capabilities = self._target.capabilities
        if target is None:
            conditions = {"if_absent": True} if capabilities.put_if_absent else {}
        elif target.etag is not None and capabilities.put_if_match:
            conditions = {"if_match": target.etag}
        if target is not None:
            pinned.keeper.before_replacing(target)
        if source.size_bytes <= self._large_bytes:
            with self._budget.hold(source.size_bytes):
                about, body = self._read(source)
                self._throttle.take(len(body))
                if len(body) != source.size_bytes:
                    raise ObjectMoved(self._source.url, source.key)
                written = self._target.put(source.key, body, **conditions, **about)  # type: ignore[arg-type]
                del body
        else:
            about = self._about(self._source.head(source.key)) if self._keeps_metadata else {}
            with self._budget.hold(large_object_bytes(source.size_bytes)):
                written = self._put_large(source, conditions, about)
        if written.size_bytes != source.size_bytes:
            raise ObjectMoved(self._source.url, source.key)
        outcome: Outcome = "copied" if target is None else "replaced"
        return Transferred(
            key=action.key,
            outcome=outcome,
            bytes=written.size_bytes,
            entry=entry_of(source, written),
            trashed=pinned.keeper.kept,
        )

    def _put_large(
        self, source: ObjectInfo, conditions: Mapping[str, object], about: Mapping[str, object]
    ) -> ObjectInfo:
        """Write by parts that the next run can go on with, or as one stream."""
        uploads, is_pinned = self._uploads, self._source.capabilities.get_if_match
        if uploads is None or not (is_pinned and uploads.takes(source)):
            stream = cast("BinaryIO", _Stream(self._chunks(source), source.size_bytes))
            return self._target.put(source.key, stream, **conditions, **about)  # type: ignore[arg-type]

        def read(start: int, end: int) -> bytes:
            part = self._source.get(source.key, start=start, end=end, if_match=source.etag)
            if len(part) != end - start:
                raise ObjectMoved(self._source.url, source.key)
            self._throttle.take(len(part))
            return part

        return uploads.put(source, read, conditions, about)

    def _chunks(self, source: ObjectInfo) -> Iterator[bytes]:
        done = 0
        for chunk in self._source.stream(source.key, chunk_bytes=_STREAM_BYTES, if_match=source.etag):
            self._throttle.take(len(chunk))
            done += len(chunk)
            yield chunk
        if done != source.size_bytes:
            raise ObjectMoved(self._source.url, source.key)

    def _read(self, source: ObjectInfo) -> tuple[Mapping[str, object], bytes]:
        """Read an object, and what to write beside its bytes."""
        if not self._keeps_metadata:
            return {}, self._source.get(source.key, if_match=source.etag)
        found, body = fetch(self._source, source.key, if_match=source.etag)
        return self._about(found), body

    def _about(self, found: ObjectInfo) -> Mapping[str, object]:
        return {"content_type": found.content_type, "metadata": found.metadata} if self._keeps_metadata else {}

    def _are_equal(self, source: ObjectInfo, target: ObjectInfo) -> bool:
        if source.size_bytes != target.size_bytes:
            return False
        with self._budget.hold(min(_COMPARED_BYTES, 2 * source.size_bytes)):
            return same_bytes(self._source, source, self._target, target, self._throttle)


def large_object_bytes(size_bytes: int) -> int:
    """Tell how much memory the copy of one large object takes: 42 MiB, and more where its parts must be larger."""
    streamed = max(_STREAM_BYTES, -(-size_bytes // _MOST_PARTS)) * _STREAMED_PARTS
    return max(streamed, part_bytes(size_bytes) * _RESUMED_PARTS)


def same_bytes(
    source: ObjectStore, source_info: ObjectInfo, target: ObjectStore, target_info: ObjectInfo, throttle: Throttle
) -> bool:
    """Read one object on both sides, chunk by chunk, until they differ.

    Raises:
        PreconditionFailed: One changed meanwhile.
    """
    ours = _blocks(source.stream(source_info.key, chunk_bytes=_CHUNK_BYTES, if_match=source_info.etag))
    theirs = _blocks(target.stream(target_info.key, chunk_bytes=_CHUNK_BYTES, if_match=target_info.etag))
    while True:
        one, other = next(ours, b""), next(theirs, b"")
        throttle.take(len(one) + len(other))
        if one != other:
            return False
        if not one:
            return True


@dataclass(slots=True)
class _Pinned:
    """The versions an attempt works on; renewed when one has changed."""

    source: ObjectInfo
    target: ObjectInfo | None
    keeper: Keeper


class _Stream:
    """Chunks as an open file that tells its size, so that a store can choose its parts.

    A read gives what is left of the current chunk at most: whole chunks pass without a copy.
    """

    def __init__(self, chunks: Iterator[bytes], size_bytes: int) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.size_bytes = size_bytes

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all; empty only at the end."""
        if size < 0:
            return b"".join([self._rest, *self._chunks])
        if not self._rest:
            chunk = next((each for each in self._chunks if each), b"")
            if len(chunk) <= size:
                return chunk
            self._rest = memoryview(chunk)
        found, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return found


def entry_of(source: ObjectInfo, target: ObjectInfo) -> Entry:
    """Note that both sides hold the same, in these versions."""
    return Entry(key=source.key, size_bytes=source.size_bytes, source_etag=source.etag, target_etag=target.etag)


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cut a stream into blocks of one size, so that two stores' chunks can be compared."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        while len(rest) >= _CHUNK_BYTES:
            yield rest[:_CHUNK_BYTES]
            rest = rest[_CHUNK_BYTES:]
    if rest:
        yield rest
