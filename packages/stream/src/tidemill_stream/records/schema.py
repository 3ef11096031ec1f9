"""Decide whether a message is a valid record: a strict typed decoder first, a full validator for what it refuses.

The typed decoder (see `schema_types`) never accepts what the schema forbids, so the slow
path, orjson and jsonschema-rs, sees only invalid records and rare spellings such as
``1.0`` for an integer. Both paths give records that compiled code reads the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import orjson

from tidemill_stream.config import ColumnType, SchemaConfig
from tidemill_stream.errors import SchemaInvalid
from tidemill_stream.records.event_time import time_parser
from tidemill_stream.records.fields import Shape, bury, dig, join_path, split_path
from tidemill_stream.records.schema_files import Refs, read_schema_file
from tidemill_stream.records.schema_types import INT64_MAX, INT64_MIN, NotCompilable, compile_type

_REFUSED_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89aAbB])")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a message is not a record: a short reason, the path in the document, and the explanation."""

    reason: str
    message: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """A field that an output, a key or an aggregate reads, and the type it must have."""

    path: str
    type: ColumnType
    format: str = "iso8601"


class RecordDecoder:
    """Decodes messages to records.

    Args:
        schema: The JSON Schema, or None to accept any object.
        needs: Fields whose values must fit an output's type.
        paths: Every field that compiled code reads.
        formats: Treat `format` as a rule.
        refs: Reads what a `$ref` outside of the schema names; without it nothing is read.

    Attributes:
        fast: The typed decoder, or None when the schema or the needs have no exact type.
    """

    def __init__(
        self,
        schema: Mapping[str, Any] | None,
        *,
        needs: Sequence[Need] = (),
        paths: Sequence[str] = (),
        formats: bool = False,
        refs: Refs | None = None,
    ) -> None:
        self._needs = tuple(needs)
        self._shape = Shape([*paths, *(need.path for need in needs)])
        self._validator = None if schema is None else _validator(schema, formats=formats, refs=refs or Refs())
        self._times = {need.path: time_parser(need.format) for need in needs if need.type == "timestamp"}
        self.fast: Callable[[bytes], Any] | None = None
        if schema is not None and all(_is_ensured(schema, need) for need in needs):
            self.fast = _fast_decoder(schema, [*paths, *(need.path for need in needs)], formats=formats)

    def decode(self, raw: bytes | None) -> Any:
        """Decode one message; the result is a `Fault` if it is invalid."""
        if raw is None:
            return Fault("null_value", "the message has no value")
        if self.fast is not None and not suspicious(raw):
            try:
                return self.fast(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return self.second_look(raw)
        return self.second_look(raw)

    def second_look(self, raw: bytes) -> Any:
        """Decide about a message with the full validator."""
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return Fault("malformed", str(error))
        if self._validator is not None:
            fault = self._against_schema(value)
            if fault is not None:
                return fault
        if not isinstance(value, dict):
            return Fault("invalid", f"a record must be an object, not {type(value).__name__}")
        for need in self._needs:
            fault = self._unfit(value, need)
            if fault is not None:
                return fault
        return self._shape.loosen(value)

    def _against_schema(self, value: Any) -> Fault | None:
        assert self._validator is not None
        error = next(iter(self._validator.iter_errors(value)), None)
        if error is None:
            return None
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        return Fault("invalid", str(error.message)[:500], "$" + path)

    def _unfit(self, record: dict[str, Any], need: Need) -> Fault | None:
        """Tell why a value does not fit its column; a whole float for an integer is made one."""
        value = dig(record, need.path)
        if value is None:
            return None
        if need.type == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
            bury(record, need.path, value)
        if fits(value, need.type, self._times.get(need.path)):
            return None
        return unfit(value, need.type, need.path)


def unfit(value: Any, kind: str, path: str) -> Fault:
    """Word the fault of a value that no column of its type can hold."""
    return Fault("unfit", f"{str(value)[:100]!r} does not fit a column of type {kind}", f"$.{path}")


def fits(value: Any, kind: ColumnType, parse_time: Callable[[Any], int | None] | None = None) -> bool:
    """Tell whether a JSON value can be stored in a column of type `kind`."""
    if kind == "string":
        return isinstance(value, str) and "\x00" not in value
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "timestamp":
        return parse_time is not None and parse_time(value) is not None
    return b"\\u0000" not in orjson.dumps(value)


def suspicious(raw: bytes) -> bool:
    """Tell whether the typed decoder might overlook something: bad UTF-8 in skipped fields, NUL, lone surrogates."""
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError:
            return True
    return b"\\u" in raw and _REFUSED_ESCAPE.search(raw) is not None


def schema_path(config: SchemaConfig, base: Path | None) -> Path | None:
    """Find the schema's file: in `base`, else in the working directory; None for one without."""
    if config.file is None:
        return None
    return config.file if base is None or not (base / config.file).exists() else base / config.file


def load_schema(config: SchemaConfig, *, base: Path | None = None) -> dict[str, Any] | None:
    """Read the schema a pipeline names (in `base`, else in the working directory); None when it has none.

    Raises:
        SchemaInvalid: The file cannot be read or is not a schema.
    """
    path = schema_path(config, base)
    if path is None:
        return config.inline
    found = read_schema_file(path)
    if not isinstance(found, dict):
        raise SchemaInvalid(f"schema file {path} does not hold an object")
    return found


def schema_hash(schema: Mapping[str, Any] | None) -> str:
    """Name a schema in dead letters: the first 16 hex digits of its SHA-256."""
    return sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def property_at(schema: Mapping[str, Any] | None, path: str) -> Mapping[str, Any] | None:
    """Find the schema of a field; None where it is not described."""
    found: Any = schema
    for name in split_path(path):
        found = found.get("properties", {}).get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def json_types(schema: Mapping[str, Any] | None, path: str) -> frozenset[str]:
    """Name the JSON types a field may have; empty when the schema does not say."""
    found = property_at(schema, path)
    if found is None:
        return frozenset()
    kinds = found.get("type")
    if kinds is None and (values := found.get("enum", [found["const"]] if "const" in found else None)):
        python = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
        return frozenset(python.get(type(value), "object") for value in values)
    return frozenset([kinds] if isinstance(kinds, str) else kinds or [])


def column_type(schema: Mapping[str, Any] | None, path: str) -> ColumnType | None:
    """Choose the column type of a field from its schema; None when the schema does not say."""
    kinds = json_types(schema, path) - {"null"}
    simple: dict[frozenset[str], ColumnType] = {
        frozenset({"string"}): "string",
        frozenset({"integer"}): "integer",
        frozenset({"number"}): "number",
        frozenset({"integer", "number"}): "number",
        frozenset({"boolean"}): "boolean",
    }
    return simple.get(kinds, "json") if kinds else None


def _is_ensured(schema: Mapping[str, Any], need: Need) -> bool:
    """Tell whether every record the schema allows fits the need, so that the fast path need not check."""
    kinds = json_types(schema, need.path) - {"null"}
    if need.type == "timestamp":
        return bool(kinds)  # parsed, and so checked, for every record anyway
    if need.type == "number":
        return bool(kinds) and kinds <= {"integer", "number"}
    if need.type == "json":
        return (
            bool(kinds)
            and kinds <= {"string", "integer", "number", "boolean", "array"}
            and "items" not in (property_at(schema, need.path) or {})
        )
    return kinds == {need.type}


def _fast_decoder(schema: Mapping[str, Any], paths: Sequence[str], *, formats: bool) -> Callable[[bytes], Any] | None:
    if any(property_at(schema, path) is None for path in paths):
        return None  # a field the schema does not describe is only found by the second look
    parents = {join_path(names[:depth]) for names in map(split_path, paths) for depth in range(1, len(names))}
    if any(property_at(schema, parent) is None for parent in parents):
        return None
    if any(not json_types(schema, parent) <= {"object", "null"} for parent in parents):
        return None
    try:
        return msgspec.json.Decoder(compile_type(schema, formats=formats)).decode
    except NotCompilable:
        return None


def _validator(schema: Mapping[str, Any], *, formats: bool, refs: Refs) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            dict(schema), validate_formats=formats, retriever=refs.read, base_uri=refs.base_uri
        )
    except (jsonschema_rs.ValidationError, ValueError, TypeError) as error:
        # A reference that could not be read is wrapped in words of the validator's own; ours say what to do.
        reason = refs.refused or str(error).split("\n\nFailed validating", 1)[0]
        raise SchemaInvalid(f"the JSON Schema cannot be used: {reason}") from error
