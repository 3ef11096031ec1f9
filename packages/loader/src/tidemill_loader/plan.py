"""Decide, without touching the table: which columns, which statement, which units of which files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemill_core.postgres.ddl import check_type, ddl_for
from tidemill_core.postgres.identifiers import check_identifier, safe_identifiers

from tidemill_loader.errors import SchemaConflict
from tidemill_loader.formats._base import Unit
from tidemill_loader.infer import field_sql, infer_text, union

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.sources import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What a format says about one file."""

    source: SourceFile
    format: str
    schema: pa.Schema
    units: Sequence[Unit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of one file: what a worker loads in one transaction."""

    source: SourceFile
    format: str
    unit: Unit
    schema: pa.Schema
    """The file's own columns that are loaded, without hive keys."""
    number: int
    """Place in the order of files and units, from 0."""

    @property
    def name(self) -> str:
        """URL and unit, for people."""
        return f"{self.source.url}#{self.unit.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that will be done, before anything is."""

    config: LoadConfig
    files: Sequence[SourceFile]
    schema: pa.Schema
    """Columns of a new table: names in the table, nullable as the files say."""
    types: Mapping[str, str]
    """PostgreSQL type of each column of a new table."""
    names: Mapping[str, str]
    """Name in the table by name in the files."""
    tasks: Sequence[Task]
    generation: str = field(default="")
    """Fingerprint of the files and of all that shapes their rows."""
    hidden: Sequence[str] = ()
    """URLs of files that match, but are passed over because they are hidden."""

    @property
    def ddl(self) -> str:
        """The statement for a new table."""
        return ddl_for(self.config.target, self.schema, self.config.key, types=self.types)

    @property
    def source_rows(self) -> int | None:
        """Rows of all files, where their metadata tells."""
        rows = [task.unit.rows for task in self.tasks]
        return None if any(each is None for each in rows) else sum(each or 0 for each in rows)

    @property
    def source_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def make_plan(config: LoadConfig, facts: Sequence[FileFacts], *, hidden: Sequence[str] = ()) -> Plan:
    """Plan a load of files whose facts are known.

    Raises:
        SchemaConflict: The files disagree about a column, or none is left.
        ConfigError: A column option or key names no column.
    """
    given = {name for name, each in config.columns.items() if each.type or each.skip}
    seen = union(((each.source.url, _with_hive(each)) for each in facts), given=given)
    unknown = [name for name in config.columns if name not in seen.names and facts]
    if unknown:
        raise SchemaConflict(unknown[0], f"it has options but is in no file; files have {', '.join(seen.names)}")
    names = _names(config, seen)
    schema, types = _columns(config, seen, names)
    missing = [name for name in config.key if name not in schema.names and facts]
    if missing:
        raise SchemaConflict(missing[0], f"it is a key but no column; columns are {', '.join(schema.names)}")
    files = [each.source for each in facts]
    tasks = list(_tasks(facts, names))
    return Plan(
        config=config,
        files=files,
        schema=schema,
        types=types,
        names=names,
        tasks=tasks,
        generation=_generation(config, files, types),
        hidden=hidden,
    )


def _with_hive(facts: FileFacts) -> pa.Schema:
    import pyarrow as pa

    schema = facts.schema
    for name, value in facts.source.partitions.items():
        if name not in schema.names:
            schema = schema.append(infer_text(name, pa.array([value], pa.string())))
    return schema


def _names(config: LoadConfig, seen: pa.Schema) -> dict[str, str]:
    """Map file columns to table columns; skipped ones are left out."""
    kept = [field.name for field in seen if not (config.columns.get(field.name) and config.columns[field.name].skip)]
    safe = dict(zip(kept, safe_identifiers(kept), strict=True))
    names = {name: _rename(config, name) or safe[name] for name in kept}
    taken: dict[str, str] = {}
    for name, target in names.items():
        if target in taken:
            raise SchemaConflict(target, f"both {taken[target]!r} and {name!r} of the files would have this name")
        taken[target] = name
    return names


def _rename(config: LoadConfig, name: str) -> str | None:
    given = config.columns.get(name)
    return check_identifier(given.rename) if given and given.rename else None


def _columns(config: LoadConfig, seen: pa.Schema, names: Mapping[str, str]) -> tuple[pa.Schema, dict[str, str]]:
    import pyarrow as pa

    fields, types = [], {}
    for name, target in names.items():
        given = config.columns.get(name)
        nullable = seen.field(name).nullable and target not in config.key
        fields.append(seen.field(name).with_name(target).with_nullable(nullable))
        types[target] = check_type(given.type) if given and given.type else field_sql(seen.field(name))
    return pa.schema(fields), types


def _tasks(facts: Sequence[FileFacts], names: Mapping[str, str]) -> Iterator[Task]:
    import pyarrow as pa

    number = 0
    for each in facts:
        schema = pa.schema([field for field in each.schema if field.name in names])
        for unit in each.units:
            yield Task(source=each.source, format=each.format, unit=unit, schema=schema, number=number)
            number += 1


_SHAPING = ("format", "mode", "key", "columns", "csv", "nulls", "hive", "nanoseconds", "digits", "timezone", "nul")


def _generation(config: LoadConfig, files: Sequence[SourceFile], types: Mapping[str, str]) -> str:
    shaping = config.model_dump(mode="json", include=set(_SHAPING))
    facts = [[file.url, file.etag] for file in files]
    text = json.dumps([shaping, facts, types, config.max_rejects > 0], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
