"""Write Arrow data into a table by binary COPY, encoded for the table's own column types."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from tidemill_core.postgres.adapt import encode_column
from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.postgres.errors import ColumnRefused, ValueRefused
from tidemill_core.postgres.identifiers import TableName, quote
from tidemill_core.postgres.policy import Policy
from tidemill_core.postgres.types import ColumnType, column_types

if TYPE_CHECKING:
    import psycopg

Arrow = Any
"""A pyarrow Table, RecordBatch, RecordBatchReader, an iterable of batches, or any Arrow stream (polars)."""

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
SLICE_ROWS, SLICE_BYTES = 65_536, 32 << 20
"""Rows and bytes encoded at a time, so that memory stays bounded however large a batch is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """What one write did; `bytes` counts the wire format."""

    rows: int
    bytes: int
    seconds: float


class CopyWriter:
    """One open COPY; a context manager. The caller's transaction decides when rows become visible.

    Args:
        conn: An open connection.
        table: An existing table.
        schema: Names the columns that come, in any order; others get their defaults.
        policy: What may change on the way; by default nothing.
        targets: The table's columns, where the caller has read them already.

    Raises:
        ColumnRefused: A column is not in the table, or is a generated one.

    Example:
        >>> with CopyWriter(conn, "raw.weather", table.schema) as writer:  # doctest: +SKIP
        ...     writer.write(table)
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        table: TableName | str,
        schema: pa.Schema,
        *,
        policy: Policy | None = None,
        targets: dict[str, ColumnType] | None = None,
    ) -> None:
        self.table, self.schema, self.policy = TableName.parse(table), schema, policy or Policy()
        self.rows = self.bytes = 0
        known = targets or column_types(conn, self.table)
        self._targets = [_target(name, known, self.table) for name in unique_names(schema)]
        self._conn = conn
        self._encoder: Any = None
        self._wire: pa.Schema | None = None
        self._manager: Any = None
        self._copy: Any = None

    def __enter__(self) -> Self:
        columns = ", ".join(quote(target.name) for target in self._targets)
        statement = f"COPY {self.table.quoted} ({columns}) FROM STDIN (FORMAT BINARY)"
        with postgres_errors(f"COPY into {self.table}"):
            self._manager = self._conn.cursor().copy(statement.encode())
            self._copy = self._manager.__enter__()
            self._send(HEADER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with postgres_errors(f"COPY into {self.table}"):
            if kind is None:
                self._flush()
                self._send(TRAILER)
            self._manager.__exit__(kind, error, trace)

    def write(self, data: pa.RecordBatch | pa.Table) -> int:
        """Encode and send rows; answers how many.

        Raises:
            ColumnRefused, ValueRefused: Something cannot be written exactly; the COPY
                must be abandoned (leave the block by the exception).
            PostgresError: The server refused.
        """
        before = self.rows
        for batch in data.to_batches() if isinstance(data, pa.Table) else (data,):
            for part in sliced(batch):
                self._write(part)
        return self.rows - before

    def _write(self, batch: pa.RecordBatch) -> None:
        if batch.schema.names != self.schema.names:
            batch = batch.select(self.schema.names)
        columns = []
        for target, column in zip(self._targets, batch.columns, strict=True):
            try:
                columns.append(encode_column(column, target, self.policy))
            except ValueRefused as error:
                raise ValueRefused(error.column, error.row + self.rows, error.reason) from error
        wire = pa.RecordBatch.from_arrays(columns, names=[str(at) for at in range(len(columns))])
        with postgres_errors(f"COPY into {self.table}"):
            self._use_encoder(wire.schema)
            self._send(self._encoder.write_batch(wire))
        self.rows += batch.num_rows

    def _use_encoder(self, schema: pa.Schema) -> None:
        if self._wire is not None and self._wire.equals(schema):
            return
        from pgpq import ArrowToPostgresBinaryEncoder

        self._flush()
        self._encoder, self._wire = ArrowToPostgresBinaryEncoder(schema), schema
        self._encoder.write_header()  # ours is sent once; the encoder insists on its own first

    def _flush(self) -> None:
        """Send what the encoder holds back, without its trailer."""
        if self._encoder is not None:
            self._send(self._encoder.finish().removesuffix(TRAILER))
            self._encoder = self._wire = None

    def _send(self, data: bytes) -> None:
        if data:
            self._copy.write(data)
            self.bytes += len(data)


def _target(name: str, known: dict[str, ColumnType], table: TableName) -> ColumnType:
    if name not in known:
        raise ColumnRefused(name, f"{table} has no such column; it has {', '.join(map(repr, known))}")
    if known[name].generated:
        raise ColumnRefused(name, f"{table} computes this column itself; leave it out")
    return known[name]


def unique_names(schema: pa.Schema) -> list[str]:
    """Return the names of a schema.

    Raises:
        ColumnRefused: One occurs twice.
    """
    seen: set[str] = set()
    for name in schema.names:
        if name in seen:
            raise ColumnRefused(name, "the data has two columns of this name; rename one")
        seen.add(name)
    return list(schema.names)


def sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch into parts of bounded rows and (about) bytes; none for an empty one."""
    if batch.num_rows == 0:
        return
    parts = max(-(-batch.num_rows // SLICE_ROWS), -(-batch.nbytes // SLICE_BYTES))
    size = -(-batch.num_rows // parts)
    for start in range(0, batch.num_rows, max(1, size)):
        yield batch.slice(start, size)


def stream_of(data: Arrow) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Answer the schema and the batches of anything Arrow.

    Raises:
        TypeError: It is nothing Arrow, or an iterable without a single batch.
    """
    if isinstance(data, pa.RecordBatch):
        return data.schema, iter((data,))
    if isinstance(data, pa.Table):
        return data.schema, iter(data.to_batches())
    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
        return reader.schema, iter(reader)
    if not isinstance(data, Iterable):
        raise TypeError(f"{type(data).__name__} is no Arrow data; give a Table, RecordBatch, reader or batches")
    batches = iter(data)
    first = next(batches, None)
    if first is None:
        raise TypeError("an iterable of no batches has no schema; give a Table or a RecordBatchReader")
    return first.schema, chain((first,), batches)


def copy_into(
    conn: psycopg.Connection[Any],
    table: TableName | str,
    data: Arrow,
    *,
    policy: Policy | None = None,
) -> CopyResult:
    """Append Arrow data to an existing table: all of it, or nothing.

    In a transaction of the caller's it becomes a savepoint; else it commits.

    Raises:
        ColumnRefused, ValueRefused: Something cannot be written exactly.
        PostgresError: The server refused, or could not be reached.
    """
    started = time.monotonic()
    name = TableName.parse(table)
    schema, batches = stream_of(data)
    with postgres_errors(f"COPY into {name}"), conn.transaction():
        with CopyWriter(conn, name, schema, policy=policy) as writer:
            for batch in batches:
                writer.write(batch)
        return CopyResult(rows=writer.rows, bytes=writer.bytes, seconds=time.monotonic() - started)
