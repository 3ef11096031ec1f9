"""What both SQL stores share: column lists, state as JSON, and what an existing table lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from tidemill_ingest_api.errors import SchemaConflict
from tidemill_ingest_api.stores._base import DOC, EXTRA, LOADED_AT, PARTITION_MARK, VERSION, Commit, TableSpec, Written


def quote(name: str) -> str:
    """Quote an identifier for either database."""
    return '"' + name.replace('"', '""') + '"'


def quoted(names: Sequence[str]) -> str:
    """Quote and join identifiers."""
    return ", ".join(map(quote, names))


def staged_columns(spec: TableSpec) -> list[str]:
    """Columns that come with a row, in row order."""
    return [*spec.columns, EXTRA, DOC]


def scope_of(spec: TableSpec, partition: str) -> tuple[str, str]:
    """Name the state of a stream, or of one of its partitions."""
    return spec.source, spec.stream + (PARTITION_MARK + partition if partition else "")


def upsert_tail(spec: TableSpec, table: str, *, differs: str) -> str:
    """Write ``ON CONFLICT ... DO UPDATE``: only rows that differ change, and never to an older cursor.

    Args:
        spec: The table.
        table: Its quoted name.
        differs: The database's null-safe "is not equal" (``IS NOT``, ``IS DISTINCT FROM``).
    """
    changed = [name for name in [*staged_columns(spec), LOADED_AT, VERSION] if name not in spec.primary_key]
    sets = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changed)
    condition = " OR ".join(f"{table}.{quote(name)} {differs} excluded.{quote(name)}" for name in (DOC, EXTRA))
    if spec.cursor:
        old, new = f"{table}.{quote(spec.cursor)}", f"excluded.{quote(spec.cursor)}"
        condition = f"({condition}) AND ({old} IS NULL OR {new} >= {old})"
    return f"ON CONFLICT ({quoted(spec.primary_key)}) DO UPDATE SET {sets} WHERE {condition}"


def facts_text(commit: Commit, written: Written) -> str:
    """Write the load log's facts, with what this very commit did added to what the earlier ones did."""
    facts = dict(commit.facts)
    facts["inserted"] = facts.get("inserted", 0) + written.inserted
    facts["updated"] = facts.get("updated", 0) + written.updated
    facts["unchanged"] = facts.get("unchanged", 0) + len(commit.rows) - written.inserted - written.updated
    return orjson.dumps(facts).decode()


def missing_columns(spec: TableSpec, wanted: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """List the columns an existing table lacks.

    Args:
        spec: The table.
        wanted: Column to type, as the database reports types.
        found: The same of the existing table.

    Raises:
        SchemaConflict: A column exists with another type, or a key column is missing.
    """
    wrong = [f"{n} is {found[n]}, not {t}" for n, t in wanted.items() if n in found and found[n] != t]
    wrong += [f"key column {name} is missing" for name in spec.primary_key if name not in found]
    if wrong:
        raise SchemaConflict(spec.table, "; ".join(wrong))
    return {name: type_ for name, type_ in wanted.items() if name not in found}
