"""The manifest of an object-store sink: which files are committed, and how far each partition is.

    {prefix}/{pipeline}/{topic}/{partition:05d}/{seq:020d}.json

An entry is created once (``put`` if absent) and never changed, so that of two workers
who would both write entry *n* one loses. A claim is an entry too: whoever holds an
older epoch finds the next number taken. An entry is the commit point of the files it
lists; a file that no entry lists does not exist, as far as readers are concerned.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from tidemill_core.storage import ObjectStore, PreconditionFailed

from tidemill_stream.progress import Partition, Progress

_INLINE_STATE_BYTES = 262_144


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file as its manifest entry lists it; `start` and `end` are Kafka offsets, [start, end)."""

    output: Literal["rows", "windows", "dlq"]
    key: str
    start: int
    end: int
    rows: int
    bytes: int
    sha256: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest entry."""

    kind: Literal["claim", "commit"]
    token: str
    owner: str
    pipeline: str
    topic: str
    partition: int
    epoch: int
    offset: int
    log_end: int
    incarnation: str
    restart: bool = False
    files: tuple[FileEntry, ...] = ()
    state: str | None = None
    """Window state and totals in base64, or, when large, None and `state_key`."""
    state_key: str | None = None
    written_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedFile:
    """A file that readers may read."""

    output: str
    key: str
    partition: Partition
    start: int
    end: int
    epoch: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest entry of a partition, and its number."""

    seq: int
    entry: Entry
    progress: Progress


class Manifest:
    """Reads and extends the manifest of one pipeline.

    Args:
        store: Where the sink writes.
        prefix: The manifest's key prefix.
        pipeline: Name of the pipeline.
    """

    def __init__(self, store: ObjectStore, prefix: str, pipeline: str) -> None:
        self._store, self._root = store, f"{prefix}/{pipeline}"

    def partitions(self, topics: Iterable[str]) -> list[Partition]:
        """List the partitions that have entries."""
        return sorted({found for topic in topics for found, _, _ in self._keys(f"{self._root}/{topic}/")})

    def head(self, partition: Partition) -> Head | None:
        """Read the newest entry of a partition; None if it has none."""
        last = None
        for _, seq, key in self._keys(self._folder(partition)):
            last = seq, key
        if last is None:
            return None
        entry = msgspec.json.decode(self._store.get(last[1]), type=Entry)
        progress = Progress(
            offset=entry.offset, log_end=entry.log_end, epoch=entry.epoch, incarnation=entry.incarnation
        )
        state = self._state(entry)
        return Head(seq=last[0], entry=entry, progress=progress if state is None else progress.unpack(state))

    def append(self, partition: Partition, seq: int, entry: Entry, state: bytes) -> bool:
        """Create entry `seq`; False if somebody else has created it."""
        if len(state) <= _INLINE_STATE_BYTES:
            entry = msgspec.structs.replace(entry, state=base64.b64encode(state).decode())
        else:
            key = f"{self._root}/_state/{partition.topic}/{partition.number:05d}/{seq:020d}-{entry.token}.bin"
            self._store.put(key, state)
            entry = msgspec.structs.replace(entry, state_key=key)
        key = f"{self._folder(partition)}{seq:020d}.json"
        try:
            self._store.put(key, msgspec.json.encode(entry), if_absent=True, content_type="application/json")
        except PreconditionFailed:
            # our own request may have been repeated after its answer was lost
            return msgspec.json.decode(self._store.get(key), type=Entry).token == entry.token
        return True

    def has_entry_after(self, partition: Partition, seq: int) -> bool:
        """Tell whether anybody has gone on from entry `seq`."""
        folder = self._folder(partition)
        return any(True for _ in self._store.list(folder, start_after=f"{folder}{seq:020d}.json"))

    def entries(self) -> Iterator[tuple[Partition, int, Entry]]:
        """Read every entry, by partition and number."""
        for partition, seq, key in self._keys(f"{self._root}/"):
            yield partition, seq, msgspec.json.decode(self._store.get(key), type=Entry)

    def files(self) -> list[CommittedFile]:
        """List the committed files, by partition and offset; those before a restart no longer count."""
        return _files(self.entries())

    def _folder(self, partition: Partition) -> str:
        return f"{self._root}/{partition.topic}/{partition.number:05d}/"

    def _keys(self, prefix: str) -> Iterator[tuple[Partition, int, str]]:
        for info in self._store.list(prefix):
            topic, _, rest = info.key.removeprefix(f"{self._root}/").partition("/")
            number, _, name = rest.partition("/")
            if topic != "_state" and name.endswith(".json"):
                yield Partition(topic, int(number)), int(name.removesuffix(".json")), info.key

    def _state(self, entry: Entry) -> bytes | None:
        if entry.state_key is not None:
            return self._store.get(entry.state_key)
        return None if entry.state is None else base64.b64decode(entry.state)


