"""One model of a source: where it is, how to fetch it, which streams it has, how they are served."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator
from tidemill_core.config import Config, SecretStr
from tidemill_core.retry import RetryPolicy

from tidemill_ingest_api.auth import AUTHS, AuthConfig
from tidemill_ingest_api.auth.none import NoAuth
from tidemill_ingest_api.errors import UnknownTable
from tidemill_ingest_api.http.messages import check_header
from tidemill_ingest_api.paging import PAGINGS, Paging
from tidemill_ingest_api.paging.single import SinglePage

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""A lower-case identifier of at most 63 characters."""
FieldType = Literal["string", "int32", "int64", "float64", "bool", "timestamp", "epoch_s", "epoch_ms", "date", "json"]
"""``epoch_s`` and ``epoch_ms`` are numbers upstream and timestamps in the table."""
ParamValue = str | int | float | bool
RESERVED_PARAMS = frozenset({"limit", "order", "select", "after", "format"})
"""Parameters of the served API that are no filters."""
PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)?)\}")
"""``{cursor}``, ``{repo}``, ``{parent.id}``, ``{window.start}``."""
_MIN_KEY = 16
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


if TYPE_CHECKING:
    Auth = AuthConfig
    Paginate = Paging
else:
    # Every installed way, a stranger's too: its settings are checked here and stand in the JSON schema.
    Auth = AUTHS.config_union()
    Paginate = PAGINGS.config_union()


class RateConfig(Config):
    """How fast we may ask, by our own count and by what the API says.

    The RateLimit fields of the IETF draft (``RateLimit``, ``RateLimit-Remaining``, ``RateLimit-Reset``) are always
    kept. A wait for the API's window that is longer than `retry.deadline_s` ends the run as temporary instead.
    """

    limit: Annotated[str, StringConstraints(pattern=r"^\d+/(s|min|h|d)$")] | None = None
    """Requests per window, such as ``5000/h`` or ``10/s``; unset means no limit of our own."""
    remaining_header: str | None = "x-ratelimit-remaining"
    """Header with the requests left in the API's window; at 0 we wait for the reset."""
    reset_header: str | None = "x-ratelimit-reset"
    """Header that says when the window starts anew."""
    reset_unit: Literal["epoch", "delta"] = "epoch"
    """Whether the reset is a time (seconds since 1970) or seconds from now; APIs differ."""
    throttled_text: str | None = None
    """Regular expression; an answer of status 200 that matches it counts as throttled."""

    @field_validator("throttled_text")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value


class HttpConfig(Config):
    """How to talk to the API."""

    concurrency: int = Field(default=1, ge=1, le=64)
    """Pages fetched at once, where their number is known beforehand."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds without a byte before a request counts as failed."""
    retry: RetryPolicy = RetryPolicy(attempts=6, deadline_s=7200.0)
    """Tries and waits; a longer Retry-After of the API is always kept."""
    retry_statuses: frozenset[int] = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
    """Statuses worth another try."""
    max_response_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    """Largest accepted body, after decompression."""
    max_response_s: float = Field(default=300.0, gt=0)
    """Longest time for one body, however steadily it trickles."""
    max_redirects: int = Field(default=5, ge=0, le=20)
    """Redirects followed for one request."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers sent with every request; secrets belong in `auth`."""
    rate: RateConfig = RateConfig()
    """Pacing."""

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            check_header(name, text)
        return value


class FieldConfig(Config):
    """One column and where its value stands in a record."""

    type: FieldType
    """Type of the column."""
    path: str | None = None
    """Dotted path in the record; unset means the column's name with ``__`` read as a dot."""


class CursorConfig(Config):
    """Fetch only what changed: the greatest value of a field is remembered with the rows."""

    field: str
    """A declared field that grows; ``{cursor}`` in `params` becomes its greatest value so far."""
    lag_s: float = Field(default=0.0, ge=0)
    """Seconds (or units, for an integer) to step back, so that ties and late changes are seen again."""
    start: str | None = None
    """First value; unset means parameters with ``{cursor}`` are left out the first time."""


