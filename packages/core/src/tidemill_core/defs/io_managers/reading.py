"""Read PostgreSQL rows as Arrow: COPY as CSV, parsed by Arrow with the types the columns have.

Types: booleans, integers, floats, dates, times and timestamps as their own, ``numeric(p,s)``
as decimal, ``numeric`` without precision as double, ``bytea`` as binary, arrays of simple types
as lists, everything else as the text PostgreSQL writes (other arrays as JSON text).
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from tidemill_core.errors import PermanentError

if TYPE_CHECKING:
    import polars as pl
    import psycopg
    import pyarrow as pa

    from tidemill_core.postgres import ColumnType, TableName

Condition = tuple[str, list[Any]]
"""A SQL condition with ``%s`` for each of the values; the text holds quoted names only."""

_SPOOL_BYTES = 32 << 20
_DECIMAL_DIGITS = 38
_JSON_ELEMENTS = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "uuid"})


def read_batches(
    conn: "psycopg.Connection[Any]",
    table: "TableName",
    columns: "Sequence[ColumnType]",
    where: Condition | None = None,
    limit: int | None = None,
) -> Iterator["pa.RecordBatch"]:
    """Yield a table's rows; the server is done before the first batch comes.

    Args:
        conn: An open connection.
        table: What to read.
        columns: Which columns, in this order; at least one.
        where: Only these rows.
        limit: At most this many rows.

    Raises:
        PostgresError: The server refused, or could not be reached.
        PermanentError: A value (an infinite date) has no place in Arrow.
    """
    import pyarrow as pa

    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        _copy_out(conn, table, columns, where, limit, spool)
        if spool.tell() == 0:
            return
        spool.seek(0)
        try:
            for batch in _parsed(spool, columns):
                yield _decoded(batch, columns)
        except pa.ArrowInvalid as error:
            raise PermanentError(f"{table}: a value has no place in Arrow: {error}") from error


def _parsed(spool: IO[bytes], columns: "Sequence[ColumnType]") -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa
    from pyarrow import csv

    names = [column.name for column in columns]
    yield from csv.open_csv(
        pa.PythonFile(spool, mode="r"),
        read_options=csv.ReadOptions(column_names=names, block_size=4 << 20),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types={column.name: _parsed_type(column) for column in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def _parsed_type(column: "ColumnType") -> "pa.DataType":
    import pyarrow as pa

    as_text = column.base == "bytea" or column.element is not None
    return pa.string() if as_text else arrow_type(column)


def read_table(
    conn: "psycopg.Connection[Any]",
    table: "TableName",
    columns: "Sequence[ColumnType]",
    where: Condition | None = None,
) -> "pa.Table":
    """Read a table's rows whole; see `read_batches`."""
    import pyarrow as pa

    return pa.Table.from_batches(read_batches(conn, table, columns, where), schema=arrow_schema(columns))


def scan_table(
    connect: Any, table: "TableName", columns: "Sequence[ColumnType]", where: Condition | None = None
) -> "pl.LazyFrame":
    """Make a LazyFrame of a table: only the columns that are used, and no more rows than a limit asks, are read.

    Args:
        connect: Opens a connection, at each collect.
        table: What to read.
        columns: The columns it shows.
        where: Only these rows.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    def source(
        with_columns: list[str] | None, predicate: "pl.Expr | None", n_rows: int | None, batch_size: int | None
    ) -> "Iterator[pl.DataFrame]":
        del batch_size
        picked = [each for each in columns if with_columns is None or each.name in with_columns] or [columns[0]]
        limit = n_rows if predicate is None else None
        with connect() as conn:
            for batch in read_batches(conn, table, picked, where, limit):
                frame = pl.DataFrame(batch).select(with_columns if with_columns is not None else pl.all())
                yield frame if predicate is None else frame.filter(predicate)

    schema = pl.DataFrame(arrow_schema(columns).empty_table()).schema
    return register_io_source(source, schema=schema)


def arrow_schema(columns: "Sequence[ColumnType]") -> "pa.Schema":
    """The Arrow schema of what `read_batches` yields."""
    import pyarrow as pa

    return pa.schema([(each.name, arrow_type(each)) for each in columns])


def arrow_type(column: "ColumnType") -> "pa.DataType":
    """Choose the Arrow type of a column."""
    import pyarrow as pa

    if column.element is not None:
        return pa.list_(arrow_type(column.element)) if column.element.base in _JSON_ELEMENTS else pa.string()
    if column.base == "numeric":
        precision, scale = column.precision or 0, column.scale or 0
        exact = 0 < precision <= _DECIMAL_DIGITS and 0 <= scale <= precision
        return pa.decimal128(precision, scale) if exact else pa.float64()
    simple = {
        "bool": pa.bool_(),
        "int2": pa.int16(),
        "int4": pa.int32(),
        "int8": pa.int64(),
        "float4": pa.float32(),
        "float8": pa.float64(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
        "bytea": pa.binary(),
    }
    return simple.get(column.base, pa.string())


def _copy_out(
    conn: "psycopg.Connection[Any]",
    table: "TableName",
    columns: "Sequence[ColumnType]",
    where: Condition | None,
    limit: int | None,
    out: IO[bytes],
) -> None:
    from tidemill_core.postgres import postgres_errors

    text, values = where or ("true", [])
    picked = ", ".join(map(_expression, columns))
    query = f"SELECT {picked} FROM {table.quoted} WHERE {text}"  # noqa: S608  # every name is quoted
    query += f" LIMIT {limit:d}" if limit is not None else ""
    with postgres_errors(f"read {table}"), conn.transaction(), conn.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute("SET LOCAL DateStyle = 'ISO, YMD'")
        cursor.execute("SET LOCAL bytea_output = 'hex'")
        cursor.execute("SET LOCAL extra_float_digits = 1")
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT CSV)".encode(), values) as rows:
            for chunk in rows:
                out.write(chunk)


def _expression(column: "ColumnType") -> str:
    from tidemill_core.postgres import quote

    name = quote(column.name)
    return f"to_json({name})" if column.element is not None else name


def _decoded(batch: "pa.RecordBatch", columns: "Sequence[ColumnType]") -> "pa.RecordBatch":
    """Turn the text of bytea and array columns into bytes and lists."""
    import pyarrow as pa

    schema = arrow_schema(columns)
    if batch.schema.equals(schema):
        return batch
    arrays = list(batch.columns)
    for at, field in enumerate(schema):
        if arrays[at].type != field.type:
            decode = _from_hex if pa.types.is_binary(field.type) else json.loads
            arrays[at] = pa.array([text and decode(text) for text in arrays[at].to_pylist()], field.type)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _from_hex(text: str) -> bytes:
    return bytes.fromhex(text[2:])
