"""Compare two sorted listings and what earlier runs noted, and decide what each key needs. Pure and streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from tidemill_core.storage import ObjectInfo

from tidemill_sync.errors import ListingUnsorted

Kind = Literal["copy", "replace", "compare", "delete", "skip", "forget"]
"""``compare`` reads both sides to decide; ``forget`` drops a note about a key that neither side has."""


class Keyed(Protocol):
    """Anything with a key."""

    @property
    def key(self) -> str:
        """The key it is sorted by."""
        ...


SIZE_DIFFERS = "size differs"

K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A note of an earlier run: with these etags the target held what the source held."""

    key: str
    size_bytes: int
    source_etag: str | None
    target_etag: str | None

    def describes(self, source: ObjectInfo, target: ObjectInfo) -> bool:
        """Tell whether neither side has changed since. A store without etags always has."""
        return (
            self.source_etag is not None
            and self.target_etag is not None
            and (self.source_etag, self.size_bytes) == (source.etag, source.size_bytes)
            and (self.target_etag, self.size_bytes) == (target.etag, target.size_bytes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What one key needs, and why. `source` and `target` are what the listings showed."""

    kind: Kind
    key: str
    reason: str
    source: ObjectInfo | None = None
    target: ObjectInfo | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that a copy moves, or that a delete removes."""
        info = self.source or self.target
        return info.size_bytes if info else 0


def plan(
    source: Iterable[ObjectInfo],
    target: Iterable[ObjectInfo],
    entries: Iterable[Entry] = (),
    *,
    prune: bool = False,
    names: tuple[str, str] = ("source", "target"),
) -> Iterator[Action]:
    """Merge two listings and the notes, ascending by key, in one pass and constant memory.

    Args:
        source: Objects of the source, ascending by key.
        target: Objects of the target, ascending by key.
        entries: Notes of earlier runs, ascending by key.
        prune: Delete what only the target has; else such keys are left out of the plan.
        names: What the two sides are called in errors.

    Yields:
        One action per key that any side has, ascending.

    Raises:
        ListingUnsorted: A listing is not strictly ascending; what was yielded before stands,
            but deletes among it must not be trusted.
    """
    sources = _Cursor(source, names[0])
    targets = _Cursor(target, names[1])
    notes = _Cursor(entries, "the manifest")
    while True:
        heads = [each.key for each in (sources, targets, notes) if each.key is not None]
        if not heads:
            return
        key = min(heads)
        action = decide(key, sources.take(key), targets.take(key), notes.take(key), prune=prune)
        if action is not None:
            yield action


def decide(
    key: str, source: ObjectInfo | None, target: ObjectInfo | None, entry: Entry | None, *, prune: bool
) -> Action | None:
    """Decide what one key needs; None leaves it alone."""

    def action(kind: Kind, reason: str) -> Action:
        return Action(kind=kind, key=key, reason=reason, source=source, target=target)

    if source is None:
        if target is None:
            return action("forget", "gone from both sides")
        return action("delete", "not in the source") if prune else None
    if target is None:
        return action("copy", "not in the target")
    if entry is not None and entry.describes(source, target):
        return action("skip", "unchanged")
    if source.size_bytes == target.size_bytes and entry is None:
        return action("compare", "not known yet")
    return action("replace", _difference(source, target, entry))


def _difference(source: ObjectInfo, target: ObjectInfo, entry: Entry | None) -> str:
    if entry is None or source.size_bytes != target.size_bytes:
        return SIZE_DIFFERS
    is_ours = (entry.source_etag, entry.size_bytes) == (source.etag, source.size_bytes)
    return "the target changed" if is_ours else "the source changed"


def taking(items: Iterable[K], takes: Callable[[str], bool]) -> Iterator[K]:
    """Leave out what a filter does not take."""
    return (item for item in items if takes(item.key))


class _Cursor(Generic[K]):
    """The next item of a stream that must ascend; `key` is None at its end."""

    def __init__(self, items: Iterable[K], place: str) -> None:
        self._items, self._place = iter(items), place
        self._head: K | None = None
        self.key: str | None = None
        self._advance()

    def take(self, key: str) -> K | None:
        """Give the next item if it has this key, and go on."""
        if self.key != key:
            return None
        item = self._head
        self._advance()
        return item

    def _advance(self) -> None:
        before = self.key
        self._head = next(self._items, None)
        self.key = None if self._head is None else self._head.key
        if before is not None and self.key is not None and self.key <= before:
            raise ListingUnsorted(self._place, before, self.key)
