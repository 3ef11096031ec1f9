"""Read YAML and JSON into frozen models; every fault names its file, line and column at once.

A document is parsed to plain values and a map from each value's path to its place in
the file, `${NAME}` is replaced from the environment, and pydantic checks the values.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

__all__ = [
    "Config",
    "ConfigFault",
    "ConfigFaults",
    "Document",
    "Place",
    "SecretStr",
    "load",
    "load_documents",
    "parse_documents",
    "validate",
]

KeyPath = tuple[str | int, ...]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys refused, docstrings are descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
        ser_json_timedelta="float",
    )


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a value stands; lines and columns count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong: where, at which key, and what to do."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key + ': ' if self.key else ''}{self.message}"


class ConfigFaults(ConfigError):
    """Everything that is wrong with one or more files, in file order."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.place))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: plain values, and the place of every value (and key) by its path."""

    value: Any
    places: Mapping[KeyPath, Place]
    file: str

    def place(self, path: KeyPath) -> Place:
        """Where `path` stands, or its nearest known parent."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(self.file))


M = TypeVar("M", bound=BaseModel)


def load(path: Path | str, model: type[M], *, env: Mapping[str, str] | None = None) -> M:
    """Read one YAML or JSON file that holds one document.

    Args:
        path: The file; ``.json`` is parsed strictly, everything else as YAML.
        model: What the document must be.
        env: Values for ``${NAME}`` and ``${NAME:-default}``; default this process's environment.

    Raises:
        ConfigFaults: The file cannot be read, or any value in it is wrong; lists every fault.
    """
    documents = load_documents(path, env=env)
    if len(documents) != 1:
        raise ConfigFaults([ConfigFault(Place(str(path)), "", f"one document expected, {len(documents)} found")])
    return validate(documents[0], model)


def load_documents(path: Path | str, *, env: Mapping[str, str] | None = None) -> list[Document]:
    """Read every document of a file, with ``${NAME}`` replaced.

    Raises:
        ConfigFaults: The file cannot be read or parsed, or names an unset variable.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigFaults([ConfigFault(Place(str(path)), "", f"cannot be read: {reason}")]) from error
    return parse_documents(text, file=str(path), env=env)


def parse_documents(
    text: str, *, file: str = "<text>", env: Mapping[str, str] | None = None, interpolate: bool = True
) -> list[Document]:
    """Parse YAML or JSON text (`file` names it in faults; a ``.json`` name means strict JSON)."""
    if file.endswith(".json"):
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            place = Place(file, error.lineno, error.colno)
            raise ConfigFaults([ConfigFault(place, "", f"not JSON: {error.msg}")]) from error
        text = text.replace("\t", " ")  # raw tabs stand only between JSON tokens; YAML refuses them there
    faults: list[ConfigFault] = []
    variables = os.environ if env is None else env
    documents = []
    loader = _LOADER(text)
    try:
        while loader.check_node():
            walk = _Walk(file, variables if interpolate else None, faults)
            value = walk.build(loader.get_node(), (), loader)
            if value is not None:
                documents.append(Document(value, walk.places, file))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise ConfigFaults([ConfigFault(place, "", f"not YAML: {error.problem or error.context}")]) from error
    finally:
        loader.dispose()
    if faults:
        raise ConfigFaults(faults)
    return documents


class _Walk:
    """Builds plain values from YAML nodes and notes where each one stands."""

    def __init__(self, file: str, env: Mapping[str, str] | None, faults: list[ConfigFault]) -> None:
        self.file, self.env, self.faults = file, env, faults
        self.places: dict[KeyPath, Place] = {}

    def build(self, node: yaml.Node, path: KeyPath, loader: Any) -> Any:
        self.places[path] = place = Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, loader)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index), loader) for index, child in enumerate(node.value)]
        value = loader.construct_object(node)
        if isinstance(value, str) and "$" in value and self.env is not None:
            return self._interpolate(value, place, path)
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, loader: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            if isinstance(key, str) and key in values and not _merged(node, key_node):
                place = Place(self.file, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
                self.faults.append(ConfigFault(place, dotted((*path, key)), "this key is given twice"))
            values[key] = self.build(value_node, (*path, key), loader)
            if not isinstance(value_node, yaml.ScalarNode):
                mark = key_node.start_mark
                self.places[(*path, key)] = Place(self.file, mark.line + 1, mark.column + 1)
        return values

    def _interpolate(self, value: str, place: Place, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            escaped, name, default = match.groups()
            if escaped:
                return "$"
            assert self.env is not None
            found: str | None = self.env.get(name, default)
            if found is None:
                self.faults.append(
                    ConfigFault(place, dotted(path), f"environment variable {name} is not set and has no default")
                )
                return ""
            return found

        return _VARIABLE.sub(replace, value)


def _merged(node: yaml.MappingNode, key_node: yaml.Node) -> bool:
    """Tell whether a key came in by a merge (`<<`), where a repetition is an override."""
    start, end = node.start_mark, node.end_mark
    return not (start.index <= key_node.start_mark.index < end.index)


def validate(document: Document, model: type[M]) -> M:
    """Check one document against `model`.

    Raises:
        ConfigFaults: Every fault of the document, each with its place and, for an
            unknown key, the nearest known one.
    """
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise ConfigFaults(faults_of(error, document, model)) from error


def faults_of(error: ValidationError, document: Document, model: type[BaseModel]) -> list[ConfigFault]:
    """Translate pydantic's errors into places and words of the file."""
    faults = []
    for each in error.errors(include_url=False, include_input=False):
        path = _file_path(each["loc"], document.value)
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            known = _siblings(model, each["loc"][:-1])
            message = f"unknown key{did_you_mean(str(each['loc'][-1]), known)}"
        elif each["type"] == "missing":
            message = "this key is required"
        faults.append(ConfigFault(document.place(path), dotted(path), message))
    return faults


def dotted(path: KeyPath) -> str:
    """Write a path as a reader would: ``tasks[2].needs``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _file_path(loc: tuple[str | int, ...], value: Any) -> KeyPath:
    """Drop the parts of a pydantic location that are not in the file (union tags, validators)."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(part, int) and isinstance(value, list) and part < len(value):
            value = value[part]  # two kinds of index, for the type checker
        elif isinstance(value, Mapping) and isinstance(part, str) and index == len(loc) - 1:
            value = None  # a missing key: the parent's place is used, the name is shown
        else:
            continue
        path.append(part)
    return tuple(path)


def _siblings(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """List the field names that would have been accepted beside an unknown key."""
    models: list[type[BaseModel]] = [model]
    for part in loc:
        fields = [each.model_fields[str(part)] for each in models if part in each.model_fields]
        inner = [found for field in fields for found in _models(field.annotation)]
        models = inner or models
    names = {name for each in models for name in each.model_fields}
    return sorted(names | {f.alias for each in models for f in each.model_fields.values() if f.alias})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models(argument)]
