"""Write checkpoint values as JSON text, and refuse names a database could not keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidemill_core.errors import CheckpointError


def encoded(value: Mapping[str, Any]) -> str:
    """Write a value as JSON.

    Raises:
        CheckpointError: The value is not JSON: an unknown type, NaN or infinity.
    """
    try:
        return json.dumps(dict(value), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint value must be JSON: {error}") from error


def decoded(text: str) -> dict[str, Any]:
    """Read a value back."""
    value: dict[str, Any] = json.loads(text)
    return value


def check_name(scope: str, key: str) -> None:
    """Refuse a scope or key that is not Unicode text without NUL.

    Raises:
        CheckpointError: It is not.
    """
    for part in (scope, key):
        if "\0" in part or not _is_unicode(part):
            raise CheckpointError(f"a checkpoint's scope and key must be Unicode text without NUL: {part!a}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
