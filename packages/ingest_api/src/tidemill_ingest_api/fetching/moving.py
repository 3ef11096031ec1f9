"""Notice that a list moved while it was read page by page: a record then can come twice, or never.

Page numbers and offsets name places, not records. When a record before the place that is read next
goes or comes, the others shift, and what shifts across the border between two pages is read twice
or is not read. Nothing but another reading can repair that.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from hashlib import blake2b

from tidemill_ingest_api.paging import Paging
from tidemill_ingest_api.paging._base import PlacePaging

_MASK = (1 << 128) - 1


class Reading:
    """What is remembered of one reading of a list: a page's keys, two totals and a digest."""

    def __init__(self, paging: Paging) -> None:
        self._paging = paging if isinstance(paging, PlacePaging) else None
        self._last: frozenset[Hashable] = frozenset()
        self._totals: list[int] = []
        self.records, self.digest = 0, 0
        self.is_partial = False
        self._moved = ""

    def take(self, keys: Collection[Hashable], *, records: int, total: int | None) -> None:
        """Add a page: the keys of its rows, its number of records, and the total it tells."""
        if self._paging is None:
            return
        page = frozenset(keys)
        if not self._moved and page & self._last:
            self._moved = f"record {min(page & self._last, key=repr)} came on two pages"
        self._last = page
        self.records += records
        if total is not None:
            self._totals = [*self._totals[:1], total]
        if self._paging.verify:
            for key in page:
                self.digest = (self.digest + _digest(key)) & _MASK

    def skip(self) -> None:
        """A page did not change (304): its records are not known here."""
        self._last, self.is_partial = frozenset(), True

    def moved(self) -> str:
        """Say how the reading shows that the list moved; empty when it does not."""
        if self._paging is None or self._moved:
            return self._moved
        if self._totals[1:] and self._totals[0] != self._totals[-1]:
            return f"the total went from {self._totals[0]} to {self._totals[-1]}"
        return ""

    def misfit(self) -> tuple[int, int] | None:
        """Give the records that came and the total that was told, where they differ."""
        if self._paging is None or self._paging.counts_pages or self.is_partial or not self._totals:
            return None
        return (self.records, self._totals[-1]) if self.records != self._totals[-1] else None

    def again(self, before: Reading | None) -> str:
        """Say why the list must be read again; empty when this reading holds."""
        moved, misfit = self.moved(), self.misfit()
        # An API whose total is always wrong differs the same way twice; a list that moved does not.
        if not moved and misfit and (before is None or before.misfit() != misfit):
            moved = f"{misfit[0]} records came of a total of {misfit[1]}"
        if moved or self._paging is None or not self._paging.verify:
            return moved
        if before is None or self.is_partial or before.is_partial:
            return "paginate.verify asks for a second reading"
        same = (self.records, self.digest) == (before.records, before.digest)
        return "" if same else "two readings found different records"


def _digest(key: Hashable) -> int:
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=16).digest())


__all__ = ["Reading"]
