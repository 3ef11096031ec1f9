"""Reach the values of a record by path, the same way in a typed struct and in a plain JSON object.

Every JSON name has one attribute name, so that compiled code reads ``r.f_origin``
whether the record came from the fast typed decoder or from the second look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_]+")


_PART = re.compile(r"(?:[^.\\]|\\.)*", re.DOTALL)


@lru_cache(maxsize=4096)
def split_path(path: str) -> tuple[str, ...]:
    r"""Split a path at its dots; ``\.`` is a dot in a name, ``\\`` a backslash: ``resource.service\.name``."""
    parts, at = [], 0
    while True:
        match = _PART.match(path, at)
        assert match is not None
        parts.append(re.sub(r"\\(.)", r"\1", match[0], flags=re.DOTALL))
        if match.end() >= len(path):
            return tuple(parts)
        at = match.end() + 1


def join_path(names: Iterable[str]) -> str:
    """Write names as a path that `split_path` reads back."""
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)


def attribute(name: str) -> str:
    """Name the attribute that holds the JSON field `name`."""
    return f"f_{name}" if _PLAIN.fullmatch(name) else f"x_{name.encode().hex()}"


def access(path: str, record: str = "r") -> str:
    """Write the Python expression that reads `path`; None where a parent is null or missing."""
    expression, *rest = (record, *split_path(path))
    for depth, name in enumerate(rest):
        inner = f"{expression}.{attribute(name)}"
        expression = inner if depth == 0 else f"(None if {expression} is None else {inner})"
    return expression


def compile_function(name: str, source: str, namespace: Mapping[str, Any]) -> Callable[..., Any]:
    """Turn source that we wrote ourselves (never a user's text) into a function."""
    scope = dict(namespace)
    exec(compile(source, f"<tidemill {name}>", "exec"), scope)  # noqa: S102 - built from checked parts only
    function: Callable[..., Any] = scope[name]
    return function


def reader(path: str) -> Callable[[Any], Any]:
    """Compile a function from a record to the value at `path`."""
    return compile_function("read", f"def read(r):\n    return {access(path)}\n", {})


class Loose:
    """A JSON object seen through attributes: what a record is when it did not come from the typed decoder."""

    __slots__ = ("__dict__", "raw")

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw


class Shape:
    """The paths that are needed of a record, as a tree."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._children: dict[str, list[str]] = {}
        for path in paths:
            head, *tail = split_path(path)
            self._children.setdefault(head, []).extend([join_path(tail)] if tail else [])
        self.fields = {
            name: (attribute(name), Shape(tails) if tails else None) for name, tails in self._children.items()
        }

    def loosen(self, value: Mapping[str, Any]) -> Loose:
        """See a JSON object through the attributes of this shape; what it lacks is None."""
        loose = Loose(value)
        for name, (attr, inner) in self.fields.items():
            found = value.get(name)
            if inner is not None:
                found = inner.loosen(found) if isinstance(found, Mapping) else None
            setattr(loose, attr, found)
        return loose


def dig(value: Any, path: str) -> Any:
    """Read `path` of a plain JSON object; None where anything on the way is missing."""
    for name in split_path(path):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def bury(value: dict[str, Any], path: str, new: Any) -> None:
    """Replace the value at `path`, which exists, of a plain JSON object."""
    *parents, last = split_path(path)
    for name in parents:
        value = value[name]
    value[last] = new
