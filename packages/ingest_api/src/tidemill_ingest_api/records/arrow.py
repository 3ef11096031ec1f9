"""A stream's rows as Arrow: for COPY into PostgreSQL and for readers who ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.records import exact
from tidemill_ingest_api.records.kinds import KINDS

_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "json": pa.string(),
}


def arrow_type(field_type: str) -> pa.DataType:
    """The Arrow type of a field type."""
    return _TYPES[KINDS[field_type].arrow]


def schema_of(stream: StreamConfig, columns: Sequence[str]) -> pa.Schema:
    """The schema of some columns of a stream."""
    return pa.schema([(name, arrow_type(stream.fields[name].type)) for name in columns])


def to_batch(stream: StreamConfig, records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pa.RecordBatch:
    """Build a batch from decoded records."""
    schema = schema_of(stream, columns)
    arrays = []
    for name, field in zip(columns, schema, strict=True):
        kind = KINDS[stream.fields[name].type]
        values = [record.get(name) for record in records]
        if kind.arrow == "json":
            values = [None if value is None else exact.dumps(value).decode() for value in values]
        elif kind.arrow in {"timestamp", "date"}:
            values = [None if value is None else kind.parse(value) for value in values]
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
