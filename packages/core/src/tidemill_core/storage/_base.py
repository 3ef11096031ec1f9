"""The contract every object store keeps, and the values it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tidemill_core.errors import PreconditionFailed

Body = bytes | memoryview | Path | BinaryIO
"""What can be put: bytes in memory, a local file, or an open binary stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as a listing or a head shows it; `etag` is opaque, unquoted, comparable within one store only."""

    key: str
    size_bytes: int
    etag: str | None
    modified_at: datetime
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do beyond the least; asked instead of its name."""

    put_if_absent: bool = True
    put_if_match: bool = True
    get_if_match: bool = True
    server_copy: bool = True
    user_metadata: bool = True
    any_key: bool = True
    """Every UTF-8 key up to 1,024 bytes is kept as it is (a file system cannot)."""


class ObjectStore(Protocol):
    """Objects under one URL (bucket and prefix); keys are relative to it and never start with it."""

    @property
    def url(self) -> str:
        """Where this store's keys begin, such as ``s3://bucket/prefix``; holds no secret."""

    @property
    def capabilities(self) -> Capabilities: ...

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield objects whose key starts with `prefix` (a string prefix), ascending by UTF-8 key."""

    def head(self, key: str) -> ObjectInfo:
        """Describe one object, or raise `ObjectNotFound`."""

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end) of an object; `PreconditionFailed` if its etag is no longer `if_match`."""

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in order, in chunks of about `chunk_bytes`."""

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write an object whole; readers see the old one or the new one, never a part.

        Raises:
            PreconditionFailed: `if_absent` and it exists, or its etag is not `if_match`.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is no error."""

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy within this store, on the server where it can."""

    def uri(self, key: str) -> str:
        """The full URL of one object, for metadata and for readers such as polars."""

    def reader_options(self) -> dict[str, Any]:
        """Arguments with which polars scans `uri(...)`: ``pl.scan_parquet(store.uri(key), **store.reader_options())``.

        They are ``storage_options`` and ``credential_provider``, which polars asks for new credentials when
        those it has end; empty where polars needs none. They hold secrets: never log them.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a listing by columns, ascending by UTF-8 key; what is compared in bulk costs no object of its own."""

    keys: Sequence[str]
    sizes_bytes: Sequence[int]
    etags: Sequence[str | None]
    info: Callable[[int], ObjectInfo]
    """Describes the object at an index."""


class Paging(Protocol):
    """A store that lists by pages; ask it through `list_pages`."""

    def list_pages(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[Page]:
        """Yield what `list` yields, by pages."""


def list_pages(
    store: ObjectStore, prefix: str = "", *, start_after: str | None = None, page_keys: int = 1_000
) -> Iterator[Page]:
    """List by pages, made of single objects where a store has none of its own.

    Args:
        store: What to list.
        prefix: As for `ObjectStore.list`.
        start_after: As for `ObjectStore.list`.
        page_keys: Objects per page, where we make the pages.
    """
    if hasattr(store, "list_pages"):
        yield from cast("Paging", store).list_pages(prefix, start_after=start_after)
        return
    yield from pages_of(store.list(prefix, start_after=start_after), page_keys=page_keys)


def pages_of(items: Iterable[ObjectInfo], *, page_keys: int = 1_000) -> Iterator[Page]:
    """Join single objects into pages."""
    remaining = iter(items)
    while page := list(islice(remaining, page_keys)):
        yield Page(
            keys=[each.key for each in page],
            sizes_bytes=[each.size_bytes for each in page],
            etags=[each.etag for each in page],
            info=page.__getitem__,
        )


class Fetching(Protocol):
    """A store that gives an object and its description by one request; ask it through `fetch`."""

    def fetch(self, key: str, *, if_match: str | None = None) -> tuple[ObjectInfo, bytes]:
        """Read and describe one object."""


def fetch(store: ObjectStore, key: str, *, if_match: str | None = None) -> tuple[ObjectInfo, bytes]:
    """Read an object with its content type and metadata: by one request where the store can, else by two.

    Raises:
        ObjectNotFound: There is no such object.
        PreconditionFailed: Its etag is not `if_match`, or it changed between the two requests.
    """
    if hasattr(store, "fetch"):
        return cast("Fetching", store).fetch(key, if_match=if_match)
    info = store.head(key)
    if if_match is not None and info.etag != if_match:
        raise PreconditionFailed(store.url, key)
    return info, store.get(key, if_match=info.etag)
