"""What one run of one stream has read and not yet committed; every commit holds whole pages and their state."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from tidemill_core.telemetry import get_logger

from tidemill_ingest_api import metrics
from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.errors import ListMoved, RecordRejected
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.first import Values, first_url
from tidemill_ingest_api.fetching.moving import Reading
from tidemill_ingest_api.fetching.pages import Page, read_pages
from tidemill_ingest_api.fetching.partitions import Partition
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.paging._base import PlacePaging
from tidemill_ingest_api.records import exact
from tidemill_ingest_api.records.flatten import Flattener, Row, compile_stream, field_path
from tidemill_ingest_api.stores._base import Commit, LoadStatus, PageState, Reject, StreamState, Writer

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
        partitions: Parts that were read to their end.
        splits: Windows that were full and read again in halves.
        rereads: Times the list was read again because it moved while it was read.
        wait_s: Seconds waited for the API's limits and between tries.
    """

    source: str
    stream: str
    table: str = ""
    load_id: str = ""
    requests: int = 0
    retries: int = 0
    partitions: int = 0
    splits: int = 0
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


class StreamLoad:
    """One run of one stream: what was read and not yet committed, part after part."""

    def __init__(
        self, stream: StreamConfig, writer: Writer, report: StreamReport, *, moves_cursor: bool = True
    ) -> None:
        self.report, self.state, self.rows = report, writer.state(), dict[tuple[Any, ...], Row]()
        self._stream, self._writer = stream, writer
        self._compiled: Flattener = compile_stream(stream)
        self._origin: dict[str, dict[str, str]] = {}
        self._moves_cursor = moves_cursor
        self._cursor_at = list(stream.fields).index(stream.cursor.field) if stream.cursor else None
        self._cursor = self.state.cursor
        self._pages: list[PageState] = []
        self._rejects: dict[str, Reject] = {}
        self._seen: set[str] = set()
        self._reading = Reading(stream.paginate)
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        report.load_id = f"{self._started_at.replace(':', '').replace('-', '')[:19]}-{secrets.token_hex(4)}"

    @property
    def waiting(self) -> int:
        """Rows and rejects that are not committed yet."""
        return len(self.rows) + len(self._rejects)

    def enter(self, partition: Partition) -> StreamState:
        """Begin a part: its state, and the values that its records carry."""
        if self._stream.is_partitioned:
            self.state = self._writer.enter(partition.key)
        self._cursor, self._seen = self.state.cursor, set()
        self._origin = _origin(self._stream, partition)
        return self.state

    def readings(
        self, source: SourceConfig, client: Client, known: Mapping[str, PageState], values: Values
    ) -> Iterator[Iterator[Page]]:
        """Give the pages of the list, and give them again while it moves under the reader.

        Raises:
            ListMoved: It moved in every reading that `paginate.rereads` allows.
        """
        paging, before = self._stream.paginate, None
        self._reading = Reading(paging)
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

    def reach(self, moment: str) -> None:
        """Say up to where a range was read, and make it durable with its rows."""
        self._cursor = max(moment, self._cursor or "")
        self.commit("partial", ends_part=True)

    def end_part(self) -> None:
        """Make a partition durable, with its cursor."""
        self.commit("partial", ends_part=True)
        self.report.partitions += 1

    def leave(self) -> None:
        """Turn back to the whole stream, whose last commit ends the load."""
        self.state = self._writer.enter("")
        self._cursor, self._seen = None, set(self.state.pages)

    def warn_of_unmet(self) -> None:
        """Say which paths of `protect` no record had: a misspelled one protects nothing."""
        unmet = self._compiled.unmet() if self.report.records else ()
        if unmet:
            log.warning("protected_path_never_seen", stream=self._stream.name, paths=", ".join(unmet))

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

    def commit(self, status: LoadStatus, *, ends_part: bool = False) -> None:
        """Make what was taken durable; at the end of a part with its cursor, without the pages that are gone."""
        ends_part = ends_part or status == "done"
        report = self.report
        if ends_part:
            report.cursor = self._cursor or report.cursor
        report.commits += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        written = self._writer.commit(
            Commit(
                load_id=report.load_id,
                status=status,
                rows=list(self.rows.values()),
                rejects=list(self._rejects.values()),
                pages=self._pages,
                forget=[key for key in self.state.pages if key not in self._seen] if ends_part else (),
                cursor=self._cursor if ends_part and self._moves_cursor else None,
                facts=_facts(report),
                started_at=self._started_at,
                finished_at=now if status == "done" else None,
            )
        )
        unchanged = len(self.rows) - written.inserted - written.updated
        for op, count in (("inserted", written.inserted), ("updated", written.updated), ("unchanged", unchanged)):
            setattr(report, op, getattr(report, op) + count)
            metrics.RECORDS.labels(source=report.source, stream=report.stream, op=op).inc(count)
        report.version = written.version
        self.rows, self._pages, self._rejects = {}, [], {}

    def _add(self, records: Sequence[Any]) -> tuple[str | None, list[tuple[Any, ...]]]:
        greatest: Any = None
        keys = []
        flatten, key_of, rows = self._compiled.flatten, self._compiled.key_of, self.rows
        self.report.records += len(records)
        at, origin = self._cursor_at, self._origin
        for record in records:
            if origin and isinstance(record, dict):
                record = {**record, **origin}  # noqa: PLW2901  # the record with where it came from
            try:
                row = flatten(record)
            except RecordRejected as error:
                self._reject(error, record)
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

    def _reject(self, error: RecordRejected, record: Any) -> None:
        if self._stream.on_bad_record == "fail":
            raise error
        self.report.rejected += 1
        metrics.RECORDS.labels(source=self.report.source, stream=self.report.stream, op="rejected").inc()
        log.warning("record_rejected", stream=error.stream, field=error.field, reason=error.reason)
        if self._stream.on_bad_record == "keep":
            kept = _reject_of(error, self._compiled.protected(record))
            self._rejects[kept.digest] = kept


def _reject_of(error: RecordRejected, record: Any) -> Reject:
    """Write down a record that did not fit; one that cannot be written keeps its reason."""
    try:
        text: str | None = None if record is None else exact.dumps(record, sort_keys=True).decode()
    except (TypeError, ValueError, RecursionError):
        text = None
    seen = "\n".join([error.field, error.reason, text or ""])
    return Reject(digest=sha256(seen.encode()).hexdigest(), field=error.field, reason=error.reason, record=text)


def _origin(stream: StreamConfig, partition: Partition) -> dict[str, dict[str, str]]:
    """Collect the values of a part that fields ask for: ``_partition.NAME`` and ``_parent.FIELD``."""
    found: dict[str, dict[str, str]] = {}
    for name, field in stream.fields.items():
        root, *below = field_path(name, field.path)
        if root in {"_partition", "_parent"} and below:
            key = below[0] if root == "_partition" else f"parent.{below[0]}"
            found.setdefault(root, {})[below[0]] = partition.values[key]
    return found


def _facts(report: StreamReport) -> dict[str, Any]:
    counts = (
        "requests",
        "retries",
        "pages",
        "not_modified",
        "records",
        "duplicates",
        "rejected",
        "rereads",
        "partitions",
        "splits",
    )
    names = (*counts, "bytes", "wait_s", "inserted", "updated", "unchanged", "seconds")
    return {name: getattr(report, name) for name in names}


__all__ = ["StreamLoad", "StreamReport"]
