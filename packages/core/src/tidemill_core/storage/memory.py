"""Objects in this process's memory: the double for tests, shared by every store of the same name."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from threading import Lock
from typing import Any

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, read_all


@dataclass(slots=True)
class _Bucket:
    """The objects of one name: full key to (description, bytes)."""

    objects: dict[str, tuple[ObjectInfo, bytes]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


_buckets: dict[str, _Bucket] = {}
_buckets_lock = Lock()
_versions = count(1)


def open_memory(url: str, options: StorageOptions) -> MemoryStore:
    """Open ``memory://name/prefix``; the same name is the same objects, in this process only."""
    del options
    name, _, prefix = url.removeprefix("memory://").partition("/")
    if not name:
        raise ConfigError(f"{url!r} needs a name: memory://name/prefix")
    return MemoryStore(name, prefix.strip("/"))


class MemoryStore:
    """An object store of one process; see `ObjectStore` for the contract."""

    def __init__(self, name: str, prefix: str = "") -> None:
        with _buckets_lock:
            self._bucket = _buckets.setdefault(name, _Bucket())
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"memory://{name}/{prefix}".rstrip("/")

    @property
    def url(self) -> str:
        """Where keys begin."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities()

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects of one instant, ascending by key."""
        low = self._base + prefix
        with self._bucket.lock:
            objects = dict(self._bucket.objects)
        keys = sorted(objects)
        first = bisect_left(keys, low)
        if start_after is not None:
            first = max(first, bisect_right(keys, self._base + start_after))
        for index in range(first, len(keys)):
            if not keys[index].startswith(low):
                return
            if len(keys[index]) > len(self._base):
                yield self._described(objects[keys[index]][0])

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._described(self._found(key)[0])

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end)."""
        info, data = self._found(key)
        if if_match not in {None, info.etag}:
            raise PreconditionFailed(self._url, key)
        return data[start:end]

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in chunks."""
        data = self.get(key, if_match=if_match)
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

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
        """Write an object whole."""
        full = self._base + checked_key(self._url, key)
        data = read_all(body)
        info = ObjectInfo(
            key=full,
            size_bytes=len(data),
            etag=f"v{next(_versions)}",
            modified_at=datetime.now(UTC),
            content_type=content_type,
            metadata=dict(metadata or {}),
        )
        with self._bucket.lock:
            before = self._bucket.objects.get(full)
            if (if_absent and before) or (if_match is not None and (before is None or before[0].etag != if_match)):
                raise PreconditionFailed(self._url, key)
            self._bucket.objects[full] = (info, data)
        return self._described(info)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        for key in keys:
            with self._bucket.lock:
                self._bucket.objects.pop(self._base + key, None)

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy within this store."""
        info, data = self._found(source_key)
        return self.put(target_key, data, content_type=info.content_type, metadata=info.metadata)

    def uri(self, key: str) -> str:
        """The URL of one object; only this process can open it."""
        return f"{self._url}/{key}"

    def reader_options(self) -> dict[str, Any]:
        """Nothing: no reader but this store can reach this memory."""
        return {}

    def _found(self, key: str) -> tuple[ObjectInfo, bytes]:
        with self._bucket.lock:
            found = self._bucket.objects.get(self._base + key)
        if found is None or not key:
            raise ObjectNotFound(self._url, key)
        return found

    def _described(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key[len(self._base) :]) if self._base else info
