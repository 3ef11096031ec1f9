"""Read files and texts into documents, and check them against models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from tidemill_core.config.document import ConfigFault, ConfigFaults, Document, Place

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
    from tidemill_core.config.parsing import parse

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
    from tidemill_core.config.faults import translate

    return translate(error, document, model)
