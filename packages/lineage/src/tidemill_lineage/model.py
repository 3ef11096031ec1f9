"""The values of lineage: datasets and their columns, jobs, runs, and the edges between columns.

A dataset is known by its URN (``postgres://host:port/db/schema.table``, ``s3://bucket/key``),
never by the run that touched it, so a second run yields the same graph.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

DatasetUrn = str
"""``scheme://authority/name``."""

Kind = Literal["DIRECT", "INDIRECT"]
"""DIRECT: values flow from the source to the target. INDIRECT: the source decides which rows or groups there are."""

Method = Literal["plan", "probe", "sql", "watched", "attrs", "declared", "schema", "assumed"]
"""How an edge was found.

`watched` is from operations seen while they ran; `schema` means equal names; `assumed` stands for all that an operation
which could not be read was given.
"""

State = Literal["COMPLETE", "FAIL"]

ASSET_SCHEME = "asset://"
_EPHEMERAL = re.compile(r"([a-z0-9+.-]+://)(?:127\.0\.0\.1|localhost|\[::1\]):(\d+)(?=/|$)")
_CHOSEN_BY_SYSTEM = 32768


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Column:
    """A column of a dataset, with its type in the words of its store."""

    name: str
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Dataset:
    """A table, a topic, a file or a folder of files."""

    urn: DatasetUrn
    columns: tuple[Column, ...] = ()
    asset_key: str = ""
    """The Dagster key, ``raw/weather``, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Edge:
    """One influence of a source column on a target column.

    An empty `source_column` means the dataset as a whole (its rows are counted, or columns are not
    known); an empty `target_column` means every column of the target.
    """

    target: DatasetUrn
    target_column: str = ""
    source: DatasetUrn
    source_column: str = ""
    kind: Kind
    subtype: str
    """IDENTITY, TRANSFORMATION, AGGREGATION; FILTER, JOIN, GROUP_BY, SORT, WINDOW, CONDITIONAL."""
    method: Method
    job: str = ""
    run: str = field(default="", compare=False)
    """The run that said so last; two edges that differ only in run and time are the same."""
    at: float = field(default=0.0, compare=False)
    """When it did, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Job:
    """Something that runs again and again: a step, a function, a loader of one table."""

    name: str
    reads: tuple[DatasetUrn, ...] = ()
    writes: tuple[DatasetUrn, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one job did in one run: the unit that is recorded, merged and emitted.

    Attributes:
        id: The run's id; several jobs share it when one orchestrator run holds them all.
        ended_at: Seconds since the epoch.
        rows: Rows written, where known.
        error: Class and message of what ended a failed run.
        calls: How many calls of the job this record stands for.
        attempt: 0, and 1, 2, ... when the job went on in a run that had ended.
    """

    id: str
    job: str
    state: State = "COMPLETE"
    started_at: float = 0.0
    ended_at: float = 0.0
    reads: tuple[Dataset, ...] = ()
    writes: tuple[Dataset, ...] = ()
    edges: tuple[Edge, ...] = ()
    rows: int | None = None
    error: str = ""
    calls: int = 1
    attempt: int = 0


def asset_urn(asset_key: str) -> DatasetUrn:
    """Name a dataset by its Dagster key; the graph replaces it by the stored URN where one is known."""
    return f"{ASSET_SCHEME}{asset_key}"


def column_urn(dataset: DatasetUrn, column: str) -> str:
    """Name a column: ``urn#column``; just the URN for the dataset as a whole."""
    return f"{dataset}#{column}" if column else dataset


def stable_urn(urn: DatasetUrn) -> DatasetUrn:
    """Name a dataset on this machine the same in every run.

    A server on a loopback address whose port the system chose (an embedded one) gets another port
    at each start, so that port is no part of the name: ``postgres://127.0.0.1:40767/db/t`` becomes
    ``postgres://localhost/db/t``. A port below 32768 was chosen by somebody, and stays. A slash at
    the end of a folder goes.
    """
    urn = urn.rstrip("/") if urn.endswith("/") and not urn.endswith("://") else urn
    found = _EPHEMERAL.match(urn)
    return f"{found[1]}localhost{urn[found.end() :]}" if found and int(found[2]) >= _CHOSEN_BY_SYSTEM else urn


def split_column(name: str) -> tuple[DatasetUrn, str]:
    """Take ``urn#column`` apart; the column is empty when only a dataset is named."""
    dataset, _, column = name.partition("#")
    return dataset, column
