"""Turn upstream records into rows: compiled once per stream, then a few calls per record.

A row is the canonical value of every field in declared order, then `_extra` (JSON text
of what no field declares, or None) and `_doc` (the record as it is served, encoded
once, so that readers never pay for it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.errors import RecordRejected
from tidemill_ingest_api.paths import dig
from tidemill_ingest_api.records import exact
from tidemill_ingest_api.records.kinds import KINDS, without_nul
from tidemill_ingest_api.records.protect import Protector

Row = tuple[Any, ...]
Getter = Callable[[Mapping[str, Any]], Any]
_DOC_OPTIONS = orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattener:
    """A compiled stream."""

    flatten: Callable[[Any], Row]
    """Record to row; raises RecordRejected."""
    key_of: Callable[[Row], tuple[Any, ...]]
    """Row to primary key."""
    names: tuple[str, ...]
    """Field names in row order, without `_extra` and `_doc`."""
    protected: Callable[[Any], Any]
    """A record as it may be shown: its `protect` applied; None for what no rule can be applied to."""
    unmet: Callable[[], tuple[str, ...]]
    """Paths of `protect` that no record had so far."""


def compile_stream(stream: StreamConfig) -> Flattener:
    """Build the functions that flatten a stream's records.

    >>> from tidemill_ingest_api.config import StreamConfig
    >>> stream = StreamConfig(name="s", primary_key=["id"], fields={"id": "int64", "user__login": "string"})
    >>> compile_stream(stream).flatten({"id": 1, "user": {"login": "ada", "age": 36}})
    (1, 'ada', '{"user":{"age":36}}', b'{"id":1,"user__login":"ada"}')
    """
    names = tuple(stream.fields)
    paths = {name: field_path(name, field.path) for name, field in stream.fields.items()}
    getters = tuple(_getter(paths[name], KINDS[field.type].convert) for name, field in stream.fields.items())
    keys = tuple(names.index(name) for name in stream.primary_key)
    encode = _encoder(stream)
    extra_of = _extra(stream, list(paths.values()))
    protector = Protector(stream.protect) if stream.protect else None

    def flatten(record: Any) -> Row:
        if not isinstance(record, dict):
            raise RecordRejected(stream.name, "", f"a record is a JSON object, this is {type(record).__name__}")
        if protector is not None:
            record = protector.apply(record)
        try:
            values = [get(record) for get in getters]
        except (ValueError, TypeError, AttributeError):
            raise _explain(stream, dict(zip(names, getters, strict=True)), record) from None
        for index in keys:
            if values[index] is None:
                raise RecordRejected(stream.name, names[index], "a primary key must not be null or missing")
        try:
            return (*values, extra_of(record), encode(values))
        except (TypeError, RecursionError) as error:
            raise RecordRejected(stream.name, "", f"it cannot be written as JSON: {error}") from None

    def protected(record: Any) -> Any:
        if protector is None:
            return record
        return protector.apply(record) if isinstance(record, dict) else None

    return Flattener(
        flatten=flatten,
        key_of=lambda row: tuple(row[index] for index in keys),
        names=names,
        protected=protected,
        unmet=protector.unmet if protector else tuple,
    )


def field_path(name: str, path: str | None) -> tuple[str, ...]:
    """Split a field's path; without one, ``__`` in the name is a dot."""
    return tuple(path.split(".")) if path else tuple(name.split("__"))


def _getter(path: tuple[str, ...], convert: Callable[[Any], Any]) -> Getter:
    if len(path) == 1:
        key = path[0]

        def top(record: Mapping[str, Any]) -> Any:
            value = record.get(key)
            return None if value is None else convert(value)

        return top

    def nested(record: Mapping[str, Any]) -> Any:
        value = dig(record, path)
        return None if value is None else convert(value)

    return nested


def _explain(stream: StreamConfig, getters: Mapping[str, Getter], record: Any) -> RecordRejected:
    for name, get in getters.items():
        try:
            get(record)
        except (ValueError, TypeError, AttributeError) as error:
            return RecordRejected(stream.name, name, str(error))
    return RecordRejected(stream.name, "", "the record changed while it was read")


def _encoder(stream: StreamConfig) -> Callable[[list[Any]], bytes]:
    """Build the function that writes `_doc`; json fields are already text and go in as they are."""
    names = tuple(stream.fields)
    raw = tuple(index for index, field in enumerate(stream.fields.values()) if field.type == "json")

    def plain(values: list[Any]) -> bytes:
        return orjson.dumps(dict(zip(names, values, strict=True)), option=_DOC_OPTIONS)

    def with_json(values: list[Any]) -> bytes:
        parts = list(values)
        for index in raw:
            if parts[index] is not None:
                parts[index] = orjson.Fragment(parts[index])
        return plain(parts)

    return with_json if raw else plain


def _extra(stream: StreamConfig, paths: list[tuple[str, ...]]) -> Callable[[dict[str, Any]], str | None]:
    if stream.on_unknown == "ignore":
        return lambda _record: None
    known: dict[str, Any] = {}
    for path in paths:
        _declare(known, path)
    top = known.keys()
    is_flat = all(below is None for below in known.values())

    def extra_of(record: dict[str, Any]) -> str | None:
        if is_flat and record.keys() <= top:
            return None
        rest = _residue(record, known)
        if not rest:
            return None
        if stream.on_unknown == "fail":
            raise RecordRejected(stream.name, ", ".join(sorted(rest)), "no such field is declared (on_unknown: fail)")
        text = exact.dumps(rest, sort_keys=True)
        if b"\\u0000" in text:
            text = exact.dumps(without_nul(rest), sort_keys=True)
        return text.decode()

    return extra_of


def _declare(known: dict[str, Any], path: tuple[str, ...]) -> None:
    head, *tail = path
    if not tail:
        known[head] = None
    elif head not in known or known[head] is not None:
        _declare(known.setdefault(head, {}), tuple(tail))


def _residue(record: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    rest = {}
    for key, value in record.items():
        if key not in known:
            rest[key] = value
        elif (below := known[key]) is not None and isinstance(value, dict):
            inner = _residue(value, below)
            if inner:
                rest[key] = inner
    return rest
