"""Know frames as values: what a traced call returned, and what it is called when another takes it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tidemill_lineage.model import DatasetUrn

_MOST_PARTS = 64
"""Frames looked for in a list, tuple or dict; more are taken to be alike."""
_TABLES = frozenset({"DataFrame", "Series", "Table", "RecordBatch", "DuckDBPyRelation"})
_MODULES = frozenset({"pandas", "pyarrow", "duckdb", "_duckdb"})


class Values:
    """A weak registry: it keeps no frame alive, and forgets one that is gone."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], DatasetUrn]] = {}

    def note(self, value: Any, urn: DatasetUrn) -> None:
        """Remember that a value holds a dataset; the last word on it counts."""
        number = id(value)

        def forget(gone: weakref.ref[Any]) -> None:
            # the number may have been given to another value meanwhile
            known = self._known.get(number)
            if known is not None and known[0] is gone:
                del self._known[number]

        try:
            self._known[number] = (weakref.ref(value, forget), urn)
        except TypeError:
            return  # a value that cannot be referred to weakly is not known later

    def urn_of(self, value: Any) -> DatasetUrn | None:
        """What a value holds, if a traced call returned it."""
        known = self._known.get(id(value))
        return known[1] if known is not None and known[0]() is value else None


VALUES = Values()
"""The frames of this process, whoever traced them."""

_KINDS: dict[type, str] = {}
_KNOWN_TYPES = 1_000


def kind_of(value: Any) -> str:
    """What a value is: a ``lazy`` or ``eager`` polars frame, a ``table`` of another library, a ``box`` of values.

    ``other`` is anything else. Nothing is imported; most types are met often, and remembered.
    """
    kind = _KINDS.get(type(value))
    if kind is None:
        kind = _kind_of(type(value))
        if len(_KINDS) < _KNOWN_TYPES:
            _KINDS[type(value)] = kind
    return kind


def are_plain(values: Iterable[Any]) -> bool:
    """Whether no value is a frame or may hold one; False, too, for types not met before."""
    known = _KINDS.get
    for each in values:  # noqa: SIM110  # a generator costs more than the loop, at every call
        if known(type(each)) != "other":
            return False
    return True


def frames_in(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the frames in a value: itself under an empty name, or those in a list, tuple or dict by their key."""
    kind = kind_of(value)
    if kind == "box":
        parts: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else enumerate(value)
        for number, (key, part) in enumerate(parts):
            if number >= _MOST_PARTS:
                return
            if kind_of(part) in ("lazy", "eager", "table"):
                yield str(key), part
    elif kind != "other":
        yield "", value


def columns_of_table(value: Any) -> list[tuple[str, str]]:
    """Names and types of a pandas, pyarrow or DuckDB table."""
    schema = getattr(value, "schema", None)
    if schema is not None and hasattr(schema, "types"):
        return [(str(name), str(kind)) for name, kind in zip(schema.names, schema.types, strict=True)]
    if type(value).__name__ == "Series":
        return [*_levels(value), (series_name(value), str(value.dtype))]
    types = getattr(value, "dtypes", None)
    names = [str(each) for each in getattr(value, "columns", ())]
    kinds = [str(each) for each in types] if types is not None else [""] * len(names)
    found = zip(names, kinds, strict=True) if len(names) == len(kinds) else ((name, "") for name in names)
    return [*_levels(value), *found]


def series_name(value: Any) -> str:
    """What the one column of a series is called."""
    return "value" if value.name is None else str(value.name)


def _levels(value: Any) -> list[tuple[str, str]]:
    """Levels of a pandas index that have names: they become columns when the frame is stored."""
    names = getattr(getattr(value, "index", None), "names", None) or ()
    return [(str(name), "") for name in names if name is not None]


def _kind_of(kind: type) -> str:
    for base in kind.__mro__:
        where, name = base.__module__.partition(".")[0], base.__name__
        if where == "polars" and name in ("LazyFrame", "DataFrame"):
            return "lazy" if name == "LazyFrame" else "eager"
        if where in _MODULES and name in _TABLES:
            return "table"
    return "box" if issubclass(kind, (list, tuple, dict)) else "other"
