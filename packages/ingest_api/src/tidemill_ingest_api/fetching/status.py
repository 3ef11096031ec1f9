"""Where a source's streams stand, read from the store without a request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.fetch import table_spec
from tidemill_ingest_api.fetching.first import first_url
from tidemill_ingest_api.fetching.partitions import first_window, value_partitions, window_values, windows
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.stores._base import Load, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What a run of a stream would begin with."""

    stream: str
    table: str
    store: str
    url: str
    is_new: bool
    rows: int
    known_pages: int
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """Every stream, and the newest lines of the load log."""

    source: str
    streams: tuple[StreamPlan, ...]
    loads: tuple[Load, ...]


def plan_stream(source: SourceConfig, stream: StreamConfig, store: Store, base_url: str) -> StreamPlan:
    """Say where a stream stands and which URL a run would ask first."""
    spec = table_spec(source, stream)
    state = store.state(spec)
    cursor = state.cursor if state else None
    values: dict[str, str | None] = {**value_partitions(stream)[0].values}
    values["cursor"] = cursors.request_text(stream, cursor)
    if stream.window is not None:
        whole = first_window(stream.window, cursor, datetime.now(UTC))
        values |= window_values(stream.window, next(windows(stream.window, whole), whole))
    return StreamPlan(
        stream=stream.name,
        table=store.shown_name(spec),
        store=store.url,
        url=shown(first_url(base_url, stream, values)),
        is_new=state is None,
        rows=store.count(spec),
        known_pages=len(state.pages) if state else 0,
        cursor=cursor,
    )


def source_status(source: SourceConfig, store: Store, *, limit: int = 10) -> SourceStatus:
    """Read every stream's state and the last loads."""
    return SourceStatus(
        source=source.source,
        streams=tuple(plan_stream(source, stream, store, source.base_url) for stream in source.streams),
        loads=tuple(store.loads(source.source, limit=limit)),
    )
