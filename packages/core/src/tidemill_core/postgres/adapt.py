"""Cast Arrow columns to what the binary encoder writes for a target column: exactly, or not at all.

`encode_column` answers a column the encoder takes as it stands. A value that would
change on its way (out of range, digits lost, no such instant, a NUL in text) is
refused by column and row; `faults` lists every such row, so that they can be set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemill_core.postgres.errors import ColumnRefused, ValueRefused
from tidemill_core.postgres.policy import Policy

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_core.postgres.types import ColumnType


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One value that cannot be loaded; `row` counts from 0 in the batch."""

    row: int
    column: str
    reason: str


def encode_column(column: pa.Array, target: ColumnType, policy: Policy | None = None) -> pa.Array:
    """Cast one column for the encoder.

    Raises:
        ColumnRefused: The source type has no exact way to the target's type.
        ValueRefused: A value has none; the row counts from 0 in `column`.
    """
    cast = _cast_for(target, policy or Policy())
    try:
        return cast(column)
    except _bad_value() as error:
        row = _first_bad(cast, column)
        if row is None:
            raise ColumnRefused(target.name, f"{column.type} into {target.type}: {error}") from error
        reason = _reason(cast, column, row)
        raise ValueRefused(target.name, row, reason) from error


def faults(batch: pa.RecordBatch, targets: Mapping[str, ColumnType], policy: Policy | None = None) -> Iterator[Fault]:
    """List every value of a batch that `encode_column` would refuse, column by column.

    Raises:
        ColumnRefused: A whole column's type has no way to its target's.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        cast = _cast_for(targets[name], policy or Policy())
        for row in _all_bad(cast, column, 0):
            yield Fault(row=row, column=name, reason=_reason(cast, column, row))


Cast = Callable[["pa.Array"], "pa.Array"]


def _cast_for(target: ColumnType, policy: Policy) -> Cast:
    from tidemill_core.postgres.casts import cast_to

    return lambda column: cast_to(column, target, policy)


def _bad_value() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, ArithmeticError)


def _works(cast: Cast, column: pa.Array) -> bool:
    try:
        cast(column)
    except _bad_value():
        return False
    return True


def _first_bad(cast: Cast, column: pa.Array) -> int | None:
    start, rows = 0, len(column)
    if rows == 0 or _works(cast, column):
        return None
    while rows > 1:
        half = rows // 2
        if _works(cast, column.slice(start, half)):
            start, rows = start + half, rows - half
        else:
            rows = half
    return start


def _all_bad(cast: Cast, column: pa.Array, offset: int) -> Iterator[int]:
    if len(column) == 0 or _works(cast, column):
        return
    if len(column) == 1:
        yield offset
        return
    half = len(column) // 2
    yield from _all_bad(cast, column.slice(0, half), offset)
    yield from _all_bad(cast, column.slice(half), offset + half)


def _reason(cast: Cast, column: pa.Array, row: int) -> str:
    try:
        cast(column.slice(row, 1))
    except _bad_value() as error:
        return " ".join(str(error).split())
    return "refused together with its neighbours"
