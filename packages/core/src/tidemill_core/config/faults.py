"""Say pydantic's errors in the words of the file: its keys and lines, and what to write instead.

Pydantic's locations mix keys of the file with names of union members. Here a location is
walked beside the model and the document, which tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tidemill_core.config.document import ConfigFault, Document, KeyPath, dotted
from tidemill_core.plugins import did_you_mean

_MISSING = object()


@dataclass(slots=True)
class _Spot:
    """Where a location leads: the path in the file, the value there, and the types it may have."""

    path: KeyPath
    value: Any
    types: list[Any]
    fits: bool = True
    """False when the location went into a union member that the value cannot have been meant for."""


def translate(error: ValidationError, document: Document, model: type[BaseModel]) -> list[ConfigFault]:
    """Translate every error; of a union's members only those the value can have been meant for."""
    found: dict[tuple[KeyPath, str], ConfigFault] = {}
    spare: list[ConfigFault] = []
    choices: dict[KeyPath, list[str]] = {}
    for each in error.errors(include_url=False, include_input=False):
        spot = _walk(each["loc"], document.value, model, names_missing=each["type"] == "missing")
        fault = _fault(each, spot, document)
        if not spot.fits:
            spare.append(fault)
            continue
        if found.setdefault((spot.path, fault.message), fault) is fault and each["type"] not in _PLACED:
            choices.setdefault(spot.path, []).append(fault.message)
    if not found:
        return spare
    return [
        ConfigFault(fault.place, fault.key, " or ".join(choices[path]))
        if len(choices.get(path, ())) > 1 and message == choices[path][0]
        else fault
        for (path, message), fault in found.items()
        if message not in choices.get(path, ())[1:]
    ]


_PLACED = frozenset({"extra_forbidden", "missing", "union_tag_invalid", "union_tag_not_found", "value_error"})


def _fault(error: Any, spot: _Spot, document: Document) -> ConfigFault:
    kind, context = error["type"], error.get("ctx", {})
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    path = spot.path
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        known = sorted({name for each in _models(spot.types) for name in _names(each)})
        message = f"unknown key{did_you_mean(name, known)}"
    elif kind == "missing":
        message = "this key is required"
    elif kind == "union_tag_invalid":
        path = (*path, str(context["discriminator"]).strip("'"))
        expected = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
        message = f"unknown {path[-1]} {context['tag']!r}{did_you_mean(str(context['tag']), expected)}"
    elif kind == "union_tag_not_found":
        path = (*path, str(context["discriminator"]).strip("'"))
        message = "this key is required: it says which kind of entry this is"
    elif kind in {"string_type", "bool_type"} and isinstance(spot.value, bool | int | float):
        message = f"{message}; write it in quotes" if kind == "string_type" else message
    return ConfigFault(document.place(path), dotted(path), message)


def _walk(loc: Sequence[str | int], value: Any, model: type[BaseModel], *, names_missing: bool) -> _Spot:
    spot = _Spot((), value, [model])
    rest = list(loc)
    while rest:
        members = _members(spot.types)
        if len(members) > 1 and _is_label(rest[0], members):
            chosen = _labelled(str(rest.pop(0)), members)
            spot.fits = spot.fits and (_takes(chosen, spot.value) or not any(_takes([m], spot.value) for m in members))
            spot.types = chosen
            continue
        part = rest.pop(0)
        step = _step(spot, members, part, may_be_missing=names_missing and not rest)
        if step is not None:
            spot = step
    return spot


def _step(spot: _Spot, members: list[Any], part: str | int, *, may_be_missing: bool) -> _Spot | None:
    """Go one key or index down; None when the part is no key (a validator's name, a ``[key]`` mark)."""
    value = spot.value
    inner = _inner(members, part)
    if isinstance(value, Mapping):
        if part in value:
            # an unknown key keeps its parent's types, which know the names it may have meant
            return _Spot((*spot.path, part), value[part], inner or members, spot.fits)
        if may_be_missing:
            return _Spot((*spot.path, part), _MISSING, inner or members, spot.fits)
        return None
    if isinstance(part, int) and isinstance(value, list) and part < len(value):
        return _Spot((*spot.path, part), value[part], inner, spot.fits)
    return None


def _members(types: Iterable[Any]) -> list[Any]:
    """Flatten unions, annotations and aliases to the types a value may have, None left out."""
    found: list[Any] = []
    for each in types:
        origin = get_origin(each)
        if origin is Annotated:
            found += _members(get_args(each)[:1])
        elif origin in {Union, UnionType}:
            found += _members(get_args(each))
        elif hasattr(each, "__value__"):
            found += _members([each.__value__])
        elif each is not NoneType:
            found.append(each)
    return found


def _inner(members: list[Any], part: str | int) -> list[Any]:
    """The types of what stands under `part` in a value of any of these types."""
    found: list[Any] = []
    for each in members:
        if isinstance(each, type) and issubclass(each, BaseModel):
            found += [field.annotation for name, field in _fields(each) if name == part]
            continue
        origin, arguments = get_origin(each), get_args(each)
        if origin in {dict, Mapping} or (isinstance(origin, type) and issubclass(origin, Mapping)):
            found += arguments[1:2]
        elif origin is tuple and isinstance(part, int) and Ellipsis not in arguments:
            found += arguments[part : part + 1]
        elif isinstance(part, int) and origin is not None and arguments:
            found += arguments[:1]
    return found


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    named = list(model.model_fields.items())
    aliases = [(str(alias), field) for _, field in named for alias in (field.alias, field.validation_alias) if alias]
    return [*aliases, *named]


def _names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _models(types: Iterable[Any]) -> list[type[BaseModel]]:
    return [each for each in _members(types) if isinstance(each, type) and issubclass(each, BaseModel)]


def _is_label(part: str | int, members: list[Any]) -> bool:
    """Tell whether a part names a union member; pydantic puts one after every union but ``X | None``."""
    return isinstance(part, str) and (bool(_labelled(part, members, strict=True)) or not _inner(members, part))


def _labelled(label: str, members: list[Any], *, strict: bool = False) -> list[Any]:
    """The members a label names: by tag, by class name, or by the kind of value; all when nobody knows."""
    tagged = [each for each in _models(members) if label in _tags(each)]
    if tagged:
        return tagged
    named = [each for each in members if getattr(each, "__name__", None) == label]
    if named or strict:
        return named
    wrapped = [each for each in members if (name := getattr(each, "__name__", "")) and name in label]
    return wrapped or members


def _tags(model: type[BaseModel]) -> set[str]:
    """The values of a model's literal fields: one of them is its tag in a discriminated union."""
    tags = set()
    for field in model.model_fields.values():
        if str(getattr(get_origin(field.annotation), "_name", "")) == "Literal":
            tags |= {str(value) for value in get_args(field.annotation)}
    return tags


def _takes(members: list[Any], value: Any) -> bool:
    """Tell whether a value of this shape (mapping, list or plain) can have been meant for one of these types."""
    return any(_shape_of(each) == _shape(value) for each in members)


def _shape(value: Any) -> str:
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, list) else "plain"


def _shape_of(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if not isinstance(origin, type):
        return "plain"
    if issubclass(origin, BaseModel | Mapping):
        return "mapping"
    return "list" if issubclass(origin, list | tuple | set | frozenset) or origin is Sequence else "plain"
