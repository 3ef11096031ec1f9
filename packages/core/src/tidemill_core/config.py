"""Read YAML and JSON into frozen models; every fault names its file, line and column at once.

A document is parsed to plain values and a map from each value's path to its place in
the file, ``${NAME}`` is replaced from the environment (``${NAME:-default}`` when it is
unset or empty, ``$${`` for a literal ``${``), and pydantic checks the values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tidemill_core.errors import ConfigError

__all__ = [
    "Config",
    "ConfigFault",
    "ConfigFaults",
    "Document",
    "Place",
    "SecretStr",
    "dotted",
    "faults_of",
    "load",
    "load_documents",
    "parse_documents",
    "validate",
]

KeyPath = tuple[str | int, ...]


class ConfigJsonSchema(GenerateJsonSchema):
    """Schemas that say what validation asks: the key that tells the members of a union apart is required."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Write a union; pydantic leaves the key out because each member has a default for it."""
        found = super().tagged_union_schema(schema)
        tag = found.get("discriminator", {}).get("propertyName")
        return {**found, "required": [tag]} if tag else found


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys refused, docstrings are descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        ser_json_timedelta="float",
    )

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Write the JSON schema, of what validation accepts unless told otherwise."""
        return super().model_json_schema(*args, **{"schema_generator": ConfigJsonSchema, **kwargs})


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
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigFaults([ConfigFault(Place(str(path)), "", f"cannot be read: {reason}")]) from error
    return parse_documents(text, file=str(path), env=env)


def parse_documents(
    text: str, *, file: str = "<text>", env: Mapping[str, str] | None = None, interpolate: bool = True
) -> list[Document]:
    """Parse YAML or JSON text.

    YAML is read by the 1.2 core rules: only ``true`` and ``false`` are booleans, and a
    date is a text until its field says otherwise.

    Args:
        text: One or more documents; empty ones are left out.
        file: Names the text in faults; a ``.json`` name means strict JSON.
        env: Values for ``${NAME}``; default this process's environment.
        interpolate: Whether to replace ``${NAME}`` at all.

    Raises:
        ConfigFaults: The text cannot be parsed, gives a key twice, or names an unset variable.
    """
    from tidemill_core._parsing import parse

    variables = os.environ if env is None else env
    return parse(text, file=file, env=variables if interpolate else None)


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
    from tidemill_core._faults import translate

    return translate(error, document, model)


def dotted(path: KeyPath) -> str:
    """Write a path as a reader would: ``tasks[2].needs``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