def _files(entries: Iterable[tuple[Partition, int, Entry]]) -> list[CommittedFile]:
    found: dict[Partition, list[CommittedFile]] = {}
    for partition, _, entry in entries:
        held = found.setdefault(partition, [])
        if entry.restart:
            held.clear()
        held += [
            CommittedFile(
                output=each.output,
                key=each.key,
                partition=partition,
                start=each.start,
                end=each.end,
                epoch=entry.epoch,
                rows=each.rows,
                bytes=each.bytes,
                sha256=each.sha256,
            )
            for each in entry.files
        ]
    return [each for partition in sorted(found) for each in found[partition]]


def read_manifest(store: ObjectStore, pipeline: str, prefix: str = "_manifest") -> list[CommittedFile]:
    """List the files a pipeline has committed to a store: what a reader should read, and nothing else.

    Args:
        store: The store of the sink's `url`.
        pipeline: Name of the pipeline.
        prefix: The sink's `manifest` prefix.
    """
    return Manifest(store, prefix, pipeline).files()


def sweep(store: ObjectStore, pipeline: str, prefixes: Iterable[str], *, prefix: str = "_manifest") -> list[str]:
    """Delete data files that no manifest entry lists and that none can ever list.

    A file's name carries the epoch it was written under. Once its partition has a claim of
    a higher epoch, no commit of the lower one can succeed, so an unlisted file of a lower
    epoch is waste. Files of the newest epoch are left alone: their commit may be under way.

    Args:
        store: The store of the sink's `url`.
        pipeline: Name of the pipeline.
        prefixes: The data prefixes (`rows`, `windows`, `dlq`).
        prefix: The sink's `manifest` prefix.

    Returns:
        The keys that were deleted.
    """
    manifest = Manifest(store, prefix, pipeline)
    seen = [(key, parsed) for each in prefixes for key, parsed in _data_files(store, each)]
    entries = list(manifest.entries())  # after the listing, so that what was committed meanwhile is known
    epochs: dict[Partition, int] = {}
    for partition, _, entry in entries:
        epochs[partition] = max(entry.epoch, epochs.get(partition, 0))
    listed = {each.key for each in _files(entries)}
    waste = [key for key, (part, epoch) in seen if key not in listed and epoch < epochs.get(part, 0)]
    store.delete(waste)
    return waste


def data_key(prefix: str, partition: Partition, span: tuple[int, int], epoch: int) -> str:
    """Name a data file: what it holds and under which claim it was written."""
    return f"{prefix}/{partition.topic}/{partition.number:05d}/{span[0]:020d}-{span[1]:020d}-{epoch:010d}.parquet"


def _data_files(store: ObjectStore, prefix: str) -> Iterator[tuple[str, tuple[Partition, int]]]:
    for info in store.list(f"{prefix}/"):
        parts = info.key.removeprefix(f"{prefix}/").split("/")
        names = parts[-1].removesuffix(".parquet").split("-")
        if len(parts) == 3 and len(names) == 3 and parts[1].isdigit() and names[2].isdigit():  # noqa: PLR2004
            yield info.key, (Partition(parts[0], int(parts[1])), int(names[2]))


def restarted(progress: Progress, *, start: int, incarnation: str) -> Progress:
    """Begin a partition anew, keeping its epoch."""
    return replace(Progress(offset=start), epoch=progress.epoch, incarnation=incarnation)


def entry_of(progress: Progress, partition: Partition, **more: Any) -> Entry:
    """Write progress as an entry."""
    return Entry(
        topic=partition.topic,
        partition=partition.number,
        offset=progress.offset,
        log_end=progress.log_end,
        incarnation=progress.incarnation,
        **more,
    )
