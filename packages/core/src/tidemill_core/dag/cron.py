"""Check cron lines and time zones, as a rule without loading a scheduler."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

_MACROS = frozenset({"@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually", "@midnight"})
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_PART = re.compile(r"^(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\w+))?$")
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def check_cron(line: str) -> str:
    """Return `line` if Dagster's scheduler takes it.

    Lines of the plain grammar (numbers, names, ranges, lists, steps) are known to be right without loading
    Dagster. Of any other line the scheduler's own check decides; without Dagster, this grammar.

    Raises:
        ValueError: Says which field is wrong and what it may hold.
    """
    try:
        _check_plain(line)
    except ValueError:
        if not _is_taken_by_scheduler(line):
            raise
    return line


def _is_taken_by_scheduler(line: str) -> bool:
    if find_spec("dagster") is None:
        return False
    from tidemill_core.defs.cron import is_valid_cron

    return is_valid_cron(line)


def _check_plain(line: str) -> None:
    if line.lower() in _MACROS:
        return
    parts = line.split()
    if len(parts) != len(_FIELDS):
        names = " ".join(name for name, *_ in _FIELDS)
        raise ValueError(f"bad cron {line!r}: {len(_FIELDS)} fields expected ({names}), {len(parts)} found")
    values = [
        _values(text, name, low, high, names) for text, (name, low, high, names) in zip(parts, _FIELDS, strict=True)
    ]
    days, months = values[2], values[3]
    if all(min(days) > _LONGEST_MONTH.get(month, 31) for month in months):
        raise ValueError(f"bad cron {line!r}: no such day in these months, it would never run")


def check_crons(lines: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Return one line, or several, if each can ever fire.

    Raises:
        ValueError: Says which field of which line is wrong, or that two lines are the same.
    """
    if isinstance(lines, str):
        return check_cron(lines)
    for index, line in enumerate(lines):
        check_cron(line)
        if line in lines[:index]:
            raise ValueError(f"the cron line {line!r} is there twice")
    return lines


def check_timezone(name: str) -> str:
    """Return `name` if it is an IANA time zone.

    Raises:
        ValueError: No such zone is known here.
    """
    try:
        datetime.now(UTC).astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"unknown time zone {name!r}; use an IANA name such as Europe/Berlin") from error
    return name


CronLine = Annotated[str, AfterValidator(check_cron)]
"""A cron line, for configurations of components with a schedule."""
TimeZoneName = Annotated[str, AfterValidator(check_timezone)]
"""An IANA time zone."""


def _values(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part)
        if match is None:
            raise ValueError(f"bad cron {name} {text!r}: {part!r} is not a number, range or step")
        first = _number(match["low"], name, low, high, names) if match["low"] else low
        if match["high"]:
            last = _number(match["high"], name, low, high, names)
        else:
            last = first if match["low"] and not match["step"] else high
        step = _number(match["step"], f"{name} step", 1, high, ()) if match["step"] else 1
        if first > last:
            raise ValueError(f"bad cron {name} {text!r}: {part!r} runs backwards")
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    if not text.isdecimal() or not low <= int(text) <= high:
        words = f" or {names[0]}..{names[-1]}" if names else ""
        raise ValueError(f"bad cron {name} {text!r}: {low}..{high}{words} expected")
    return int(text)