class WindowConfig(Config):
    """Read a time range in windows; ``{window.start}`` and ``{window.end}`` say which one."""

    start: datetime
    """Where the first window begins, such as ``2024-01-01``; UTC where no zone is given."""
    end: datetime | None = None
    """Where the last one ends; unset means now."""
    step: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(s|min|h|d)$")] = "1d"
    """Length of a window: ``15min``, ``6h``, ``7d``."""
    format: Literal["iso", "date", "epoch_s", "epoch_ms"] = "iso"
    """How the bounds are written; with ``date``, windows are whole days."""
    inclusive_end: bool = False
    """Whether the API counts the end in: it is then written one second (``date``: one day, ``epoch_ms``: one
    millisecond) earlier."""
    lag_s: float = Field(default=0.0, ge=0)
    """Seconds that the next run steps back, so that records which came late are seen."""
    full: int | None = Field(default=None, gt=0)
    """Records at which the API may have cut a window off: such a window is split in halves and read again."""

    @field_validator("start", "end")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError("`end` must be after `start`")
        if self.format == "date" and not self.step.endswith("d"):
            raise ValueError("format: with `date`, `step` is in days (d)")
        return self


class ParentConfig(Config):
    """Read a stream once for every row of another; ``{parent.FIELD}`` is the row's value."""

    stream: Name
    """The stream whose rows are the parents; it is fetched first."""


