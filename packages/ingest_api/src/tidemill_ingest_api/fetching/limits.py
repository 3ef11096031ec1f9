"""Read what an API says about its limits: Retry-After, X-RateLimit-* and the RateLimit fields of the IETF draft."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ITEM = re.compile(r";\s*([rt])\s*=\s*(\d+)")
_PAIR = re.compile(r"\b(remaining|reset)\s*=\s*(\d+)")


def retry_after_s(value: str | None, now: float) -> float | None:
    """Read a Retry-After header (RFC 9110): seconds or a date; None when absent or unreadable.

    >>> retry_after_s("120", 0.0)
    120.0
    >>> retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 0.0)
    60.0
    """
    if not value:
        return None
    if is_number(value):
        return max(0.0, float(value))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())


def ratelimit_reset_s(headers: Mapping[str, str]) -> float | None:
    """Read the RateLimit fields of draft-ietf-httpapi-ratelimit-headers, of its first form to its tenth.

    Args:
        headers: Names in lower case.

    Returns:
        Seconds until requests are allowed again, the longest of all policies without any left; None while there are.

    >>> ratelimit_reset_s({"ratelimit": '"minute";r=0;t=12, "day";r=900;t=40000'})
    12.0
    >>> ratelimit_reset_s({"ratelimit-remaining": "0", "ratelimit-reset": "7"})
    7.0
    """
    waits: list[float] = []
    value = _QUOTED.sub('""', headers.get("ratelimit", ""))
    for item in value.split(","):
        told = dict(_ITEM.findall(item))
        _add(waits, told.get("r"), told.get("t"))
    told = dict(_PAIR.findall(value))
    _add(waits, told.get("remaining"), told.get("reset"))
    _add(waits, headers.get("ratelimit-remaining"), headers.get("ratelimit-reset"))
    return max(waits, default=None)


def is_number(text: str) -> bool:
    """Whether a header holds a plain number that is not negative."""
    return text.isascii() and text.strip().replace(".", "", 1).isdigit()


def _add(waits: list[float], left: str | None, reset: str | None) -> None:
    if left is not None and reset is not None and left.strip() == "0" and is_number(reset):
        waits.append(float(reset))


__all__ = ["is_number", "ratelimit_reset_s", "retry_after_s"]
