"""What can go wrong between an upstream API, a store and a reader.

IngestError
├── UpstreamError              the API we fetch from
│   ├── UpstreamUnavailable    (Transient) no answer, a cut answer, or 5xx
│   ├── UpstreamThrottled      (Transient) told to wait, `retry_after_s` says how long
│   ├── UpstreamRefused        (Permanent) 4xx: credentials, path or parameters are wrong
│   ├── UntrustedUrl           (Permanent) a redirect or next link leaves `allowed_hosts`
│   ├── PrivateAddress         (Permanent) a host leads to an address that is not public and not allowed
│   ├── ResponseTooLarge       (Permanent) more bytes than `http.max_response_bytes`
│   ├── InvalidResponse        (Permanent) not JSON, or no records where `records` points
│   ├── PagingLoop             (Permanent) a page came twice, or more than `max_pages`
│   ├── ListMoved              (Transient) the list changed every time it was read
│   ├── WindowFull             (Permanent) a window that cannot be split has as many records as the API gives
│   └── PartitionsFailed       (Permanent) the API refused some partitions; the others were read
├── RecordRejected             (Record)    a value does not fit its declared type
├── StoreError                 the database rows go to
│   ├── StoreUnavailable       (Transient) no connection
│   ├── StoreBusy              (Transient) another writer holds the table
│   └── SchemaConflict         (Permanent) the table exists with other columns
├── UnknownPartition           (Permanent) no partition has this name or value
└── BadQuery                   (Permanent) a reader asked for something we do not offer
    └── UnknownTable
"""

from __future__ import annotations

from tidemill_core.errors import PermanentError, RecordError, TidemillError, TransientError


class IngestError(TidemillError):
    """Base of this package's errors."""


class UpstreamError(IngestError):
    """The API we fetch from failed us."""


class UpstreamUnavailable(UpstreamError, TransientError):
    """No answer, a cut answer, or a server error."""

    def __init__(self, url: str, reason: str, retry_after_s: float | None = None) -> None:
        self.url, self.reason, self.retry_after_s = url, reason, retry_after_s
        super().__init__(f"{url} gave no usable answer: {reason}; try again later")


class UpstreamThrottled(UpstreamError, TransientError):
    """The API asked us to wait."""

    def __init__(self, url: str, status: int | None, retry_after_s: float | None) -> None:
        self.url, self.status, self.retry_after_s = url, status, retry_after_s
        wait = "" if retry_after_s is None else f" for {retry_after_s:g} s"
        how = "no request is left in its window" if status is None else f"HTTP {status}"
        super().__init__(f"{url} throttled us ({how}); wait{wait} or lower http.rate and http.concurrency")


class UpstreamRefused(UpstreamError, PermanentError):
    """The API understood and said no."""

    def __init__(self, url: str, status: int, body: str, *, hint: str | None = None) -> None:
        self.url, self.status, self.body = url, status, body
        hint = hint or ("check `auth`" if status in {401, 403} else "check `path` and `params`")
        super().__init__(f"{url} answered HTTP {status}: {body or 'no text'}; {hint}")


class UntrustedUrl(UpstreamError, PermanentError):
    """A redirect or next link points outside `allowed_hosts`."""

    def __init__(self, url: str, source: str, reason: str) -> None:
        self.url, self.source, self.reason = url, source, reason
        super().__init__(f"{source} sent us to {url}, {reason}; add its host to allowed_hosts if you trust it")


class PrivateAddress(UpstreamError, PermanentError):
    """A host leads to an address inside our own network."""

    def __init__(self, host: str, address: str, kind: str) -> None:
        self.host, self.address, self.kind = host, address, kind
        super().__init__(
            f"{host} leads to {address}, which is not public ({kind}); nothing was sent."
            f" If you trust it, add {host} to allow_private"
        )


class ResponseTooLarge(UpstreamError, PermanentError):
    """An answer is larger than we accept."""

    def __init__(self, url: str, limit_bytes: int) -> None:
        self.url, self.limit_bytes = url, limit_bytes
        super().__init__(f"{url} sent more than {limit_bytes} bytes; ask for smaller pages or raise max_response_bytes")


class InvalidResponse(UpstreamError, PermanentError):
    """An answer is not what the stream declares."""

    def __init__(self, url: str, reason: str, *, hint: str = "check `records` and `paginate`") -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url} answered something unexpected: {reason}; {hint}")


class PagingLoop(UpstreamError, PermanentError):
    """Paging does not end."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"paging stopped at {url}: {reason}; check `paginate`")


class ListMoved(UpstreamError, TransientError):
    """Records changed places every time the list was read, so none of the readings is sure to be whole."""

    def __init__(self, url: str, readings: int, reason: str) -> None:
        self.url, self.readings, self.reason = url, readings, reason
        super().__init__(
            f"the list at {url} moved in each of {readings} readings: {reason}; rows so far are kept, the cursor is not"
            " moved. Sort it by a field that never changes (`params`), or raise paginate.rereads"
        )


class WindowFull(UpstreamError, PermanentError):
    """The API cuts a window off, and none can be shorter."""

    def __init__(self, stream: str, start: str, end: str, full: int) -> None:
        self.stream, self.start, self.end, self.full = stream, start, end, full
        super().__init__(
            f"stream {stream!r}: the window from {start} to {end} has {full} records or more and cannot be split;"
            " raise window.full if the API gives more, or divide it by `partitions`"
        )


class PartitionsFailed(UpstreamError, PermanentError):
    """The API refused some partitions."""

    def __init__(self, stream: str, reasons: dict[str, str]) -> None:
        self.stream, self.reasons = stream, reasons
        key, reason = next(iter(reasons.items()))
        super().__init__(
            f"stream {stream!r}: {len(reasons)} partitions were refused and all others read;"
            f" the first is {key}: {reason}"
        )


class UnknownPartition(IngestError, PermanentError):
    """No partition has this name or value."""

    def __init__(self, stream: str, wanted: str, known: list[str]) -> None:
        self.stream, self.wanted, self.known = stream, wanted, known
        super().__init__(f"stream {stream!r} has no partition {wanted!r}; known: {', '.join(known) or 'none'}")


class RecordRejected(IngestError, RecordError):
    """A record does not fit its stream's fields."""

    def __init__(self, stream: str, field: str, reason: str) -> None:
        self.stream, self.field, self.reason = stream, field, reason
        super().__init__(f"record of {stream!r} rejected, field {field!r}: {reason}")


class StoreError(IngestError):
    """The store failed us."""


class StoreUnavailable(StoreError, TransientError):
    """The store does not answer."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"store {url} does not answer: {reason}")


class StoreBusy(StoreError, TransientError):
    """Another process writes this table."""

    def __init__(self, url: str, table: str) -> None:
        self.url, self.table = url, table
        super().__init__(f"another writer holds {table} in {url}; wait for it to end")


class SchemaConflict(StoreError, PermanentError):
    """The table exists with columns that do not fit the stream."""

    def __init__(self, table: str, reason: str) -> None:
        self.table, self.reason = table, reason
        super().__init__(f"table {table} does not fit its stream: {reason}; rename `table`, or change the column")


class BadQuery(IngestError, PermanentError):
    """A reader asked for a filter, order, key or cursor that is not offered."""


class UnknownTable(BadQuery):
    """No stream has this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name = name
        super().__init__(f"no table {name!r}; known: {', '.join(known)}")