class ProtectConfig(Config):
    """Personal values to drop or to hash before anything of a record is stored, served, shown or logged.

    Paths are dotted, as in the API's records; on a list they go to each of its elements, and ``*`` is every key.
    """

    drop: tuple[str, ...] = ()
    """Paths whose values are left out, such as ``user.email``."""
    hash: tuple[str, ...] = ()
    """Paths whose values become 64 hex digits (HMAC-SHA-256): equal values stay equal, nobody reads them."""
    key: SecretStr | None = None
    """Keys the hashes, at least 16 characters; without it e-mail addresses could be guessed. Another key makes other
    hashes, and every record is read again."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not (self.drop or self.hash):
            raise ValueError("give `drop` or `hash`")
        if self.hash and (self.key is None or len(self.key.get_secret_value()) < _MIN_KEY):
            raise ValueError(f"`hash` needs a `key` of at least {_MIN_KEY} characters")
        for path in (*self.drop, *self.hash):
            if not all(path.split(".")):
                raise ValueError(f"{path!r} is no path")
        return self


class StreamServe(Config):
    """What readers may ask of a table; the primary key is always allowed."""

    filters: tuple[str, ...] = ()
    """Fields that may be filtered on; each gets an index."""
    sort: tuple[str, ...] = ()
    """Fields that may be sorted by; each gets an index."""


WrittenFields = Annotated[dict[Name, FieldType | FieldConfig], Field(min_length=1)]
"""Columns as a file may write them: a type alone, or all of it."""


class StreamConfig(Config):
    """One endpoint and the table its records go to."""

    name: Name
    """Name of the stream, and of its table in the served API."""
    path: str = ""
    """Path below `base_url`."""
    method: Literal["GET", "POST"] = "GET"
    """POST for APIs that are asked by a JSON body; it is repeated after faults like a GET."""
    params: dict[str, ParamValue] = Field(default_factory=dict)
    """Query parameters; ``{cursor}`` in a text is replaced."""
    body: dict[str, JsonValue] | None = None
    """JSON body of a POST; ``{cursor}`` in a text is replaced, or its part left out where there is no cursor yet."""
    paginate: Paginate = SinglePage()
    """How to reach the next page."""
    records: str = ""
    """Dotted path to the list of records in the body; empty means the body itself."""
    zip_columns: bool = False
    """The place holds parallel arrays (``{"time": [...], "value": [...]}``): zip them to records."""
    conditional: Literal["etag", "none"] = "none"
    """Remember each page's ETag and Last-Modified, and skip pages that did not change."""
    cursor: CursorConfig | None = None
    """Incremental fetching."""
    partitions: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to read one after another, each with its own cursor, ETags and transactions: ``{repo: [a/b, c/d]}``
    replaces ``{repo}`` in path, parameters and body. Several names make every combination."""
    parent: ParentConfig | None = None
    """Read it for every row of another stream."""
    window: WindowConfig | None = None
    """Read it in windows of time; where they stand is remembered like a cursor."""
    primary_key: tuple[str, ...] = Field(min_length=1)
    """Fields that name a record; a record with a known key replaces the old one."""
    fields: dict[Name, FieldConfig] = Field(min_length=1)
    """Columns: ``name: type`` or ``name: {path, type}``."""
    protect: ProtectConfig | None = None
    """Personal values to drop or to hash."""
    on_unknown: Literal["extra_json", "ignore", "fail"] = "extra_json"
    """What to do with values no field declares: keep them in column ``_extra``, drop them, or stop."""
    on_bad_record: Literal["fail", "skip", "keep"] = "fail"
    """What to do with a record that does not fit: stop; count it and go on; or keep it aside as well, with its reason
    (``tidemill ingest rejects``)."""
    table: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$")] | None = None
    """Table, ``schema.table``; unset means ``raw.NAME``. SQLite has no schemas: ``raw_NAME`` there."""
    asset_key: str | None = None
    """Dagster asset key, parts joined by ``/``; unset means ``raw/NAME``."""
    batch_rows: int = Field(default=5000, gt=0)
    """Rows per transaction, at least; whole pages are never split."""
    serve: StreamServe = StreamServe()
    """Filters and orders offered to readers."""

    @field_validator("fields", mode="before", json_schema_input_type=WrittenFields)
    @classmethod
    def _short_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"type": given} if isinstance(given, str) else given for name, given in value.items()}

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if self.method == "GET" and self.body is not None:
            raise ValueError("body: a GET has none; give `method: POST`")
        if self.method == "GET" and getattr(self.paginate, "place", "query") == "body":
            raise ValueError("paginate.place: a GET has no body; give `method: POST`")
        if self.method == "POST" and self.conditional != "none":
            raise ValueError("conditional: a POST is not conditional (RFC 9110 13.1.2); leave it out")
        return self

    @model_validator(mode="after")
    def _places_are_known(self) -> Self:
        known = {"cursor", *self.partitions} | ({"window.start", "window.end"} if self.window else set())
        used = set(PLACEHOLDER.findall(orjson.dumps([self.path, self.params, self.body]).decode()))
        of_parent = {name for name in used if name.startswith("parent.")}
        for name in sorted(used - known - (of_parent if self.parent else set())):
            if name in PLACEHOLDER.findall(self.path) or "." in name:
                raise ValueError(f"{{{name}}} is replaced by nothing; known: {', '.join(sorted(known))}")
        for name in sorted(self.partitions.keys() - used):
            raise ValueError(f"partitions: {{{name}}} stands neither in `path` nor in `params` nor in `body`")
        if self.parent and not of_parent:
            raise ValueError("parent: no {parent.FIELD} stands in `path`, `params` or `body`")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        used = set(PLACEHOLDER.findall(orjson.dumps([self.path, self.params, self.body]).decode()))
        if self.window and not used & {"window.start", "window.end"}:
            raise ValueError("window: neither {window.start} nor {window.end} stands in `path`, `params` or `body`")
        if self.window and (self.cursor or self.conditional != "none"):
            raise ValueError("window: it is a cursor already; leave `cursor` and `conditional` out")
        for values in self.partitions.values():
            for value in values:
                if not value or any(part in {"", ".", ".."} for part in value.split("/")):
                    raise ValueError(f"partitions: {value!r} is empty or would lead to another path")
        return self

    @model_validator(mode="after")
    def _origins_are_known(self) -> Self:
        for name, field in self.fields.items():
            root, _, below = (field.path or "").partition(".")
            if root == "_partition" and below not in self.partitions:
                known = ", ".join(self.partitions) or "none"
                raise ValueError(f"fields.{name}: there is no partition {below!r}; known: {known}")
            if root == "_parent" and self.parent is None:
                raise ValueError(f"fields.{name}: the stream has no `parent`")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        places = {"primary_key": self.primary_key, "serve.filters": self.serve.filters, "serve.sort": self.serve.sort}
        if self.cursor:
            places["cursor.field"] = (self.cursor.field,)
        for place, names in places.items():
            for name in names:
                if name not in self.fields:
                    raise ValueError(f"{place}: {name!r} is not in `fields`")
                if self.fields[name].type == "json":
                    raise ValueError(f"{place}: {name!r} is json and cannot be compared")
        for name in (*self.primary_key, *self.serve.filters):
            if name in RESERVED_PARAMS:
                raise ValueError(f"serve.filters: {name!r} is a parameter of the served API; rename the field")
        if self.cursor and self.fields[self.cursor.field].type in {"string", "bool", "float64"}:
            raise ValueError("cursor.field must be a timestamp, a date or an integer")
        return self

    @model_validator(mode="after")
    def _protected_fields_fit(self) -> Self:
        for name, kind in self.protected_fields.items():
            field, is_key = self.fields[name], name in self.primary_key
            if kind == "drop" and is_key:
                raise ValueError(f"protect.drop: {name!r} is in the primary key; hash it")
            if kind == "hash" and field.type != "string":
                raise ValueError(f"protect.hash: {name!r} must be a string field, a hash is text")
            if self.cursor and self.cursor.field == name:
                raise ValueError(f"protect: {name!r} is the cursor, which is sent back to the API")
        return self

    @property
    def protected_fields(self) -> dict[str, Literal["drop", "hash"]]:
        """Fields at whose very place a rule applies, or below a place that is dropped or hashed."""
        found: dict[str, Literal["drop", "hash"]] = {}
        rules = [(rule, "drop") for rule in self.protect.drop] if self.protect else []
        rules += [(rule, "hash") for rule in self.protect.hash] if self.protect else []
        for rule, kind in rules:
            for name, field in self.fields.items():
                written = field.path.split(".") if field.path else name.split("__")
                # A number in a field's path picks an element of a list, which a rule passes by itself.
                steps, wanted = [step for step in written if not step.isdigit()], rule.split(".")
                if len(steps) >= len(wanted) and all(w in {"*", s} for w, s in zip(wanted, steps, strict=False)):
                    found[name] = "drop" if kind == "drop" else "hash"
        return found

    @property
    def parent_fields(self) -> tuple[str, ...]:
        """The fields of the parent's rows that replace ``{parent.FIELD}``, or are read at ``_parent.FIELD``; sorted."""
        text = orjson.dumps([self.path, self.params, self.body]).decode()
        used = {name for name in PLACEHOLDER.findall(text) if name.startswith("parent.")}
        carried = {field.path for field in self.fields.values() if field.path and field.path.startswith("_parent.")}
        names = {name.removeprefix("parent.") for name in used} | {path.removeprefix("_parent.") for path in carried}
        return tuple(sorted(names))

    @property
    def is_partitioned(self) -> bool:
        """Whether it is read in several parts, each with a state of its own."""
        return bool(self.partitions or self.parent)

    @property
    def table_name(self) -> str:
        """The table, with its schema."""
        return self.table or f"raw.{self.name}"

    @property
    def asset_path(self) -> tuple[str, ...]:
        """The parts of the Dagster asset key."""
        return tuple(self.asset_key.split("/")) if self.asset_key else ("raw", self.name)


