"""A folder as an object store: atomic durable writes, sorted walks, keys that cannot leave the folder."""
# ruff: noqa: PTH100, PTH104, PTH108, PTH118, PTH123 - descriptors, links and errno matter here; pathlib hides them

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, parts_of
from tidemill_core.storage.errors import KeyRefused, StoreRefused, StoreUnavailable

TEMPORARY = ".tidemill-tmp"
"""Folder of unfinished writes at a store's root; a reserved name, never listed at any depth."""
_READABLE = "/=+,@:~!$&'()"
_STALE_AFTER_S = 86_400.0
_COPY_BYTES = 4 << 20
_NAME_BYTES = 255


def open_file(url: str, options: StorageOptions) -> FileStore:
    """Open ``file:///folder``; the folder is made by the first write.

    Raises:
        ConfigError: The URL names another host or a relative path.
    """
    del options
    parts = urlsplit(url, allow_fragments=False)
    if parts.netloc not in {"", "localhost"} or parts.query:
        raise ConfigError(f"{url!r} is not a file URL: write file:///absolute/folder, special characters %-encoded")
    return FileStore(Path(unquote(parts.path) or "/"))


class FileStore:
    """Objects as files under one root folder; see `ObjectStore` for the contract.

    A key is a relative path of non-empty segments other than ``.`` and ``..``; other
    keys raise `KeyRefused`. Symbolic links are neither listed nor followed. Content
    types and metadata are not kept. An etag is (inode, modification time, size).

    Args:
        root: The folder.
        durable: Wait for the disk at each write; without it a power cut may lose recent writes.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = Path(os.path.abspath(root))
        self.durable = durable
        self._swept = False

    @property
    def url(self) -> str:
        """Where keys begin, as a file URL."""
        return "file://" + quote(str(self.root), safe=_READABLE)

    @property
    def capabilities(self) -> Capabilities:
        """All conditions, but neither metadata nor every key."""
        return Capabilities(user_metadata=False, any_key=False)

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Walk the folder, ascending by UTF-8 key; a missing folder holds nothing.

        Raises:
            StorageError: A folder cannot be read, or a file name is not UTF-8.
        """
        head = prefix.rpartition("/")[0]
        if any(segment in {"", ".", ".."} for segment in head.split("/")) and head:
            return
        folder = self.root / head if head else self.root
        if head and os.path.realpath(folder) != str(Path(os.path.realpath(self.root)) / head):
            return
        yield from self._walk(str(folder), f"{head}/" if head else "", prefix, start_after or "")

    def _walk(self, folder: str, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
        for name, entry in self._entries(folder, base):
            key = base + name
            if not key.startswith(prefix) and not prefix.startswith(key):
                continue
            if name.endswith("/"):
                if key > after or after.startswith(key):
                    yield from self._walk(entry.path, key, prefix, after)
            elif key > after and key.startswith(prefix):
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    status = entry.stat(follow_symlinks=False)
                    yield _described(key, status)

    def _entries(self, folder: str, base: str) -> Sequence[tuple[str, os.DirEntry[str]]]:
        """Read one folder; a sub-folder sorts as its name with a slash, which is the order of full keys."""
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink() or entry.name == TEMPORARY:
                        continue
                    if entry.is_dir():
                        found.append((entry.name + "/", entry))
                    elif entry.is_file():
                        found.append((entry.name, entry))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failure(error, f"list {base!r}") from error
        for name, _ in found:
            if not name.isascii():
                self._check_name(base, name)
        found.sort(key=lambda each: each[0])
        return found

    def _check_name(self, base: str, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise StoreRefused(
                self.url, "list", reason=f"the file name {name!r} in {base!r} is not UTF-8; rename it"
            ) from error

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        path = self._path(key)
        try:
            status = os.lstat(path)
        except OSError as error:
            raise self._failure(error, "read", key) from error
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFound(self.url, key)
        return _described(key, status)

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end)."""
        with self._opened(key, if_match) as file:
            size = os.fstat(file).st_size if end is None else end
            pieces = []
            while start < size and (piece := os.pread(file, size - start, start)):
                pieces.append(piece)
                start += len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in chunks; a file replaced meanwhile is read to its old end."""
        with self._opened(key, if_match) as file:
            while chunk := os.read(file, chunk_bytes):
                yield chunk

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
        """Write a temporary file, make it durable, and move it into place."""
        del content_type, metadata
        path = self._path(key)
        self._make_parents(path, key)
        try:
            temporary = self._temporary()
        except OSError as error:
            raise self._failure(error, "write", key) from error
        try:
            status = self._write(temporary, body)
            self._publish(temporary, path, key, if_absent=if_absent, if_match=if_match)
        except OSError as error:
            raise self._failure(error, "write", key) from error
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        return _described(key, status)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, and the folders they leave empty."""
        for key in keys:
            path = self._path(key)
            try:
                if not path.is_symlink() and path.is_dir():
                    continue
                with _locked(path.parent, exclusive=False):
                    os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise self._failure(error, "delete", key) from error
            self._prune(path.parent)

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy one file."""
        with self._opened(source_key, None) as file, os.fdopen(os.dup(file), "rb") as body:
            return self.put(target_key, body)

    def uri(self, key: str) -> str:
        """The file URL of one object; readers such as polars decode its %-escapes."""
        return "file://" + quote(str(self.root / key), safe=_READABLE)

    def reader_options(self) -> dict[str, Any]:
        """Nothing is needed to read a local file."""
        return {}

    def _path(self, key: str) -> Path:
        """Turn a key into a path that is certainly under the root.

        Raises:
            KeyRefused: A segment is empty, ``.``, ``..`` or too long, or the key is reserved.
        """
        checked_key(self.url, key)
        segments = key.split("/")
        if TEMPORARY in segments:
            raise KeyRefused(self.url, key, f"{TEMPORARY} is reserved")
        for segment in segments:
            if segment in {"", ".", ".."}:
                raise KeyRefused(self.url, key, f"a folder has no file with the path segment {segment!r}")
            if len(segment) > _NAME_BYTES // 4 and len(segment.encode()) > _NAME_BYTES:
                raise KeyRefused(self.url, key, f"a path segment has more than {_NAME_BYTES} bytes")
        path = self.root / key
        if len(segments) > 1 and not self._is_inside(path.parent):
            raise KeyRefused(self.url, key, "a folder on its path is a symbolic link")
        return path

    def _is_inside(self, folder: Path) -> bool:
        """Tell whether no part of `folder` below the root is a symbolic link."""
        return os.path.realpath(folder) == os.path.join(os.path.realpath(self.root), folder.relative_to(self.root))

    @contextmanager
    def _opened(self, key: str, if_match: str | None) -> Iterator[int]:
        path = self._path(key)
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise self._failure(error, "read", key) from error
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ObjectNotFound(self.url, key)
            if if_match not in {None, _etag(status)}:
                raise PreconditionFailed(self.url, key)
            yield file
            if if_match is not None and _etag(os.fstat(file)) != if_match:
                raise PreconditionFailed(self.url, key)  # written in place while it was read
        finally:
            os.close(file)

    def _make_parents(self, path: Path, key: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            return  # a delete pruned what we had just made; the caller finds no folder and tries again
        except (FileExistsError, NotADirectoryError) as error:
            if not any(_is_no_folder(part) for part in (path.parent, *path.parent.parents)):
                return  # pruned between mkdir's "it exists" and its look at what it is
            raise KeyRefused(self.url, key, "a part of its path is an object already") from error
        except OSError as error:
            raise self._failure(error, "write", key) from error

    def _temporary(self) -> Path:
        folder = self.root / TEMPORARY
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        return folder / f"{secrets.token_hex(12)}.tmp"

    def _write(self, temporary: Path, body: Body) -> os.stat_result:
        source = body if isinstance(body, bytes | memoryview) else None
        with open(temporary, "xb", buffering=0) as file:
            for part in parts_of(body, _COPY_BYTES if source is None else max(len(source), 1)):
                view = memoryview(part)
                while view:
                    view = view[file.write(view) :]
            if self.durable:
                os.fsync(file.fileno())
            return os.fstat(file.fileno())

    def _publish(self, temporary: Path, path: Path, key: str, *, if_absent: bool, if_match: str | None) -> None:
        """Move a finished file into place, under the conditions.

        Plain writers share the folder's lock; a compare-and-swap holds it alone between its check and its move.
        """
        for _ in range(64):  # a concurrent delete may prune the folder just made
            self._make_parents(path, key)
            with suppress(FileNotFoundError), _locked(path.parent, exclusive=if_match is not None):
                if if_match is not None and self._etag_of(path) != if_match:
                    raise PreconditionFailed(self.url, key)
                self._move(temporary, path, key, if_absent=if_absent)
                break
        else:
            raise StoreUnavailable(self.url, f"write {key!r}", "its folder is deleted again and again")
        if self.durable:
            _sync_folder(path.parent)

    def _move(self, temporary: Path, path: Path, key: str, *, if_absent: bool) -> None:
        try:
            if if_absent:
                os.link(temporary, path)
            else:
                os.rename(temporary, path)
        except (FileExistsError, IsADirectoryError) as error:
            if not path.is_dir() or path.is_symlink():
                raise PreconditionFailed(self.url, key) from error
            with suppress(OSError):
                path.rmdir()
                raise FileNotFoundError from error  # it was an empty folder: the caller tries again
            raise KeyRefused(self.url, key, "it is a folder that holds other objects") from error

    def _etag_of(self, path: Path) -> str | None:
        try:
            return _etag(os.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _prune(self, folder: Path) -> None:
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def _failure(self, error: OSError, doing: str, key: str | None = None) -> StorageError:
        if key is not None:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO} and doing == "read":
                return ObjectNotFound(self.url, key)
            if error.errno == errno.ENAMETOOLONG:
                return KeyRefused(self.url, key, "the file system allows no name this long")
            doing = f"{doing} {key!r}"
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE}:
            return StoreUnavailable(self.url, doing, reason)
        return StoreRefused(self.url, doing, reason=reason)


@contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Lock a folder against other threads and processes that write into it through a store."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _is_no_folder(path: Path) -> bool:
    """Tell whether something else than a folder is there, by one look: between two a delete may prune it."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - its mode, not a second question
    except OSError:
        return False


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _described(key: str, status: os.stat_result) -> ObjectInfo:
    modified_at = datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC)
    return ObjectInfo(key=key, size_bytes=status.st_size, etag=_etag(status), modified_at=modified_at)


def _sync_folder(folder: Path) -> None:
    with suppress(FileNotFoundError):  # emptied and pruned by a delete meanwhile
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left behind a day ago or earlier."""
    oldest = datetime.now(UTC).timestamp() - _STALE_AFTER_S
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
