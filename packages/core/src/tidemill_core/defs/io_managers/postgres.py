"""The PostgreSQL IO manager: frames of assets as tables, through the shared COPY writer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from tidemill_core.defs.failures import dagster_errors
from tidemill_core.defs.io_managers import frames, layout, partitions
from tidemill_core.defs.io_managers.lineage import announce
from tidemill_core.defs.metadata import materialization
from tidemill_core.defs.resources import PostgresResource
from tidemill_core.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from tidemill_core.postgres import ColumnType, CopyResult, TableName

Mode = Literal["append", "replace", "truncate", "upsert"]
_MODES = ("append", "replace", "truncate", "upsert")
Columns = Literal["strict", "add"]
_COLUMNS = ("strict", "add")
_LOCKS = 64
"""More partitions than this, written by one run, are locked as the whole table."""
_COUNT_UP_TO = 5_000_000
"""Tables larger than this (by the server's own estimate) are not counted for metadata."""


class PostgresIOManager(dg.ConfigurableIOManager, PostgresResource):
    """Stores polars DataFrames and LazyFrames and pyarrow Tables as PostgreSQL tables, and loads what is annotated.

    An asset ``[domain, dataset]`` becomes the table ``domain.dataset``. Each write is one
    transaction: readers see the old rows or the new ones. A partitioned asset replaces
    its partition's rows and leaves the others.

    Metadata of the asset:
        mode: ``replace`` (a new table is swapped in; the default), ``truncate`` (the
            table is kept, for views on it), ``append`` or ``upsert``.
        key: The primary key, a name or a list; `upsert` needs it.
        columns: What to do with columns that an existing table lacks: ``strict`` (the default) refuses
            them, ``add`` adds them, with nulls in the rows that are there. ``replace`` without partitions
            makes a new table anyway. Columns that the data lacks become null, or their default.
        schema, table: Where to, instead of the asset key.
        partition_expr: The column that says which partition a row belongs to, or a
            mapping from dimension to column.

    Metadata of an input: ``columns`` (a list) reads only those. A LazyFrame input reads
    only the columns it uses by itself.
    """

    mode: Mode = Field(default="replace", description="How assets without a mode of their own are written.")
    columns: Columns = Field(
        default="strict", description="New columns of assets without a rule of their own: `strict` or `add`."
    )
    default_schema: str = Field(default="public", description="PostgreSQL schema of assets whose key has one part.")

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an asset or a partition of it; None stores nothing."""
        if obj is None:
            return
        with dagster_errors():
            target = self._target(context, context.definition_metadata)
            began = time.monotonic()
            data = frames.arrow_reader(obj)
            with self.connect() as conn:
                done = _write(conn, context, target, data)
                columns = _columns(conn, target.table)
                facts = _facts(conn, context, target, columns, done.rows)
            seconds = time.monotonic() - began
            context.add_output_metadata(
                materialization(**facts, bytes=done.bytes, seconds=seconds, mode=target.mode, rows_written=done.rows)
            )
            announce(context, "wrote", self._urn(target.table), schema=data.schema, rows=done.rows, bytes=done.bytes)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an asset, or the partitions that are asked for, as the input is annotated."""
        with dagster_errors():
            kind, is_dict = frames.wanted(layout.annotation(context))
            upstream = context.upstream_output
            target = self._target(context, upstream.definition_metadata if upstream else {})
            with self.connect() as conn:
                columns = _picked(_columns(conn, target.table), (context.definition_metadata or {}).get("columns"))
                wheres = partitions.conditions(context, target.partition_expr, columns_of(conn, target), each=is_dict)
                parts = {key: self._load(conn, target, columns, where, kind) for key, where in wheres.items()}
            announce(context, "read", self._urn(target.table), columns=[column.name for column in columns])
            return parts if is_dict else next(iter(parts.values()))

    def _target(self, context: dg.InputContext | dg.OutputContext, facts: Mapping[str, Any] | None) -> "_Target":
        plain = {name: getattr(value, "value", value) for name, value in (facts or {}).items()}
        return _target(context, {"mode": self.mode, "columns": self.columns, **plain}, self.default_schema)

    def _load(
        self,
        conn: "psycopg.Connection[Any]",
        target: "_Target",
        columns: "Sequence[ColumnType]",
        where: partitions.Condition | None,
        kind: frames.Kind,
    ) -> Any:
        from tidemill_core.defs.io_managers import reading

        if kind == "lazy":
            return reading.scan_table(self.connect, target.table, columns, where)
        return frames.from_table(reading.read_table(conn, target.table, columns, where), kind)

    def _urn(self, table: "TableName") -> str:
        from tidemill_core.postgres import dataset_urn

        return dataset_urn(self.get_url(), table)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    table: "TableName"
    mode: Mode
    key: tuple[str, ...]
    columns: Columns
    partition_expr: str | Mapping[str, str] | None


def _target(context: dg.InputContext | dg.OutputContext, facts: Mapping[str, Any], schema: str) -> _Target:
    """Read an asset's metadata.

    Raises:
        ConfigError: A value is not one of those allowed.
    """
    if not context.has_asset_key:
        raise ConfigError("the PostgreSQL IO manager stores assets; give this op's output another IO manager")
    chosen, columns = facts["mode"], facts["columns"]
    key = facts.get("key") or ()
    key = (key,) if isinstance(key, str) else tuple(key)
    if chosen not in _MODES:
        raise ConfigError(f"{context.asset_key.to_user_string()}: mode {chosen!r} is none of {', '.join(_MODES)}")
    if columns not in _COLUMNS:
        raise ConfigError(f"{context.asset_key.to_user_string()}: columns {columns!r} is none of {', '.join(_COLUMNS)}")
    if chosen == "upsert" and not key:
        raise ConfigError(f"{context.asset_key.to_user_string()}: mode upsert needs metadata 'key'")
    table = _table(context.asset_key.path, facts, schema)
    return _Target(table=table, mode=chosen, key=key, columns=columns, partition_expr=facts.get("partition_expr"))


def _table(path: Sequence[str], facts: Mapping[str, Any], schema: str) -> "TableName":
    from tidemill_core.postgres import TableName

    domain = "_".join(path[:-1]) or schema
    named = str(facts.get("table") or "")
    if "." in named:
        return TableName.parse(named)
    return TableName(str(facts.get("schema") or domain), named or path[-1])


def _write(conn: "psycopg.Connection[Any]", context: dg.OutputContext, target: _Target, data: Any) -> "CopyResult":
    from tidemill_core import postgres

    if target.mode == "replace" and not context.has_asset_partitions:
        return postgres.swap_in(conn, target.table, data, primary_key=target.key)
    with conn.transaction():
        postgres.create_table(conn, target.table, data.schema, target.key)
        _fit_columns(conn, target, data.schema)
        if target.mode == "upsert":
            return postgres.upsert(conn, target.table, data, target.key)
        if target.mode == "append":
            return postgres.copy_into(conn, target.table, data)
        if context.has_asset_partitions:
            return _replace_partitions(conn, context, target, data)
        with postgres.postgres_errors(f"truncate {target.table}"):
            conn.execute(f"TRUNCATE {target.table.quoted}".encode())
        return postgres.copy_into(conn, target.table, data)


def _fit_columns(conn: "psycopg.Connection[Any]", target: _Target, schema: "pa.Schema") -> None:
    """Add new columns, or refuse them; refuse data without a column that the table insists on.

    Raises:
        PermanentError: Says which columns, and what to do.
    """
    from tidemill_core import postgres

    if target.columns == "add":
        postgres.add_columns(conn, target.table, schema)
    known = postgres.column_types(conn, target.table)
    new = [name for name in schema.names if name not in known]
    if new:
        raise PermanentError(
            f"{target.table} has no column {', '.join(map(repr, new))}; it has {', '.join(map(repr, known))}. "
            "Say `columns: add` in the asset's metadata to add what is new, or leave it out"
        )
    lacking = [
        column.name
        for column in known.values()
        if column.name not in schema.names and not (column.nullable or column.has_default or column.generated)
    ]
    if lacking:
        raise PermanentError(
            f"{target.table} takes no row without {', '.join(map(repr, lacking))} (NOT NULL, no default), and the "
            "data has no such column; add it to the data, or give the column a default"
        )


def _replace_partitions(
    conn: "psycopg.Connection[Any]", context: dg.OutputContext, target: _Target, data: Any
) -> "CopyResult":
    """Delete the partition's rows and write the new ones.

    Raises:
        PermanentError: Rows were given that belong to another partition.
    """
    from tidemill_core import postgres

    where = partitions.conditions(context, target.partition_expr, columns_of(conn, target), each=False)
    found = next(iter(where.values()))
    assert found is not None
    text, values = found
    with postgres.postgres_errors(f"replace a partition of {target.table}"):
        _lock_partitions(conn, target.table, context.asset_partition_keys)
        conn.execute(f"DELETE FROM {target.table.quoted} WHERE {text}".encode(), values)  # noqa: S608  # names quoted
        done = postgres.copy_into(conn, target.table, data)
        count = f"SELECT count(*) FROM {target.table.quoted} WHERE {text}"  # noqa: S608  # names quoted
        inside = conn.execute(count.encode(), values).fetchone()
    outside = done.rows - (inside[0] if inside else 0)
    if outside:
        keys = ", ".join(context.asset_partition_keys[:3])
        raise PermanentError(
            f"{target.table}: {outside} of {done.rows} rows lie outside the partition {keys}; nothing was written:"
            " filter them, or correct partition_expr"
        )
    return done


def _lock_partitions(conn: "psycopg.Connection[Any]", table: "TableName", keys: Sequence[str]) -> None:
    """Wait until no other transaction replaces these partitions; freed with the transaction.

    Without it two runs of one partition delete what they see, and both add their rows.
    """
    name = f"tidemill:partitions:{table}"
    if len(keys) > _LOCKS:
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
        return
    conn.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (name,))
    # In one order everywhere, so that two ranges that overlap do not wait for each other.
    for key in sorted(keys):
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{name}:{key}",))