class OpenServe(Config):
    """Anybody who reaches the port may read."""

    type: Literal["none"]


class ServeKey(Config):
    """One reader's key; only its hash is kept."""

    id: Name
    """Name of the reader, shown in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the key, in hex; ``tidemill ingest key`` makes a pair."""
    scopes: tuple[str, ...] = ("*",)
    """Tables the reader may read; ``*`` means all."""


class KeyedServe(Config):
    """A key must be sent as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``."""

    type: Literal["api_keys"]
    keys: tuple[ServeKey, ...] = Field(min_length=1)
    """Accepted keys; give a reader two while rotating."""


class ServeConfig(Config):
    """How the tables are served."""

    auth: Annotated[OpenServe | KeyedServe, Field(discriminator="type")]
    """Who may read; ``{type: none}`` must be written, it is never the default."""
    rate_limit: str | None = "6000/minute"
    """Requests per reader, in the words of the `limits` library; null means no limit."""
    cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Memory for encoded pages; 0 turns the cache off."""
    freshness_s: float = Field(default=1.0, ge=0)
    """How old an answer may be; the table's version is asked for at most this often."""
    cursor_secret: SecretStr | None = None
    """Signs page cursors; unset means a random one per start, so cursors end with the process."""
    escape_csv_formulas: bool = True
    """Put a quote before CSV texts that a spreadsheet would run as formulas (starting with ``= + - @``)."""
    max_export_rows: int = Field(default=1_000_000, gt=0)
    """Largest NDJSON, CSV or gRPC stream."""


