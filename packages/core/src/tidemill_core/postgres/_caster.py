"""What all casts share: their form, how they refuse, and the checks of text and size."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kind

from tidemill_core.postgres.errors import ColumnRefused

if TYPE_CHECKING:
    from tidemill_core.postgres.policy import Policy
    from tidemill_core.postgres.types import ColumnType

Caster = Callable[[pa.Array, "ColumnType", "Policy"], pa.Array]

MAX_FIELD_BYTES = (1 << 30) - 8192
"""PostgreSQL refuses a field of 1 GB; less a little for the row around it."""


def is_text(type_: pa.DataType) -> bool:
    """Tell whether an Arrow type is text."""
    return bool(kind.is_string(type_) or kind.is_large_string(type_))


def is_bytes(type_: pa.DataType) -> bool:
    """Tell whether an Arrow type is bytes."""
    return bool(kind.is_binary(type_) or kind.is_large_binary(type_) or kind.is_fixed_size_binary(type_))


def refuse(column: pa.Array, target: ColumnType, why: str = "give the column another type") -> ColumnRefused:
    """Say that a whole column cannot become its target."""
    return ColumnRefused(target.name, f"Arrow {column.type} cannot become {target.type} without a change; {why}")


def checked_text(column: pa.Array, target: ColumnType, policy: Policy) -> pa.Array:
    """Refuse (or strip) NULs, bad UTF-8, and text longer than the target's limit."""
    raw = pa.large_binary() if kind.is_large_string(column.type) else pa.binary()
    column = column.cast(raw).cast(column.type)  # no copy; checks the UTF-8, which files do not promise
    data = column.buffers()[2]
    if data is not None and re.search(b"\x00", memoryview(data)):
        if policy.nul == "strip":
            column = pc.replace_substring(column, "\x00", "")
        elif pc.any(pc.match_substring(column, "\x00"), min_count=0).as_py():
            raise ValueError("the text holds a NUL character, which PostgreSQL cannot keep")
    if target.length is not None:
        longest = pc.max(pc.utf8_length(column)).as_py()
        if longest is not None and longest > target.length:
            raise ValueError(f"the text has {longest} characters, {target.type} keeps {target.length}")
    check_size(column)
    return column


def check_size(column: pa.Array) -> None:
    """Refuse a value that is larger than a field of PostgreSQL.

    Raises:
        ValueError: One is.
    """
    if column.nbytes < MAX_FIELD_BYTES:
        return
    largest = pc.max(pc.binary_length(column)).as_py()
    if largest is not None and largest > MAX_FIELD_BYTES:
        raise ValueError(f"the value has {largest} bytes; PostgreSQL keeps less than 1 GB in a field")
