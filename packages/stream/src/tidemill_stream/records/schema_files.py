"""Read JSON Schemas and what they refer to: files beside them, and nothing else without leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tidemill_core.config import ConfigFaults, parse_documents

from tidemill_stream.errors import SchemaInvalid

_FETCH_TIMEOUT_S = 15.0
_MOST_BYTES = 10 * 1024 * 1024


def read_schema_file(path: Path) -> Any:
    """Read a schema file: JSON by its suffix ``.json``, else YAML by the rules of YAML 1.2 (``1e3`` is a number).

    Raises:
        SchemaInvalid: The file cannot be read, or is neither; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaInvalid(f"schema file {path} cannot be read: {error}") from error
    return _parsed(text, str(path))


def _parsed(text: str, name: str) -> Any:
    try:
        documents = parse_documents(text, file=name, interpolate=False)
    except ConfigFaults as wrong:
        raise SchemaInvalid(f"schema file {wrong.faults[0]}") from wrong
    if len(documents) != 1:
        raise SchemaInvalid(f"schema file {name} holds {len(documents)} documents, one is expected")
    return documents[0].value


class Refs:
    """Reads what a `$ref` names, as far as it is allowed.

    Args:
        location: The schema's own file, or where an inline one stands; files below its folder may be read.
        allowed: Prefixes of URLs, and further folders.

    Attributes:
        read_documents: What was read, by address.
        refused: Why the last reference could not be read; None if all could.
    """

    def __init__(self, location: Path | None = None, allowed: Sequence[str] = ()) -> None:
        self._folder = None if location is None else location.absolute().parent
        self._allowed = tuple(allowed)
        self.base_uri = None if location is None else location.absolute().as_uri()
        self.read_documents: dict[str, Any] = {}
        self.refused: str | None = None

    def read(self, uri: str) -> Any:
        """Read one document; the validator calls it for references outside of the schema.

        Raises:
            ValueError: It may not be read, or cannot be.
        """
        try:
            self.read_documents[uri] = found = self._read(uri)
        except (SchemaInvalid, OSError, ValueError) as error:
            self.refused = f"$ref {uri!r}: {error}"
            raise ValueError(self.refused) from error
        return found

    def _read(self, uri: str) -> Any:
        parts = urlsplit(uri)
        if parts.scheme == "file":
            path = Path(unquote(parts.path)).resolve()
            folders = [self._folder, *(Path(each) for each in self._allowed if "://" not in each)]
            if any(folder is not None and path.is_relative_to(folder.resolve()) for folder in folders):
                return read_schema_file(path)
        elif parts.scheme in ("http", "https") and any(uri.startswith(each) for each in self._allowed if "://" in each):
            return _fetched(uri)
        raise ValueError("it is not below the schema's folder; name its folder or URL in `schema.refs` to allow it")


def _fetched(uri: str) -> Any:
    import httpx

    try:
        answer = httpx.get(uri, timeout=_FETCH_TIMEOUT_S, follow_redirects=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ValueError(f"it cannot be fetched: {error}") from error
    if len(answer.content) > _MOST_BYTES:
        raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
    return _parsed(answer.text, uri)