class SourceConfig(Config):
    """A REST API and the streams fetched from it."""

    source: Name
    """Name of the source; fetching state is kept under it."""
    base_url: str
    """``https://host/prefix``; ``env:NAME`` and ``resource:NAME`` are looked up when a run starts."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that redirects and next links may lead to; empty means only that of `base_url`."""
    allow_private: tuple[str, ...] = ()
    """Hosts that may lead to private, loopback or link-local addresses: names, addresses or networks
    (``localhost``, ``10.1.2.3``, ``10.0.0.0/8``). An address that `base_url` or `allowed_hosts` writes out in digits
    needs none, unless it is link-local."""
    auth: Auth = NoAuth()
    """Credentials for the API."""
    http: HttpConfig = HttpConfig()
    """How to talk to it."""
    streams: tuple[StreamConfig, ...] = Field(min_length=1)
    """Endpoints to fetch."""
    store: SecretStr | None = None
    """``sqlite:///file.db`` or ``postgresql://...``; unset means the configured or embedded PostgreSQL."""
    serve: ServeConfig | None = None
    """How the tables are served; needed by ``tidemill ingest serve``."""

    @field_validator("allow_private")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if "/" in entry:
                try:
                    ip_network(entry)
                except ValueError as error:
                    raise ValueError(f"{entry!r} is no network: {error}") from None
            elif not _HOST.fullmatch(entry) and not _is_address(entry):
                raise ValueError(f"{entry!r} is no host name, address or network; write it without scheme and port")
        return value

    @field_validator("base_url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        if value.startswith(("env:", "resource:")):
            return value
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be http(s)://host/..., env:NAME or resource:NAME")
        if parts.username or parts.password:
            raise ValueError("credentials belong in `auth`")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, values in (
            ("stream", [s.name for s in self.streams]),
            ("table", [s.table_name.replace(".", "_") for s in self.streams]),
        ):
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{what} {value!r} is given twice")
        return self

    @model_validator(mode="after")
    def _parents_exist(self) -> Self:
        by_name = {stream.name: stream for stream in self.streams}
        for stream in self.streams:
            above = [stream.name]
            while (parent := by_name[above[-1]].parent) is not None:
                if parent.stream not in by_name:
                    raise ValueError(f"parent of {above[-1]!r}: there is no stream {parent.stream!r}")
                if parent.stream in above:
                    raise ValueError(f"parent of {above[-1]!r}: {parent.stream!r} is its own parent in the end")
                above.append(parent.stream)
            if stream.parent is not None:
                above_it = by_name[stream.parent.stream]
                for name in stream.parent_fields:
                    if name not in above_it.fields:
                        raise ValueError(f"stream {stream.name!r}: {above_it.name!r} has no field {name!r}")
                    if name in above_it.protected_fields:
                        raise ValueError(
                            f"stream {stream.name!r}: {name!r} of {above_it.name!r} is protected, not sent"
                        )
        return self

    def stream(self, name: str) -> StreamConfig:
        """Find a stream by name.

        Raises:
            UnknownTable: There is none.
        """
        for each in self.streams:
            if each.name == name:
                return each
        raise UnknownTable(name, [each.name for each in self.streams])
