"""JSON with whole numbers of any size: the fast parser makes floats of those beyond 64 bits, and loses their digits."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_MAYBE_BIG = re.compile(rb"\d{19}")
"""Nineteen digits in a row: a whole number that may not fit 64 bits, or only text or a fraction."""


def loads(text: bytes | str) -> Any:
    """Read a JSON document; whole numbers are exact.

    Raises:
        json.JSONDecodeError: It is no JSON (orjson's error, which is one).
        ValueError: A whole number has more than 4,300 digits.
        RecursionError: It holds big numbers, and is nested deeper than the exact parser goes.
    """
    found = orjson.loads(text)
    raw = text.encode() if isinstance(text, str) else text
    return json.loads(raw) if _MAYBE_BIG.search(raw) else found


def dumps(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write a JSON document, compact; whole numbers are exact.

    Raises:
        TypeError: A value is none of JSON's, or nested deeper than 254 levels.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError as error:
        if "64-bit" not in str(error):
            raise  # nested too deep, or no JSON value
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys).encode()
