"""Write encoded records as JSON, NDJSON, CSV or Arrow; only CSV, Arrow and projections decode them again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.records import exact

MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def project(docs: Iterable[bytes], columns: Sequence[str] | None) -> Iterator[bytes]:
    """Keep some columns of encoded records, in the order asked for."""
    if columns is None:
        yield from docs
        return
    for doc in docs:
        record = exact.loads(doc)
        yield exact.dumps({name: record.get(name) for name in columns})


def json_page(docs: Sequence[bytes], following: str) -> bytes:
    """Write one page: ``{"data": [...], "next": CURSOR or null}``."""
    tail = b'"' + following.encode() + b'"' if following else b"null"
    return b'{"data":[' + b",".join(docs) + b'],"next":' + tail + b"}"


def ndjson(docs: Sequence[bytes]) -> bytes:
    """Write one record a line."""
    return b"\n".join(docs) + b"\n" if docs else b""


def csv_rows(docs: Iterable[bytes], columns: Sequence[str], *, has_header: bool, is_guarded: bool = True) -> bytes:
    """Write comma-separated lines; guarded, texts that a spreadsheet would run as formulas get a leading quote."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if has_header:
        writer.writerow(columns)
    for doc in docs:
        record = exact.loads(doc)
        writer.writerow([_cell(record.get(name), is_guarded=is_guarded) for name in columns])
    return out.getvalue().encode()


def arrow_stream(stream: StreamConfig, docs: Iterable[bytes], columns: Sequence[str]) -> bytes:
    """Write one Arrow IPC stream."""
    import pyarrow as pa

    from tidemill_ingest_api.records.arrow import schema_of, to_batch

    schema = schema_of(stream, columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(to_batch(stream, [exact.loads(doc) for doc in docs], columns))
    return bytes(sink.getvalue())


def _cell(value: Any, *, is_guarded: bool) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return exact.dumps(value).decode()
    if is_guarded and isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value
