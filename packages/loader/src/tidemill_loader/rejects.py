"""Decide which rows are set aside, and when there are too many of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tidemill_core.postgres import faults

from tidemill_loader.errors import TooManyRejects
from tidemill_loader.ledger import MAX_TEXT, Reject

if TYPE_CHECKING:
    import pyarrow as pa
    from tidemill_core.postgres import ColumnType, Policy


class RejectLimit:
    """Counts the rejected rows of a whole load against `max_rejects`; shared by the workers."""

    def __init__(self, table: str, limit: int, already: int = 0) -> None:
        self.table, self.limit = table, limit
        self._count, self._lock = already, threading.Lock()

    def check(self, rejects: Sequence[Reject], where: str) -> None:
        """Say whether a unit may go on with these rejects so far.

        Raises:
            TooManyRejects: The load as a whole has more than it may.
        """
        with self._lock:
            if rejects and self._count + rows_of(rejects) > self.limit:
                raise TooManyRejects(self.table, self.limit, _shown(rejects[-1], where))

    def admit(self, rejects: Sequence[Reject], where: str) -> None:
        """Count a unit's rejects for good, just before its commit.

        Raises:
            TooManyRejects: As `check`.
        """
        with self._lock:
            if rejects and self._count + rows_of(rejects) > self.limit:
                raise TooManyRejects(self.table, self.limit, _shown(rejects[-1], where))
            self._count += rows_of(rejects)


def rows_of(rejects: Iterable[Reject]) -> int:
    """Count the rows; one row may be bad in several columns."""
    return len({each.row for each in rejects})


def _shown(reject: Reject, where: str) -> str:
    column = f", column {reject.column!r}" if reject.column else ""
    return f"{where}, row {reject.row}{column}: {reject.reason}"


def split(
    batch: pa.RecordBatch, targets: Mapping[str, ColumnType], policy: Policy
) -> tuple[pa.RecordBatch, list[Reject]]:
    """Part a batch into the rows that can be loaded and the rest (rows count within the batch)."""
    import pyarrow as pa

    found = sorted(faults(batch, targets, policy), key=lambda fault: fault.row)
    bad = {fault.row for fault in found}
    rejects = [Reject(row=f.row, column=f.column, reason=f.reason, record=record_of(batch, f.row)) for f in found]
    return batch.filter(pa.array([row not in bad for row in range(batch.num_rows)])), rejects


def record_of(batch: pa.RecordBatch, row: int) -> str:
    """Write one row for a person: names and values, cut where they are long."""
    parts = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parts.append(f"{name}={_spelled(column.slice(row, 1))[:200]}")
    return ", ".join(parts)[:MAX_TEXT]


def _spelled(value: pa.Array) -> str:
    """Write one value; bytes that are no UTF-8 in a text are marked, not fatal."""
    import pyarrow as pa

    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
        raw = value.cast(pa.large_binary())[0].as_py()
        return "null" if raw is None else repr(raw.decode("utf-8", "replace"))
    return str(value.to_string(skip_new_lines=True))[1:-1].strip()


def actual_row(position: int, skipped: Sequence[int]) -> int:
    """Number a row in its file: its place among the readable ones, moved by the unreadable ones before it.

    Args:
        position: Place among the readable rows, from 0.
        skipped: Numbers of the unreadable rows, ascending.
    """
    for bad in skipped:
        if bad > position:
            break
        position += 1
    return position
