"""Decide which units are left to load, by what the ledger holds of each file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tidemill_loader.errors import RangesDiffer

if TYPE_CHECKING:
    from tidemill_loader.plan import Task

Place = tuple[int | None, int | None]
"""First byte of a unit and the one behind its last; nothing for a unit that is no range."""
Done = Mapping[tuple[str, str], Mapping[int, Place]]
"""By URL and etag: the units that are loaded, by their number."""


def units_left(tasks: Sequence[Task], done: Done) -> list[Task]:
    """List the tasks whose rows are not loaded yet.

    A file may have been loaded as other ranges than it is cut into now (another size of them, another
    quote, or an older version that cut none). If those were the whole file, nothing of it is left.

    Raises:
        RangesDiffer: They were a part of it, so that what is left is no unit of now.
    """
    left: list[Task] = []
    for at, group in groupby(tasks, key=lambda task: (task.source.url, task.source.etag)):
        left += _left_of_file(list(group), done.get(at, {}))
    return left


def _left_of_file(tasks: Sequence[Task], done: Mapping[int, Place]) -> Iterable[Task]:
    planned = {task.unit.index: (task.unit.start, task.unit.end) for task in tasks}
    if all(planned.get(index) == place for index, place in done.items()):
        return [task for task in tasks if task.unit.index not in done]
    source = tasks[0].source
    if _covers(done.values(), source.size_bytes):
        return ()
    raise RangesDiffer(source.url, len(done))


def _covers(places: Iterable[Place], size: int) -> bool:
    """Tell whether units are a whole file: one that is no range, or ranges (of one cut) from end to end."""
    at = 0
    for start, end in sorted((start or 0, size if end is None else end) for start, end in places):
        if start != at:
            return False
        at = end
    return at == size
