"""Fetch streams into a store: pages to records to rows, committed with the state that says so.

Each commit holds the rows of whole pages, those pages' ETags and the load log; the
last one also moves the cursor. Killed anywhere and run again, a stream ends with the
same table; pages that were committed are skipped by 304 where the API has ETags.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

import orjson
from tidemill_core.lifecycle import StopToken
from tidemill_core.lineage_hooks import Column, announce_wrote
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api import metrics
from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.errors import PartitionsFailed, UnknownPartition
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.loading import StreamLoad, StreamReport
from tidemill_ingest_api.fetching.partitions import Partition, partitions
from tidemill_ingest_api.fetching.parts import PartReader
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.records.protect import rules_fingerprint
from tidemill_ingest_api.stores._base import Store, TableSpec

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which part of a stream to read; all of it by default.

    Attributes:
        only: Partition values, such as ``{"repo": "a/b"}``; the other partitions are left alone.
        between: Start and end of a range for a stream with a `window`; where the stream stands is not changed.
    """

    only: Mapping[str, str] = field(default_factory=dict)
    between: tuple[datetime, datetime] | None = None


WHOLE = Part()
OnPage = Callable[[StreamReport], None]


def run_source(
    source: SourceConfig,
    store: Store,
    client: Client,
    *,
    streams: Iterable[str] = (),
    is_full: bool = False,
    part: Part = WHOLE,
    stop: StopToken | None = None,
    on_page: OnPage | None = None,
) -> list[StreamReport]:
    """Fetch some streams of a source, or all, one after another, parents before their children.

    Raises:
        UnknownTable: There is no such stream.
        UpstreamError: The API failed; everything committed so far stays.
        ListMoved: Every reading of a list was another; everything committed so far stays.
        StoreError: The store failed.
        Stopped: `stop` was set; everything committed so far stays.
    """
    chosen = parents_first(source, [source.stream(name) for name in streams] or source.streams)
    return [
        run_stream(source, stream, store, client, is_full=is_full, part=part, stop=stop, on_page=on_page)
        for stream in chosen
    ]


def parents_first(source: SourceConfig, chosen: Sequence[StreamConfig]) -> list[StreamConfig]:
    """Order streams so that the rows of a parent are there before its children are read."""

    def depth(stream: StreamConfig) -> int:
        return 1 + depth(source.stream(stream.parent.stream)) if stream.parent else 0

    return sorted(chosen, key=depth)


def run_stream(
    source: SourceConfig,
    stream: StreamConfig,
    store: Store,
    client: Client,
    *,
    is_full: bool = False,
    part: Part = WHOLE,
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
        part: Which part of it to read.
        stop: Checked before every page.
        on_page: Told the running report after every page.

    Returns:
        What was done.

    Raises:
        PartitionsFailed: The API refused some partitions; all others were read.
        UnknownPartition: `part.only` names none.
    """
    began, before = time.monotonic(), _snapshot(client)
    spec = table_spec(source, stream)

    def after_page(report: StreamReport) -> None:
        _traffic(report, client, before)
        if on_page:
            on_page(report)

    with store.writer(spec) as writer:
        report = StreamReport(source=source.source, stream=stream.name, table=store.shown_name(spec))
        load = StreamLoad(stream, writer, report, moves_cursor=part.between is None)
        reader = PartReader(
            source=source, stream=stream, client=client, load=load, is_full=is_full, between=part.between, stop=stop
        )
        failed = reader.read_all(_parts(source, stream, store, part.only), after_page)
        report.seconds = round(time.monotonic() - began, 3)
        load.commit("partial" if failed else "done")
        load.warn_of_unmet()
    if failed:
        raise PartitionsFailed(stream.name, failed)
    report.rows = store.count(spec)
    _tell(source, stream, store, client, report)
    return report


def _parts(source: SourceConfig, stream: StreamConfig, store: Store, only: Mapping[str, str]) -> Iterator[Partition]:
    """Give the parts of a stream that have the values of `only`."""
    unknown = only.keys() - stream.partitions.keys()
    if unknown:
        raise UnknownPartition(stream.name, min(unknown), list(stream.partitions))
    for name, value in only.items():
        if value not in stream.partitions[name]:
            raise UnknownPartition(stream.name, f"{name}={value}", list(stream.partitions[name]))
    parent = source.stream(stream.parent.stream) if stream.parent else None
    for found in partitions(stream, parent, table_spec(source, parent) if parent else None, store):
        if only.items() <= found.values.items():
            yield found


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
    if stream.protect is not None:
        what["protect"] = rules_fingerprint(stream.protect)
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


__all__ = ["OnPage", "Part", "StreamReport", "run_source", "run_stream", "table_spec"]