def columns_of(conn: "psycopg.Connection[Any]", target: _Target) -> "Mapping[str, ColumnType]":
    """The columns of the target table by name; empty when it is not there."""
    from tidemill_core import postgres

    return postgres.column_types(conn, target.table) if postgres.table_exists(conn, target.table) else {}


def _columns(conn: "psycopg.Connection[Any]", table: "TableName") -> "list[ColumnType]":
    from tidemill_core import postgres

    return list(postgres.column_types(conn, table).values())


def _facts(
    conn: "psycopg.Connection[Any]",
    context: dg.OutputContext,
    target: _Target,
    columns: "Sequence[ColumnType]",
    written: int,
) -> dict[str, Any]:
    is_partition = context.has_asset_partitions
    return {
        "rows": None if is_partition else _count(conn, target.table),
        "partition_rows": written if is_partition else None,
        "table": f"{conn.info.dbname}.{target.table}",
        "schema": [(column.name, column.type, column.nullable) for column in columns],
    }


def _picked(columns: "Sequence[ColumnType]", names: Sequence[str] | None) -> "Sequence[ColumnType]":
    if not names:
        return columns
    known = {column.name: column for column in columns}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"no such columns: {', '.join(unknown)}; the table has {', '.join(known)}")
    return [known[name] for name in names]


def _count(conn: "psycopg.Connection[Any]", table: "TableName") -> int | None:
    """Count the rows, unless the server thinks that they are very many."""
    from tidemill_core.postgres import postgres_errors

    with postgres_errors(f"count {table}"):
        estimate = conn.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table.quoted,)).fetchone()
        if estimate and estimate[0] > _COUNT_UP_TO:
            return None
        row = conn.execute(f"SELECT count(*) FROM {table.quoted}".encode()).fetchone()  # noqa: S608  # names quoted
        return int(row[0]) if row else None
