"""Frozen models, and documents that know the place of every value in their file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tidemill_core.errors import ConfigError

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


def dotted(path: KeyPath) -> str:
    """Write a path as a reader would: ``tasks[2].needs``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
