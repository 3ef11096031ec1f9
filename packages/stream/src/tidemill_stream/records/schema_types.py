"""Compile a JSON Schema to a msgspec type that is stricter than the schema, where that can be done.

Stricter means: whatever the type accepts, the schema accepts too, with the same value.
What the type refuses is looked at again by a full validator, so a refusal costs time,
never correctness. Keywords that have no exact counterpart make the compilation give up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

import msgspec

from tidemill_stream.records.fields import attribute

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_EXACT = 2**53
_NOTES = {
    "title", "description", "default", "examples", "format", "$schema", "$id", "$comment", "deprecated",
    "readOnly", "writeOnly", "definitions", "$defs",
}  # fmt: skip
_KEYWORDS = {
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set[str](),
    "null": set[str](),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
_SAFE_PATTERN = re.compile(
    r"(?:[A-Za-z0-9_ /:@,=^$|()*+?-]|\\[d.+*?()\[\]{}|^$/-]|\{\d+(?:,\d*)?\}|\[\^?(?:[A-Za-z0-9_ ./:@,+]|\\[d-]|-)+\])*"
)

_OTHER_GROUP = re.compile(r"\(\?(?!:)|[*+?}]\+")
"""Groups with flags, look-around, possessive quantifiers: not the same, or not there, in ECMA."""


class NotCompilable(Exception):
    """The schema has a part that no stricter type expresses; the full validator does all the work."""


def compile_type(schema: Mapping[str, Any], *, formats: bool = False) -> type[msgspec.Struct]:
    """Compile the schema of a record.

    Raises:
        NotCompilable: The schema, or a part of it, has no exact counterpart.
    """
    dialect = str(schema.get("$schema", ""))
    if "draft-03" in dialect or "draft-04" in dialect or schema.get("type") != "object":
        raise NotCompilable("only objects, draft 6 or newer")
    try:
        compiled = _Compiler(schema, formats=formats).compile(schema)
    except ValueError as error:  # a name that a struct cannot carry: with a backslash, a quote, a control character
        raise NotCompilable(str(error)) from error
    if not (isinstance(compiled, type) and issubclass(compiled, msgspec.Struct)):
        raise NotCompilable("a record without properties")
    try:
        msgspec.json.Decoder(compiled)
    except (TypeError, ValueError) as error:
        raise NotCompilable(str(error)) from error
    return compiled


class _Compiler:
    def __init__(self, root: Mapping[str, Any], *, formats: bool) -> None:
        self.root, self.formats = root, formats
        self.resolving: list[str] = []

    def compile(self, schema: Any) -> Any:
        if schema is True or schema == {}:
            return Any
        if not isinstance(schema, Mapping):
            raise NotCompilable("a schema that forbids everything")
        if self.formats and "format" in schema:
            raise NotCompilable("format")
        words = set(schema) - _NOTES
        if "$ref" in words:
            return self.reference(schema["$ref"], words)
        if "enum" in words or "const" in words:
            return self.choice(schema, words)
        if "type" not in words:
            if words:
                raise NotCompilable(f"{sorted(words)} without a type")
            return Any
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if "number" in kinds:
            kinds = [kind for kind in kinds if kind != "integer"]
        allowed = {"type"}.union(*(_KEYWORDS.get(kind, set()) for kind in kinds))
        if words - allowed or not kinds:
            raise NotCompilable(f"{sorted(words - allowed)}")
        return Union[tuple(self.one(kind, schema) for kind in kinds)]  # noqa: UP007 - built at run time

    def reference(self, target: Any, words: set[str]) -> Any:
        if words != {"$ref"} or not isinstance(target, str) or not target.startswith("#/") or target in self.resolving:
            raise NotCompilable(f"$ref {target!r}")
        found: Any = self.root
        for part in target[2:].split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if found is None:
            raise NotCompilable(f"$ref {target!r}")
        self.resolving.append(target)
        try:
            return self.compile(found)
        finally:
            self.resolving.pop()

    def choice(self, schema: Mapping[str, Any], words: set[str]) -> Any:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if words - {"type", "enum", "const"} or {"enum", "const"} <= words or not values:
            raise NotCompilable("enum with further keywords")
        for kind, python in (("string", str), ("integer", int)):
            plain = [value for value in values if value is not None]
            if plain and all(type(value) is python for value in plain) and (not kinds or kind in kinds):
                nullable = len(plain) < len(values) and (not kinds or "null" in kinds)
                return Literal[tuple([*plain, None] if nullable else plain)]
        raise NotCompilable("enum of mixed types")

    def one(self, kind: Any, schema: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one return per type
        if kind == "string":
            return _string(schema)
        if kind == "integer":
            return _integer(schema)
        if kind == "number":
            return Union[_integer(schema), _float(schema)]  # noqa: UP007 - built at run time
        if kind == "boolean":
            return bool
        if kind == "null":
            return type(None)
        if kind == "array":
            items = list.__class_getitem__(self.compile(schema.get("items", True)))
            return _limited(items, min_length=_count(schema, "minItems"), max_length=_count(schema, "maxItems"))
        if kind == "object":
            return self.object(schema)
        raise NotCompilable(f"type {kind!r}")

    def object(self, schema: Mapping[str, Any]) -> Any:
        extra = schema.get("additionalProperties", True)
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(extra, bool) or not isinstance(properties, Mapping):
            raise NotCompilable("additionalProperties is a schema")
        if not properties and not required:
            if not extra:
                raise NotCompilable("an object without properties")
            return dict[str, Any]
        names = [*properties, *(name for name in required if name not in properties)]
        if len({attribute(name) for name in names}) < len(names) or (set(required) - set(properties) and not extra):
            raise NotCompilable("names that clash")
        fields: list[Any] = []
        for name in names:
            inner = self.compile(properties.get(name, True))
            fields.append((attribute(name), inner) if name in required else (attribute(name), inner, None))
        return msgspec.defstruct(
            "Record",
            fields,
            rename={attribute(name): name for name in names},
            kw_only=True,
            frozen=True,
            gc=False,
            forbid_unknown_fields=not extra,
        )


def _limited(base: Any, **limits: Any) -> Any:
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return Annotated[base, msgspec.Meta(**given)] if given else base


def _count(schema: Mapping[str, Any], word: str) -> int | None:
    found = schema.get(word)
    if found is not None and (type(found) is not int or found < 0):
        raise NotCompilable(word)
    return found


def _string(schema: Mapping[str, Any]) -> Any:
    pattern = schema.get("pattern")
    return _limited(
        str,
        min_length=_count(schema, "minLength"),
        max_length=_count(schema, "maxLength"),
        pattern=None if pattern is None else _python_pattern(pattern),
    )


def _python_pattern(pattern: Any) -> str:
    """Rewrite an ECMA pattern whose every part means the same in Python: ASCII digits, `$` only at the very end."""
    if not isinstance(pattern, str) or not _SAFE_PATTERN.fullmatch(pattern) or _OTHER_GROUP.search(pattern):
        raise NotCompilable(f"pattern {pattern!r}")
    text, index, inside = "", 0, False
    while index < len(pattern):
        char = pattern[index]
        if char == "\\":
            index += 1
            escaped = pattern[index]
            text += ("0-9" if inside else "[0-9]") if escaped == "d" else f"\\{escaped}"
        elif char == "$" and not inside:
            text += r"\Z"
        else:
            inside = (inside or char == "[") and not (inside and char == "]")
            text += char
        index += 1
    try:
        re.compile(text)
    except re.error as error:
        raise NotCompilable(f"pattern {pattern!r}: {error}") from error
    return text


def _bounds(schema: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for word in _KEYWORDS["number"]:
        if word in schema:
            bound = schema[word]
            if isinstance(bound, bool) or not isinstance(bound, int | float) or abs(bound) > _EXACT:
                raise NotCompilable(word)
            found[word] = bound
    return found


def _integer(schema: Mapping[str, Any]) -> Any:
    bounds = _bounds(schema)
    low, high = [INT64_MIN], [INT64_MAX]
    if "minimum" in bounds:
        low.append(math.ceil(bounds["minimum"]))
    if "exclusiveMinimum" in bounds:
        low.append(math.floor(bounds["exclusiveMinimum"]) + 1)
    if "maximum" in bounds:
        high.append(math.floor(bounds["maximum"]))
    if "exclusiveMaximum" in bounds:
        high.append(math.ceil(bounds["exclusiveMaximum"]) - 1)
    return Annotated[int, msgspec.Meta(ge=max(low), le=min(high))]


def _float(schema: Mapping[str, Any]) -> Any:
    bounds = _bounds(schema)
    if {"minimum", "exclusiveMinimum"} <= set(bounds) or {"maximum", "exclusiveMaximum"} <= set(bounds):
        raise NotCompilable("two bounds on one side")
    words = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
    return _limited(float, **{words[word]: float(bound) for word, bound in bounds.items()})
