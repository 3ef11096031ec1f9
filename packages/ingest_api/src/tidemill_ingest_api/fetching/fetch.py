"""Fetch streams into a store: pages to records to rows, committed with the state that says so.

Each commit holds the rows of whole pages, those pages' ETags and the load log; the
last one also moves the cursor. Killed anywhere and run again, a stream ends with the
same table; pages that were committed are skipped by 304 where the API has ETags.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from tidemill_core.lifecycle import StopToken
from tidemill_core.lineage_hooks import Column, announce_wrote
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api import metrics
from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.errors import ListMoved, RecordRejected
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.first import Values, first_url
from tidemill_ingest_api.fetching.moving import Reading
from tidemill_ingest_api.fetching.pages import Page, read_pages
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.paging._base import PlacePaging
from tidemill_ingest_api.records.flatten import Flattener, Row, compile_stream
from tidemill_ingest_api.stores._base import Commit, LoadStatus, PageState, Store, StreamState, TableSpec, Writer

log = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class StreamReport:
    """What a fetch of one stream did.

    Attributes:
        not_modified: Pages skipped because of 304.
        records: Records read from the other pages.
        unchanged: Records whose row was equal already; nothing was written for them.
        duplicates: Records replaced by a later one with the same key in the same batch.
        rejected: Records left out (`on_bad_record: skip`).
        rereads: Times the list was read again because it moved while it was read.
        wait_s: Seconds waited for the API's limits and between tries.
    """

    source: str
    stream: str
    table: str = ""
    load_id: str = ""
    requests: int = 0
    retries: int = 0
    pages: int = 0
    not_modified: int = 0
    records: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicates: int = 0
    rejected: int = 0
    rereads: int = 0
    bytes: int = 0
    commits: int = 0
    wait_s: float = 0.0
    seconds: float = 0.0
    cursor: str | None = None
    rows: int = 0
    version: int = 0

    @property
    def is_unchanged(self) -> bool:
        """Whether no row was written."""
        return self.inserted + self.updated == 0


OnPage = Callable[[StreamReport], None]


def run_source(
    source: SourceConfig,
    store: Store,
    client: Client,
    *,
    streams: Iterable[str] = (),
    is_full: bool = False,
    stop: StopToken | None = None,
    on_page: OnPage | None = None,
) -> list[StreamReport]:
    """Fetch some streams of a source, or all, one after another.

    Raises:
        UnknownTable: There is no such stream.
        UpstreamError: The API failed; everything committed so far stays.
        ListMoved: Every reading of a list was another; everything committed so far stays.
        StoreError: The store failed.
        Stopped: `stop` was set; everything committed so far stays.
    """
    chosen = [source.stream(name) for name in streams] or source.streams
    return [run_stream(source, stream, store, client, is_full=is_full, stop=stop, on_page=on_page) for stream in chosen]


def run_stream(
    source: SourceConfig,
    stream: StreamConfig,
    store: Store,
    client: Client,
    *,
    is_full: bool = False,
    stop: StopToken | None = None,
    on_page: OnPage | None = None,
) -> StreamReport:
    """Fetch one stream to its end.

    Args:
        source: Where from.
        stream: One of its streams.
        store: Where to.
        client: Asks the API; its base URL is already looked up.
        is_full: Read every page again, from the beginning; equal rows are still not rewritten.
        stop: Checked before every page.
        on_page: Told the running report after every page.

    Returns:
        What was done.
    """
    began, before = time.monotonic(), _snapshot(client)
    spec = table_spec(source, stream)
    with store.writer(spec) as writer:
        load = _Load(stream, writer, StreamReport(source=source.source, stream=stream.name))
        load.report.table = store.shown_name(spec)
        known = StreamState() if is_full else load.state
        values = {"cursor": cursors.request_text(stream, known.cursor)}
        for pages in load.readings(source, client, known.pages, values):
            for page in pages:
                if stop:
                    stop.raise_if_set()
                load.take(page)
                if len(load.rows) >= stream.batch_rows:
                    load.commit("partial")
                _traffic(load.report, client, before)
                if on_page:
                    on_page(load.report)
        load.report.seconds = round(time.monotonic() - began, 3)
        load.commit("done")
    load.report.rows = store.count(spec)
    _tell(source, stream, store, client, load.report)
    return load.report


def _tell(source: SourceConfig, stream: StreamConfig, store: Store, client: Client, report: StreamReport) -> None:
    """Tell metrics, log and lineage what was done."""
    labels = {"source": source.source, "stream": stream.name}
    metrics.LAST_SUCCESS.labels(**labels).set(time.time())
    lag_s = cursors.lag_s(stream, report.cursor, datetime.now(UTC))
    if lag_s is not None:
        metrics.CURSOR_LAG.labels(**labels).set(lag_s)
    log.info("stream_fetched", **{name: value for name, value in asdict(report).items() if value})
    spec = table_spec(source, stream)
    announce_wrote(
        store.dataset_urn(spec),
        job=f"ingest.{source.source}.{stream.name}",
        inputs=[shown(client.base_url + ("/" + stream.path.lstrip("/") if stream.path else ""))],
        columns=[Column(name=name, type=type_) for name, type_ in spec.columns.items()],
        rows=report.rows,
        asset_key="/".join(stream.asset_path),
    )


def table_spec(source: SourceConfig, stream: StreamConfig) -> TableSpec:
    """Derive a stream's table; its fingerprint changes with whatever changes the rows."""
    what = stream.model_dump(mode="json", include={"path", "params", "records", "zip_columns", "fields", "on_unknown"})
    if stream.method == "POST":  # added only here: streams of before keep their fingerprint
        what |= {"method": stream.method, "body": stream.body}
    seed = [source.base_url, what, stream.primary_key]
    return TableSpec(
        source=source.source,
        stream=stream.name,
        table=stream.table_name,
        columns={name: each.type for name, each in stream.fields.items()},
        primary_key=stream.primary_key,
        indexes=tuple(dict.fromkeys([*stream.serve.filters, *stream.serve.sort])),
        cursor=stream.cursor.field if stream.cursor else None,
        fingerprint=sha256(orjson.dumps(seed, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16],
    )


class _Load:
    """One run of one stream: what was read and not yet committed."""

    def __init__(self, stream: StreamConfig, writer: Writer, report: StreamReport) -> None:
        self.report, self.state, self.rows = report, writer.state(), dict[tuple[Any, ...], Row]()
        self._stream, self._writer = stream, writer
        self._compiled: Flattener = compile_stream(stream)
        self._cursor_at = list(stream.fields).index(stream.cursor.field) if stream.cursor else None
        self._cursor = self.state.cursor
        self._pages: list[PageState] = []
        self._seen: set[str] = set()
        self._reading = Reading(stream.paginate)
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        report.load_id = f"{self._started_at.replace(':', '').replace('-', '')[:19]}-{secrets.token_hex(4)}"

    def readings(
        self, source: SourceConfig, client: Client, known: Mapping[str, PageState], values: Values
    ) -> Iterator[Iterator[Page]]:
        """Give the pages of the list, and give them again while it moves under the reader.

        Raises:
            ListMoved: It moved in every reading that `paginate.rereads` allows.
        """
        paging, before = self._stream.paginate, None
        rereads = paging.rereads if isinstance(paging, PlacePaging) else 0
        for number in range(1, rereads + 2):
            yield read_pages(source, self._stream, client, known, values)
            reason = self._reading.again(before)
            if not reason:
                return
            log.warning("list_read_again", stream=self._stream.name, reading=number, reason=reason)
            # Without conditions: what did not change since the last run may have moved within this one.
            before, self._reading, known = self._reading, Reading(paging), {}
            self.commit("partial")
            self.report.rereads += 1
        if rereads:
            raise ListMoved(shown(first_url(client.base_url, self._stream, values)), rereads + 1, reason)

    def take(self, page: Page) -> None:
        """Add a page's rows and state."""
        self.report.pages += 1
        self._seen.add(page.key)
        if page.is_unchanged:
            self.report.not_modified += 1
            labels = {"source": self.report.source, "stream": self.report.stream}
            metrics.NOT_MODIFIED.labels(**labels).inc()
            known = self.state.pages[page.key]
            self._reading.skip()
            self._cursor = cursors.greater(self._stream, self._cursor, known.cursor)
            return
        greatest, keys = self._add(page.records)
        self._reading.take(keys, records=len(page.records), total=page.total)
        self._cursor = cursors.greater(self._stream, self._cursor, greatest)
        if page.etag or page.last_modified:
            self._pages.append(
                PageState(
                    key=page.key,
                    etag=page.etag,
                    last_modified=page.last_modified,
                    next=page.next_key,
                    records=len(page.records),
                    cursor=greatest,
                )
            )

    def commit(self, status: LoadStatus) -> None:
        """Make what was taken durable."""
        is_last = status == "done"
        report = self.report
        if is_last:
            report.cursor = self._cursor
        report.commits += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        written = self._writer.commit(
            Commit(
                load_id=report.load_id,
                status=status,
                rows=list(self.rows.values()),
                pages=self._pages,
                forget=[key for key in self.state.pages if key not in self._seen] if is_last else (),
                cursor=self._cursor if is_last else None,
                facts=_facts(report),
                started_at=self._started_at,
                finished_at=now if is_last else None,
            )
        )
        unchanged = len(self.rows) - written.inserted - written.updated
        for op, count in (("inserted", written.inserted), ("updated", written.updated), ("unchanged", unchanged)):
            setattr(report, op, getattr(report, op) + count)
            metrics.RECORDS.labels(source=report.source, stream=report.stream, op=op).inc(count)
        report.version = written.version
        self.rows, self._pages = {}, []

    def _add(self, records: Sequence[Any]) -> tuple[str | None, list[tuple[Any, ...]]]:
        greatest: Any = None
        keys = []
        flatten, key_of, rows = self._compiled.flatten, self._compiled.key_of, self.rows
        self.report.records += len(records)
        at = self._cursor_at
        for record in records:
            try:
                row = flatten(record)
            except RecordRejected as error:
                self._reject(error)
                continue
            key = key_of(row)
            keys.append(key)
            old = rows.get(key)
            if at is not None and row[at] is not None:
                greatest = row[at] if greatest is None or row[at] > greatest else greatest
            if old is not None:
                self.report.duplicates += 1
                if at is not None and old[at] is not None and (row[at] is None or row[at] < old[at]):
                    continue
            rows[key] = row
        return cursors.stored_text(greatest), keys

    def _reject(self, error: RecordRejected) -> None:
        if self._stream.on_bad_record == "fail":
            raise error
        self.report.rejected += 1
        metrics.RECORDS.labels(source=self.report.source, stream=self.report.stream, op="rejected").inc()
        log.warning("record_rejected", stream=error.stream, field=error.field, reason=error.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    requests: int
    retries: int
    bytes: int
    wait_s: float


def _snapshot(client: Client) -> _Snapshot:
    traffic = client.traffic
    return _Snapshot(requests=traffic.requests, retries=traffic.retries, bytes=traffic.bytes, wait_s=traffic.wait_s)


def _traffic(report: StreamReport, client: Client, before: _Snapshot) -> None:
    traffic = client.traffic
    report.requests = traffic.requests - before.requests
    report.retries = traffic.retries - before.retries
    report.bytes = traffic.bytes - before.bytes
    report.wait_s = round(traffic.wait_s - before.wait_s, 3)


def _facts(report: StreamReport) -> dict[str, Any]:
    counts = ("requests", "retries", "pages", "not_modified", "records", "duplicates", "rejected", "rereads")
    names = (*counts, "bytes", "wait_s", "inserted", "updated", "unchanged", "seconds")
    return {name: getattr(report, name) for name in names}


__all__ = ["OnPage", "StreamReport", "run_source", "run_stream", "table_spec"]
