"""The contract every store keeps: rows and fetching state change in one transaction, one writer at a time.

A writer holds a lock on its table. `commit` makes rows, page states, cursor and load
log durable together or not at all, so a killed fetch leaves a state that tells the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tidemill_ingest_api.records.flatten import Row
from tidemill_ingest_api.records.kinds import KINDS, Kind
from tidemill_ingest_api.stores.query import Select

PARTITION_MARK = "#"
"""Between the names of a stream and of a partition, where states are kept; no stream's name has it."""
EXTRA, DOC, LOADED_AT, VERSION = "_extra", "_doc", "_loaded_at", "_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """A stream's table.

    Attributes:
        columns: Field name to field type, in row order.
        indexes: Fields that get an index of their own.
        cursor: Field that breaks ties: a row with a smaller one never replaces another.
        fingerprint: Changes when rows must be fetched anew.
    """

    source: str
    stream: str
    table: str
    columns: Mapping[str, str]
    primary_key: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    cursor: str | None = None
    fingerprint: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of every field, in row order."""
        return tuple(KINDS[name] for name in self.columns.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PageState:
    """What is remembered of a page, so that it can be skipped while it does not change."""

    key: str
    etag: str | None
    last_modified: str | None
    next: str | None
    records: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where the last committed fetch of a stream stood."""

    cursor: str | None = None
    pages: Mapping[str, PageState] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A record that does not fit its stream, kept aside.

    Attributes:
        digest: Names the record and its fault, so that the same one is kept once.
        record: Its JSON text, after `protect`; None where it cannot be written or must not be shown.
        load_id: The last load that met it.
    """

    digest: str
    field: str
    reason: str
    record: str | None
    load_id: str = ""
    stream: str = ""


LoadStatus = Literal["partial", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Everything that becomes durable together; rows are unique by primary key."""

    load_id: str
    status: LoadStatus
    rows: Sequence[Row] = ()
    rejects: Sequence[Reject] = ()
    pages: Sequence[PageState] = ()
    forget: Sequence[str] = ()
    cursor: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    started_at: str = ""
    finished_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a commit did to the table; the rest of its rows were equal already."""

    inserted: int = 0
    updated: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One line of the load log."""

    load_id: str
    source: str
    stream: str
    status: str
    started_at: str
    finished_at: str | None
    facts: Mapping[str, Any]


class Writer(Protocol):
    """The only writer of one table."""

    def state(self) -> StreamState:
        """Read what was last committed; empty when the table or its fields are new."""

    def enter(self, partition: str) -> StreamState:
        """Turn to a partition of the stream, or with an empty name back to the whole.

        Every partition has a cursor and pages of its own; what is committed from here on is its.

        Returns:
            What was last committed for it.
        """

    def commit(self, commit: Commit) -> Written:
        """Make everything in `commit` durable, or nothing."""


class Reader(Protocol):
    """Reads tables for the served API; safe from several threads."""

    @property
    def is_local(self) -> bool:
        """Whether a read is short enough (no network) to be done in an event loop."""

    def version(self, table: TableSpec) -> int:
        """A number that grows whenever the table's rows change; 0 before the first."""

    def get(self, table: TableSpec, key: Sequence[Any]) -> bytes | None:
        """Read one encoded record by its primary key."""

    def select(self, table: TableSpec, select: Select) -> list[bytes]:
        """Read encoded records, in the order asked for."""

    def count(self, table: TableSpec) -> int:
        """Count the rows; 0 when there is no table."""

    def duplicates(self, table: TableSpec) -> int:
        """Count the primary keys that name more than one row; 0 unless the table lost its constraint."""

    def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            StoreUnavailable: There is none.
        """


class Store(Reader, Protocol):
    """A database that holds tables and fetching state."""

    @property
    def url(self) -> str:
        """Where it is, without secrets."""

    def writer(self, table: TableSpec, *, wait_s: float = 30.0) -> AbstractContextManager[Writer]:
        """Lock the table, create or extend it, and hand out its writer.

        Raises:
            StoreBusy: Another writer held it for `wait_s` seconds.
            SchemaConflict: The table exists with other columns.
        """

    def state(self, table: TableSpec) -> StreamState | None:
        """Read what was last committed for a stream; None before the first fetch."""

    def loads(self, source: str, *, limit: int = 100) -> list[Load]:
        """Read the newest lines of a source's load log, newest first."""

    def rejects(self, source: str, *, limit: int = 100) -> list[Reject]:
        """Read the records that were kept aside, those of the newest load first."""

    def dataset_urn(self, table: TableSpec) -> str:
        """Name the table for lineage."""

    def shown_name(self, table: TableSpec) -> str:
        """Name the table as a person would find it."""

    def close(self) -> None:
        """Release files and connections."""
