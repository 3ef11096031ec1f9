"""Dotted paths into a JSON value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def dig(value: Any, path: Iterable[str]) -> Any:
    """Follow a path through objects (by key) and lists (by number); None where it ends early."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def planted(value: Any, path: str, leaf: Any) -> dict[str, Any]:
    """Copy an object with one value set at a dotted path; objects on the way are made.

    >>> planted({"query": {"size": 5}}, "query.after", "x")
    {'query': {'size': 5, 'after': 'x'}}
    """
    head, _, rest = path.partition(".")
    base = dict(value) if isinstance(value, dict) else {}
    base[head] = planted(base.get(head), rest, leaf) if rest else leaf
    return base
