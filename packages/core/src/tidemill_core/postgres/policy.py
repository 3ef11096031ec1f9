"""What may change on the way of a value into a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rounding = Literal["error", "floor", "round"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may change on the way into a table; by default nothing.

    Attributes:
        nanoseconds: PostgreSQL keeps microseconds. Whole microseconds always pass;
            others are refused, floored, or rounded half up.
        digits: Digits beyond the target's scale, and doubles into real: refused or rounded.
        timezone: Zone to read or write local times in where only one side has a
            zone; None refuses such columns.
        nul: NUL characters, which PostgreSQL text cannot hold: refused or removed.
    """

    nanoseconds: Rounding = "error"
    digits: Literal["error", "round"] = "error"
    timezone: str | None = None
    nul: Literal["error", "strip"] = "error"
