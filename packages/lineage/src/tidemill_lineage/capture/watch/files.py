"""Files and tables that a traced call reads and writes by itself: recognised by the functions that do it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch.op import Door, Op, Rule, function_door, method_door
from tidemill_lineage.capture.watch.seen import Seen
from tidemill_lineage.capture.watch.trail import names_of
from tidemill_lineage.model import DatasetUrn

_READ = "read_csv read_parquet read_json read_feather read_orc read_excel read_pickle read_fwf read_table read_xml"
_POLARS_READ = "read_csv read_parquet read_json read_ndjson read_ipc read_ipc_stream read_avro read_excel read_delta"
_WRITE = "to_csv to_parquet to_json to_feather to_orc to_excel to_pickle to_xml"
_POLARS_WRITE = (
    "write_csv write_parquet write_json write_ndjson write_ipc write_ipc_stream write_avro write_excel write_delta"
)
_SINK = "sink_csv sink_parquet sink_ndjson sink_ipc"
_DUCKDB_WRITE = "write_csv write_parquet to_csv to_parquet"
_DATABASE = (
    "read_sql read_sql_query read_sql_table to_sql read_database read_database_uri write_database"
    " sql query execute from_query from_parquet write_table write_feather"
)
READERS_AND_WRITERS = frozenset(f"{_READ} {_POLARS_READ} {_WRITE} {_POLARS_WRITE} {_SINK} {_DATABASE}".split())
"""Names in the code of a function that may read or write by itself; without one, a call without frames has no doors."""
_TABLE = re.compile(r"^[\w.\"]+$")


def urn_of(place: Any) -> DatasetUrn | None:
    """The URN of a file: its URL without credentials, or the absolute path; None for what is no name."""
    if not isinstance(place, (str, os.PathLike)):
        return None
    path = os.fspath(place)
    if not isinstance(path, str):
        return None
    return without_credentials(path) if "://" in path else Path(path).absolute().as_uri()


def without_credentials(url: str) -> str:
    """A URL without user, password and query, which may hold a signature."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def pandas_doors(pd: Any) -> list[Door]:
    """Readers and writers of pandas."""
    found = [function_door(pd, name, _read) for name in _READ.split()]
    found += [function_door(pd, name, _read_sql) for name in ("read_sql", "read_sql_query", "read_sql_table")]
    for owner in (pd.DataFrame, pd.Series):
        found += [method_door(owner, name, _written) for name in _WRITE.split()]
        found.append(method_door(owner, "to_sql", _written_sql))
    return [each for each in found if each is not None]


def polars_doors(pl: Any) -> list[Door]:
    """Readers and writers of polars; what is scanned stands in the plan."""
    found = [function_door(pl, name, _read) for name in _POLARS_READ.split()]
    found += [function_door(pl, name, _read_sql) for name in ("read_database", "read_database_uri")]
    found += [method_door(pl.DataFrame, name, _written) for name in _POLARS_WRITE.split()]
    found.append(method_door(pl.DataFrame, "write_database", _written_sql))
    found += [method_door(pl.LazyFrame, name, _written) for name in _SINK.split()]
    return [each for each in found if each is not None]


def arrow_doors(modules: Mapping[str, Any]) -> list[Door]:
    """Readers and writers of those modules of pyarrow that are loaded."""
    table: tuple[tuple[str, str, Rule], ...] = (
        ("pyarrow.parquet", "read_table", _read), ("pyarrow.parquet", "write_table", _written_first),
        ("pyarrow.csv", "read_csv", _read), ("pyarrow.csv", "write_csv", _written_first),
        ("pyarrow.feather", "read_table", _read), ("pyarrow.feather", "read_feather", _read),
        ("pyarrow.feather", "write_feather", _written_first), ("pyarrow.json", "read_json", _read),
    )  # fmt: skip
    doors = (function_door(modules[name], each, rule) for name, each, rule in table if name in modules)
    return [each for each in doors if each is not None]


def duckdb_doors(relation: type) -> list[Door]:
    """Writers of DuckDB; what it reads stands in its SQL."""
    doors = (method_door(relation, name, _written) for name in _DUCKDB_WRITE.split())
    return [each for each in doors if each is not None]


def tables_in(sql: str, prefix: str, dialect: str) -> Iterable[tuple[str, Seen]]:
    """What a query gives, from the tables of a database."""
    from tidemill_lineage.capture.sql import sql_flows

    for table, found in sql_flows(sql, catalog={}, dialect=dialect):
        names = {urn: f"{prefix}/{urn.removeprefix('table://')}" for urn in flow.origins(found) | found.inputs}
        renamed = [
            {(names.get(urn, urn), column): how for (urn, column), how in each.items()}
            for each in (*found.columns.values(), found.rows)
        ]
        yield table, Seen(tuple(found.columns), tuple(renamed[:-1]), renamed[-1])


