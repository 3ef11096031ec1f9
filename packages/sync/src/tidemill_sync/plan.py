"""Compare two sorted listings and what earlier runs noted, and decide what each key needs. Pure and streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from operator import lt
from typing import Generic, Literal, NamedTuple, TypeVar

from tidemill_core.storage import ObjectInfo, Page, pages_of

from tidemill_sync.errors import ListingUnsorted

Kind = Literal["copy", "replace", "compare", "delete", "skip", "forget"]
"""``compare`` reads both sides to decide; ``forget`` drops a note about a key that neither side has."""


SIZE_DIFFERS = "size differs"
_WIDEST, _NARROWEST = 1_024, 8
"""Keys that are compared at once, at most and at least."""


class Entry(NamedTuple):
    """A note of an earlier run: with these etags the target held what the source held.

    A tuple, as millions are read: it is made from a row of the manifest in a quarter of a dataclass's time.
    """

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
    # Pages of one, so that no more of an endless listing is read than is decided.
    one = pages_of(source, page_keys=1), pages_of(target, page_keys=1)
    yield from plan_pages(one[0], one[1], entries, prune=prune, names=names)


def plan_pages(
    source: Iterable[Page],
    target: Iterable[Page],
    entries: Iterable[Entry] = (),
    *,
    prune: bool = False,
    names: tuple[str, str] = ("source", "target"),
    unchanged: Callable[[int], None] | None = None,
) -> Iterator[Action]:
    """Merge as `plan` does, from pages; windows in which nothing has changed are compared at once.

    Args:
        source: Pages of the source's listing.
        target: Pages of the target's listing.
        entries: As for `plan`.
        prune: As for `plan`.
        names: As for `plan`.
        unchanged: Told how many keys in a row are unchanged, in place of an action for each.

    Raises:
        ListingUnsorted: As for `plan`.
    """
    sources, targets = _Feed(source, names[0]), _Feed(target, names[1])
    notes = _Feed(_pages_of_notes(entries), "the manifest")
    window = _Window()
    while True:
        if unchanged is not None and (count := window.pass_equal(sources, targets, notes)):
            unchanged(count)
        heads = [each.key for each in (sources, targets, notes) if each.key is not None]
        if not heads:
            return
        key = min(heads)
        found, held, noted = sources.take(key), targets.take(key), notes.take(key)
        action = decide(
            key,
            None if found is None else found.page.info(found.index),
            None if held is None else held.page.info(held.index),
            None if noted is None else _entry_at(noted),
            prune=prune,
        )
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


def taking(pages: Iterable[Page], takes: Callable[[str], bool]) -> Iterator[Page]:
    """Leave out what a filter does not take."""
    for page in pages:
        kept = [index for index, key in enumerate(page.keys) if takes(key)]
        if len(kept) == len(page.keys):
            yield page
        elif kept:
            yield _chosen(page, kept)


def _chosen(page: Page, kept: list[int]) -> Page:
    return Page(
        keys=[page.keys[index] for index in kept],
        sizes_bytes=[page.sizes_bytes[index] for index in kept],
        etags=[page.etags[index] for index in kept],
        info=lambda index: page.info(kept[index]),
    )


@dataclass(frozen=True, slots=True)
class _Notes:
    """A page of notes by columns."""

    keys: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    etags: tuple[str | None, ...]
    target_etags: tuple[str | None, ...]


def _pages_of_notes(entries: Iterable[Entry]) -> Iterator[_Notes]:
    remaining = iter(entries)
    while rows := list(islice(remaining, _WIDEST)):
        yield _Notes(*zip(*rows, strict=True))


P = TypeVar("P", Page, _Notes)


@dataclass(frozen=True, slots=True)
class _At(Generic[P]):
    """One row of a page."""

    page: P
    index: int


def _entry_at(row: _At[_Notes]) -> Entry:
    page, index = row.page, row.index
    return Entry(page.keys[index], page.sizes_bytes[index], page.etags[index], page.target_etags[index])


class _Feed(Generic[P]):
    """The next row of pages whose keys must ascend; `key` is None at their end."""

    def __init__(self, pages: Iterable[P], place: str) -> None:
        self._pages: Iterator[P] = iter(pages)
        self._place = place
        self._last: str | None = None
        self.page: P | None = None
        self.at = 0
        self.key: str | None = None
        self.go_on(0)

    @property
    def left(self) -> int:
        """Rows of the current page that are still to come."""
        return 0 if self.page is None else len(self.page.keys) - self.at

    def take(self, key: str) -> _At[P] | None:
        """Give the next row if it has this key, and go on."""
        if self.key != key or self.page is None:
            return None
        row = _At(self.page, self.at)
        self.go_on(1)
        return row

    def go_on(self, count: int) -> None:
        """Pass over `count` rows of the current page."""
        self.at += count
        while self.page is None or self.at >= len(self.page.keys):
            self.page, self.at = next(self._pages, None), 0
            if self.page is None:
                self.key = None
                return
            self._check_order(self.page.keys)
        self.key = self.page.keys[self.at]

    def _check_order(self, keys: Sequence[str]) -> None:
        if keys and self._last is not None and keys[0] <= self._last:
            raise ListingUnsorted(self._place, self._last, keys[0])
        if not all(map(lt, keys, islice(keys, 1, None))):
            before, after = next(pair for pair in pairwise(keys) if pair[0] >= pair[1])
            raise ListingUnsorted(self._place, before, after)
        self._last = keys[-1] if keys else self._last


class _Window:
    """Passes over rows that are the same on both sides and in the notes: many at once while nothing differs."""

    def __init__(self) -> None:
        self._width = _WIDEST

    def pass_equal(self, sources: _Feed[Page], targets: _Feed[Page], notes: _Feed[_Notes]) -> int:
        """Pass over as many rows as are unchanged from here on; gives how many."""
        passed = 0
        while sources.key is not None and sources.key == targets.key == notes.key:
            count = min(self._width, sources.left, targets.left, notes.left)
            if _are_equal(sources, targets, notes, count):
                for each in (sources, targets, notes):
                    each.go_on(count)
                passed += count
                self._width = min(self._width * 2, _WIDEST)
            elif count <= _NARROWEST:
                return passed
            else:
                self._width = max(count // 2, _NARROWEST)
        return passed


def _are_equal(sources: _Feed[Page], targets: _Feed[Page], notes: _Feed[_Notes], count: int) -> bool:
    """Tell whether the next rows of all three are the same; a missing etag is like no other."""
    source, target, note = sources.page, targets.page, notes.page
    assert source is not None
    assert target is not None
    assert note is not None
    ours = slice(sources.at, sources.at + count)
    theirs = slice(targets.at, targets.at + count)
    noted = slice(notes.at, notes.at + count)
    keys, sizes = list(note.keys[noted]), list(note.sizes_bytes[noted])
    etags, target_etags = list(note.etags[noted]), list(note.target_etags[noted])
    return (
        list(source.keys[ours]) == keys == list(target.keys[theirs])
        and list(source.etags[ours]) == etags
        and list(target.etags[theirs]) == target_etags
        and list(source.sizes_bytes[ours]) == sizes == list(target.sizes_bytes[theirs])
        and None not in etags
        and None not in target_etags
    )
