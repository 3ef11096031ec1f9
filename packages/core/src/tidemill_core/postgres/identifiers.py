"""Names of tables and columns: always quoted, never longer than PostgreSQL keeps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tidemill_core.errors import ConfigError

MAX_BYTES = 63
"""PostgreSQL cuts longer names silently, so that two may become one."""

_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".]+))\s*(\.|$)')


def check_identifier(name: str) -> str:
    """Return `name` if PostgreSQL keeps it whole.

    Raises:
        ConfigError: It is empty, longer than 63 bytes in UTF-8, or holds a NUL.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name or "\x00" in name:
        raise ConfigError(f"{name!r} cannot name a table or column: it is empty or holds a NUL character")
    if size > MAX_BYTES:
        raise ConfigError(f"{name!r} is {size} bytes long; PostgreSQL keeps {MAX_BYTES}: choose a shorter name")
    return name


def quote(name: str) -> str:
    """Quote one name for SQL text, after checking it."""
    return '"' + check_identifier(name).replace('"', '""') + '"'


def shortened(name: str, suffix: str) -> str:
    """Make `name + suffix` fit, cutting and hashing `name` where it must."""
    if len((name + suffix).encode()) <= MAX_BYTES:
        return name + suffix
    tag = hashlib.sha256(name.encode()).hexdigest()[:8] + suffix
    head = name.encode()[: MAX_BYTES - len(tag.encode()) - 1].decode("utf-8", "ignore")
    return f"{head}_{tag}"


def safe_identifiers(names: Iterable[str]) -> list[str]:
    """Make every name of a file usable as a column: not empty, short enough, unique.

    Returns:
        One name per input, in order; a good name stays as it is.
    """
    made: list[str] = []
    for position, raw in enumerate(names, start=1):
        name = shortened(raw.replace("\x00", "") or f"column_{position}", "")
        count = 2
        base = name
        while name in made:
            name = shortened(base, f"_{count}")
            count += 1
        made.append(name)
    return made


@dataclass(frozen=True, slots=True)
class TableName:
    """A table by schema and name, as PostgreSQL stores them (no quotes)."""

    schema: str
    name: str

    def __post_init__(self) -> None:
        check_identifier(self.schema)
        check_identifier(self.name)

    @classmethod
    def parse(cls, text: str | TableName) -> TableName:
        """Read ``schema.name``, ``name`` (schema public) or quoted parts; case is kept.

        Raises:
            ConfigError: The text is no table name.
        """
        if isinstance(text, TableName):
            return text
        parts: list[str] = []
        at = 0
        while at < len(text):
            match = _PART.match(text, at)
            if match is None or match.end() == at:
                raise ConfigError(f"{text!r} is no table name; write schema.name")
            quoted, plain, _ = match.groups()
            parts.append(quoted.replace('""', '"') if quoted is not None else plain.strip())
            at = match.end()
        if not 1 <= len(parts) <= 2 or text.endswith("."):  # noqa: PLR2004 - schema and name
            raise ConfigError(f"{text!r} is no table name; write schema.name")
        return cls(*parts) if len(parts) > 1 else cls("public", parts[0])

    @property
    def quoted(self) -> str:
        """Safe SQL text: ``"schema"."name"``."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    def sibling(self, suffix: str) -> TableName:
        """Name another table of this schema after this one, short enough."""
        return TableName(self.schema, shortened(self.name, suffix))

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"