def database_of(connection: Any) -> tuple[str, str]:
    """URN of the database behind a connection, and the dialect it speaks.

    Args:
        connection: A URL, an SQLAlchemy engine or connection, or a connection of sqlite3 or psycopg.
    """
    if isinstance(connection, str):
        return _of_url(connection)
    url = getattr(getattr(connection, "engine", connection), "url", None)
    if url is not None:
        return _of_url(str(url))
    module = type(connection).__module__.partition(".")[0]
    if module == "sqlite3":
        rows = connection.execute("PRAGMA database_list").fetchall()
        file = next((row[2] for row in rows if row[1] == "main"), "")
        return f"sqlite://{file or '/:memory:'}", "sqlite"
    info = getattr(connection, "info", None)
    if module in ("psycopg", "psycopg2") and info is not None:
        return f"postgres://{info.host}:{info.port}/{info.dbname}", "postgres"
    return f"{module.lstrip('_')}://", {"duckdb": "duckdb", "_duckdb": "duckdb"}.get(module, "")


def _of_url(url: str) -> tuple[str, str]:
    scheme = urlsplit(url).scheme.partition("+")[0]
    named = {"postgresql": "postgres"}.get(scheme, scheme)
    found = without_credentials(url)
    return f"{named}://{found.partition('://')[2]}".rstrip("/"), named


def _read(op: Op) -> Seen | None:
    place = op.args[0] if op.args else next(iter(op.kwargs.values()), None)
    urn = urn_of(place)
    names = names_of(op.result)
    if urn is None or names is None:
        return None
    return _came_in(op, Seen.base(urn, names), [urn])


def _read_sql(op: Op) -> Seen | None:
    given = [*op.args, *op.kwargs.values()]
    query = str(given[0])
    connection = next((op.kwargs[name] for name in ("con", "connection", "uri") if name in op.kwargs), op.arg("con", 1))
    prefix, dialect = database_of(connection)
    names = names_of(op.result) or ()
    if _TABLE.match(query):
        urn = f"{prefix}/{query}"
        return _came_in(op, Seen.base(urn, names), [urn])
    *_, (_, found) = tables_in(query, prefix, dialect)
    urns = {urn for each in (*found.values, found.rows) for urn, _ in each}
    if len(found.names) != len(names):
        whole = {(urn, ""): frozenset({"TRANSFORMATION?"}) for urn in urns}
        found = Seen(names, (whole,) * len(names), found.rows)
    return _came_in(op, found.renamed(names), sorted(urns))


def _came_in(op: Op, seen: Seen, urns: list[DatasetUrn]) -> Seen | None:
    """A table that the call read by itself: an origin beside its inputs."""
    for urn in urns:
        op.trail.reads[urn] = tuple(dict.fromkeys(name for name in _columns_of(seen, urn) if name))
    module = type(op.result).__module__.partition(".")[0]
    op.trail.come_in(module)
    if module == "polars":
        op.trail.explain(op.result, seen)
        return None
    op.trail.remember(op.result, seen)
    return seen


def _columns_of(seen: Seen, urn: DatasetUrn) -> Iterable[str]:
    return (name for each in (*seen.values, seen.rows) for source, name in each if source == urn)


def _written(op: Op) -> Influences | None:
    place = op.args[0] if op.args else next(iter(op.kwargs.values()), None)
    _went_out(op, op.me, urn_of(place))
    # without a place it is a text
    return op.seen.whole() if isinstance(op.result, (str, bytes)) else None


def _written_first(op: Op) -> None:
    """A function that takes the table first, and the place second."""
    table, place, *_ = [*op.args, *op.kwargs.values()]
    if names_of(table) is None:
        table, place = place, table
    _went_out(op, table, urn_of(place))


def _written_sql(op: Op) -> None:
    name = op.kwargs.get("name", op.kwargs.get("table_name", op.arg("name", 0)))
    connection = op.kwargs.get("con", op.kwargs.get("connection", op.arg("con", 1)))
    schema = op.kwargs.get("schema")
    table = f"{schema}.{name}" if schema else str(name)
    _went_out(op, op.me, f"{database_of(connection)[0]}/{table}")


def _went_out(op: Op, table: Any, urn: DatasetUrn | None) -> None:
    if urn is not None:
        op.trail.wrote(urn, table)
