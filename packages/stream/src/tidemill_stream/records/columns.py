"""Turn records, closed windows and dead letters into Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tidemill_stream.config import ColumnType
from tidemill_stream.progress import Partition
from tidemill_stream.records.event_time import time_parser
from tidemill_stream.records.fields import Loose, access, compile_function

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_stream.windows.windows import ClosedWindow

DLQ_COLUMNS = (
    "pipeline",
    "topic",
    "partition",
    "offset",
    "timestamp",
    "key",
    "value",
    "headers",
    "reason",
    "path",
    "message",
    "schema_hash",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One output column and the field it is filled from."""

    name: str
    path: str
    type: ColumnType
    format: str = "iso8601"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was set aside, whole, with the reason."""

    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: str | None
    reason: str
    path: str
    message: str


def arrow_type(kind: ColumnType) -> pa.DataType:
    """Map a column type to Arrow; JSON stands as text."""
    import pyarrow as pa

    return {
        "string": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "json": pa.string(),
    }[kind]


def rows_schema(columns: Sequence[Column]) -> pa.Schema:
    """Schema of the row output: the columns, then where in Kafka each row came from."""
    import pyarrow as pa

    own = [
        pa.field(c.name, arrow_type(c.type), metadata={"tidemill.json": "true"} if c.type == "json" else None)
        for c in columns
    ]
    place = [("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.int64())]
    return pa.schema([*own, *(pa.field(name, kind, nullable=False) for name, kind in place)])


def windows_schema(keys: Sequence[Column], values: Sequence[tuple[str, ColumnType]]) -> pa.Schema:
    """Schema of the window output: keys, bounds, aggregates, then topic and partition."""
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            *(pa.field(key.name, arrow_type(key.type)) for key in keys),
            pa.field("window_start", stamp, nullable=False),
            pa.field("window_end", stamp, nullable=False),
            *(pa.field(name, arrow_type(kind)) for name, kind in values),
            pa.field("_topic", pa.string(), nullable=False),
            pa.field("_partition", pa.int32(), nullable=False),
        ]
    )


def dlq_schema() -> pa.Schema:
    """Schema of the dead letters."""
    import pyarrow as pa

    types = [pa.string(), pa.string(), pa.int32(), pa.int64(), pa.timestamp("us", tz="UTC"), pa.binary(), pa.binary(),
             pa.string(), pa.string(), pa.string(), pa.string(), pa.string()]  # fmt: skip
    return pa.schema(list(zip(DLQ_COLUMNS, types, strict=True)))


class RowEncoder:
    """Builds record batches of the row output."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.schema = rows_schema(columns)
        self._read = [_column_reader(column) for column in columns]

    def encode(self, records: Sequence[Any], offsets: Sequence[int], partition: Partition) -> pa.RecordBatch:
        """Build one batch, in the order given."""
        import pyarrow as pa

        arrays = [_array(read(records), field.type) for read, field in zip(self._read, self.schema, strict=False)]
        count = len(records)
        arrays += [
            pa.repeat(pa.scalar(partition.topic), count),
            pa.repeat(pa.scalar(partition.number, pa.int32()), count),
            pa.array(offsets, pa.int64()),
        ]
        return pa.record_batch(arrays, schema=self.schema)


def encode_windows(windows: Sequence[ClosedWindow], schema: pa.Schema, partition: Partition) -> pa.RecordBatch:
    """Build one batch of closed windows, in the order given."""
    import pyarrow as pa

    rows = [
        (*window.key, window.start_us, window.end_us, *window.values, partition.topic, partition.number)
        for window in windows
    ]
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.record_batch([_array(list(c), f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def encode_dead(letters: Sequence[DeadLetter], pipeline: str, schema_hash: str, partition: Partition) -> pa.RecordBatch:
    """Build one batch of dead letters, in the order given."""
    import pyarrow as pa

    rows = [
        (
            pipeline, partition.topic, partition.number, letter.offset,
            None if letter.timestamp_ms is None else letter.timestamp_ms * 1000,
            letter.key, letter.value, letter.headers, letter.reason, letter.path, letter.message, schema_hash,
        )
        for letter in letters
    ]  # fmt: skip
    schema = dlq_schema()
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.record_batch([pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError):
        if not pa.types.is_floating(kind):
            raise
        return pa.array([None if value is None else float(value) for value in values], kind)  # whole numbers over 2**53


def _column_reader(column: Column) -> Callable[[Sequence[Any]], list[Any]]:
    value, namespace = access(column.path), dict[str, Any]()
    if column.type == "timestamp":
        namespace["convert"] = time_parser(column.format)
    elif column.type == "json":
        namespace["convert"] = _json_text
    if namespace:
        value = f"None if (v := {value}) is None else convert(v)"
    return compile_function("column", f"def column(rs):\n    return [{value} for r in rs]\n", namespace)


def _json_text(value: Any) -> str:
    plain = value.raw if isinstance(value, Loose) else value
    try:
        return orjson.dumps(plain).decode()
    except TypeError:
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))  # whole numbers over 64 bits
