"""Find the files of a load in stores and folders, and open them for reading."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tidemill_core.errors import ObjectNotFound, PreconditionFailed
from tidemill_core.storage import ObjectStore, open_store, resolve_url

from tidemill_loader.errors import SourceChanged, SourceMissing, SourceUnreadable

if TYPE_CHECKING:
    from tidemill_core.storage import ObjectInfo

Opener = Callable[[str], ObjectStore]
_WILD = re.compile(r"[*?\[]")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
BLOCK_BYTES = 4 << 20
"""Bytes fetched at a time from a remote store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file to load; `etag` tells whether it is still the same."""

    url: str
    key: str
    size_bytes: int
    etag: str
    dataset: str
    """What it belongs to, for lineage: the folder before its pattern's wildcards (ends in ``/``), or itself."""
    partitions: Mapping[str, str | None] = field(default_factory=dict)
    """Hive keys of its path."""
    store: ObjectStore = field(repr=False, compare=False)

    @property
    def local_path(self) -> Path | None:
        """Where the file lies on this machine; None for a remote one."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def open(self) -> Any:
        """Open as a pyarrow file; a remote one that changes under us raises `SourceChanged`."""
        import pyarrow as pa

        path = self.local_path
        if path is not None:
            try:
                return pa.OSFile(str(path), "rb")  # not memory-mapped: a file that shrinks would kill the process
            except OSError as error:
                raise SourceUnreadable(self.url, str(error)) from error
        return pa.PythonFile(io.BufferedReader(_Ranges(self), BLOCK_BYTES), mode="r")

    def check_unchanged(self) -> None:
        """Look again at the file.

        Raises:
            SourceChanged: It was rewritten or removed.
        """
        try:
            now = _etag(self.store.head(self.key))
        except ObjectNotFound as error:
            raise SourceChanged(self.url, "was removed while it was loaded") from error
        if now != self.etag:
            raise SourceChanged(self.url, "was rewritten while it was loaded; run the load again")


class _Ranges(io.RawIOBase):
    """A remote object as a seekable stream of range reads, all of the same version."""

    def __init__(self, source: SourceFile) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._source.size_bytes)
        if end <= self._at:
            return 0
        data = self._get(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _get(self, start: int, end: int) -> bytes:
        source = self._source
        matchable = source.etag if source.store.capabilities.get_if_match and source.etag[:1] != "~" else None
        try:
            return source.store.get(source.key, start=start, end=end, if_match=matchable)
        except (PreconditionFailed, ObjectNotFound) as error:
            raise SourceChanged(source.url, "was rewritten while it was loaded; run the load again") from error


def find_files(
    patterns: Sequence[str],
    *,
    opener: Opener = open_store,
    hive: bool = True,
    on_hidden: Callable[[str], None] | None = None,
) -> list[SourceFile]:
    """List the files that match, each once, in the order of the patterns and by name within one.

    Args:
        patterns: Paths or URLs of files, folders or patterns.
        opener: Opens a store by URL.
        hive: Read ``key=value`` folders.
        on_hidden: Hears the URL of each file that is passed over because it, or a folder of it, is hidden.

    Raises:
        SourceMissing: A pattern matches nothing, or nothing but hidden files.
    """
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        hidden: list[str] = []
        matches = {each.url: each for each in _matches(pattern, opener, hidden, hive=hive)}
        if not matches:
            raise SourceMissing(pattern, hidden)
        if on_hidden is not None:
            for url in hidden:
                on_hidden(url)
        found.update({url: each for url, each in matches.items() if url not in found})
    return list(found.values())


def _matches(pattern: str, opener: Opener, hidden: list[str], *, hive: bool) -> Iterator[SourceFile]:
    head, tail = split_pattern(pattern)
    if tail and not _WILD.search(tail):
        store = opener(_url(head))
        try:
            info = store.head(tail)
        except ObjectNotFound:
            head, tail = posixpath.join(head, tail), ""
        else:
            yield _source(store, info, store.uri(tail), hive=hive)
            return
    store = opener(_url(head))
    wanted = re.compile(glob_regex(tail) if tail else ".*", re.DOTALL)
    for info in store.list(_listing_prefix(tail)):
        if not wanted.fullmatch(info.key):
            continue
        if is_hidden(info.key, tail):
            hidden.append(store.uri(info.key))
        else:
            yield _source(store, info, f"{store.url.rstrip('/')}/", hive=hive)


def is_hidden(key: str, pattern: str) -> bool:
    """Tell whether a file is a tool's own: it or a folder of it begins with ``.`` or ``_``.

    ``_SUCCESS``, ``.part-0.parquet.crc``, ``._a.csv`` (of macOS) and ``_temporary/`` are; ``_year=2013/`` is
    a key. A part of the pattern that itself begins so (``_exports/*.csv``, ``_*.csv``) means such files.
    """
    meant = [re.compile(glob_regex(part), re.DOTALL) for part in pattern.split("/") if part.startswith((".", "_"))]
    for part in key.split("/"):
        marked = part.startswith(".") or (part.startswith("_") and "=" not in part)
        if marked and not any(each.fullmatch(part) for each in meant):
            return True
    return False


def _source(store: ObjectStore, info: ObjectInfo, dataset: str, *, hive: bool) -> SourceFile:
    url = store.uri(info.key)
    return SourceFile(
        url=url,
        key=info.key,
        size_bytes=info.size_bytes,
        etag=_etag(info),
        dataset=dataset,
        partitions=hive_keys(url) if hive else {},
        store=store,
    )


def _etag(info: ObjectInfo) -> str:
    return info.etag or f"~{info.size_bytes}-{info.modified_at.timestamp()}"


def _url(head: str) -> str:
    return resolve_url(head) if "://" not in head else head


def split_pattern(pattern: str) -> tuple[str, str]:
    """Divide into the folder before the first wildcard, and the rest; a plain path into folder and name."""
    scheme, separator, path = pattern.partition("://")
    if not separator:
        scheme, path = "", pattern
    parts = path.split("/")
    wild = next((at for at, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    if separator and scheme not in {"file", "lake", "mirror"}:
        wild = max(wild, 1)  # the bucket is not a key
    head, tail = "/".join(parts[:wild]), "/".join(parts[wild:])
    if not separator:
        return head or ("/" if path.startswith("/") else "."), tail
    return f"{scheme}://{head}", tail


def _listing_prefix(tail: str) -> str:
    found = _WILD.search(tail)
    return tail[: found.start()] if found else tail


def glob_regex(pattern: str) -> str:
    """Translate ``*`` (within a folder), ``**`` (any folders), ``?`` and ``[abc]`` to a regular expression."""
    made, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            made, at = made + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            made, at = made + ".*", at + 2
        elif pattern[at] == "*":
            made, at = made + "[^/]*", at + 1
        elif pattern[at] == "?":
            made, at = made + "[^/]", at + 1
        elif pattern[at] == "[" and "]" in pattern[at + 2 :]:
            end = pattern.index("]", at + 2)
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            made, at = made + f"[{'^' + inside[1:] if inside[0] == '!' else inside}]", end + 1
        else:
            made, at = made + re.escape(pattern[at]), at + 1
    return made


def hive_keys(url: str) -> dict[str, str | None]:
    """Read the ``key=value`` folders of a path, in order; Hive's null name is None."""
    keys: dict[str, str | None] = {}
    for part in urlsplit(url).path.split("/")[:-1]:
        name, separator, value = unquote(part).partition("=")
        if separator and name:
            keys[name] = None if unquote(value) == _HIVE_NULL else unquote(value)
    return keys
