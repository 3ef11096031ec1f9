"""The YAML, CLI, Python and Dagster form of a pipeline: where from, what is valid, what is kept, where to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from tidemill_core.config import Config

from tidemill_stream.records.fields import split_path
from tidemill_stream.sink_settings import SINKS, SinkSettings, why_unusable

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "json"]
TimeFormat = Literal["iso8601", "epoch_s", "epoch_ms", "epoch_us"]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
_COLUMN = r"^[A-Za-z][A-Za-z0-9_]{0,62}$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_SomeTopics = Annotated[list[str], Field(min_length=1)]
Topics = Annotated[_SomeTopics, BeforeValidator(_as_list, json_schema_input_type=str | _SomeTopics)]


_STRATEGY = "cooperative-sticky"
_OURS = {
    "bootstrap.servers": "use `bootstrap_servers`",
    "group.id": "use `group`",
    "auto.offset.reset": "use `start`; an offset that is lost is an error (`on_lost`)",
    "enable.auto.commit": "offsets are committed together with the outputs",
    "enable.auto.offset.store": "offsets are committed together with the outputs",
    "enable.partition.eof": "the end of the log is always reported",
    "log_level": "the client's errors are reported by the pipeline",
}
"""Client properties that a pipeline cannot change, and what to do instead."""


def _ask_client(properties: Mapping[str, Any]) -> None:
    """Have the client itself judge names, values and what goes together; nothing is connected.

    Raises:
        ValueError: What the client says.
    """
    from confluent_kafka import Consumer, KafkaException

    plain = {**properties, "group.id": "check", "log_level": 0}
    if properties.get("group.protocol") != "consumer":
        plain["partition.assignment.strategy"] = _STRATEGY
    try:
        Consumer(plain).close()
    except KafkaException as error:
        raise ValueError(f"the Kafka client refuses them: {error.args[0].str()}") from error


class SourceConfig(Config):
    """Which topics to read, and how."""

    topics: Topics
    """Topic name, or a list of them; records of all are validated by the one schema."""
    bootstrap_servers: str | None = None
    """Kafka bootstrap servers; unset means the `kafka` resource in Dagster, else the settings."""
    group: str | None = None
    """Consumer group of the long-lived service; default the pipeline's name."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a partition without a checkpoint begins."""
    on_lost: Literal["fail", "skip"] = "fail"
    """What to do when the log begins after the stored offset: stop, or go on after the gap."""
    on_recreated: Literal["fail", "restart"] = "fail"
    """What to do when the topic was created anew: stop, or drop this pipeline's outputs and begin again."""
    tombstones: Literal["skip", "dlq"] = "skip"
    """A message without value (a delete, in a compacted topic): count it only, or to the dead letters (reason
    ``tombstone``) as well. It is never an invalid record."""
    properties: dict[str, str | int | float | bool] = Field(default={})
    """Further librdkafka consumer properties, such as ``security.protocol``."""

    @field_validator("properties")
    @classmethod
    def _usable(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in _OURS:
                raise ValueError(f"{name} is set by the pipeline itself: {_OURS[name]}")
        strategy = given.get("partition.assignment.strategy", _STRATEGY)
        if strategy != _STRATEGY:
            raise ValueError(
                f"partition.assignment.strategy is {_STRATEGY} here, which hands partitions over one by one"
            )
        if given:
            _ask_client(given)
        return given


class SchemaConfig(Config):
    """The JSON Schema a record must satisfy."""

    inline: dict[str, Any] | None = None
    """The schema itself."""
    file: Path | None = None
    """A JSON or YAML file that holds the schema."""
    refs: tuple[str, ...] = ()
    """What a `$ref` may read besides files below the schema's own folder: prefixes of URLs (``https://host/schemas/``)
    and other folders. Nothing else is fetched."""
    on_invalid: Literal["dlq", "drop", "fail"] = "dlq"
    """What happens to an invalid record: to the dead letters, counted only, or stop the pipeline."""
    formats: bool = False
    """Check `format` (date-time, email, ...) too, rather than take it as a note; slower."""

    @model_validator(mode="after")
    def _one_source(self) -> SchemaConfig:
        if self.inline is not None and self.file is not None:
            raise ValueError("give the schema inline or as a file, not both")
        return self


class ColumnConfig(Config):
    """One output column."""

    field: str
    """Path of the value in the record, with dots: ``flight.carrier``; a dot in a name is ``service\\\\.name``."""
    type: ColumnType
    """Type of the column."""
    format: TimeFormat = "iso8601"
    """How a ``timestamp`` stands in the record."""


def _columns(value: Any) -> Any:
    """Accept ``name: type`` as short for ``name: {field: name, type: type}``."""
    if not isinstance(value, Mapping):
        return value
    full = {}
    for name, each in value.items():
        short = {"type": each} if isinstance(each, str) else each
        full[name] = {"field": name, **short} if isinstance(short, Mapping) else short
    return full


ColumnName = Annotated[str, Field(pattern=_COLUMN)]


class WrittenColumn(ColumnConfig):
    """One output column, as a file may write it."""

    field: str = ""
    """Path of the value in the record, with dots: ``flight.carrier``; unset means the column's name."""


Columns = Annotated[
    dict[ColumnName, ColumnConfig],
    BeforeValidator(_columns, json_schema_input_type=dict[ColumnName, ColumnType | WrittenColumn]),
]
"""Columns by name: a type alone, or all of it."""


class RowsConfig(Config):
    """The rows that pass: which columns."""

    columns: Columns = Field(default={})
    """Columns by name, ``name: type`` or ``name: {field, type, format}``; default the schema's properties in order."""


class TimeConfig(Config):
    """Where a record's event time stands."""

    field: str
    """Path of the value in the record."""
    format: TimeFormat = "iso8601"
    """ISO 8601 text (no offset means UTC), or a number of seconds, milliseconds or microseconds since 1970."""


class AggConfig(Config):
    """One aggregate of a window."""

    op: Literal["count", "sum", "mean", "min", "max"]
    """The operation; nulls are skipped, a `count` without a field counts records."""
    field: str | None = None
    """Path of the value in the record."""

    @model_validator(mode="after")
    def _field_given(self) -> AggConfig:
        if self.op != "count" and self.field is None:
            raise ValueError(f"{self.op} needs a field")
        return self


class WindowConfig(Config):
    """Group records by key and event time, per partition of the topic."""

    type: Literal["tumbling", "hopping", "session"]
    """Windows side by side, overlapping ones, or bursts separated by quiet."""
    size_s: float | None = Field(default=None, gt=0)
    """Length of a tumbling or hopping window, in seconds."""
    hop_s: float | None = Field(default=None, gt=0)
    """Distance between the starts of hopping windows, in seconds; at most `size_s`."""
    gap_s: float | None = Field(default=None, gt=0)
    """Quiet time, in seconds, after which a session ends."""
    grace_s: float = Field(default=0.0, ge=0)
    """How long, in event time, a window stays open for late records."""
    offset_s: float = 0.0
    """Shift of the window grid from 1970-01-01T00:00Z, in seconds."""
    time: TimeConfig
    """The event time."""
    key: list[str] = Field(default=[])
    """Paths of the fields to group by. The topic should be keyed by them: windows are kept per partition."""
    aggs: dict[ColumnName, AggConfig] = Field(min_length=1)
    """Aggregates by output column."""
    on_late: Literal["dlq", "count"] = "dlq"
    """A record for a closed window: to the dead letters (reason ``late``) and counted, or counted only."""
    max_future_s: float | None = Field(default=None, gt=0)
    """A record whose event time is so far after its Kafka timestamp is invalid; it would close all windows."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> WindowConfig:
        needed = {"tumbling": ("size_s",), "hopping": ("size_s", "hop_s"), "session": ("gap_s",)}[self.type]
        for name in ("size_s", "hop_s", "gap_s"):
            if (getattr(self, name) is not None) != (name in needed):
                raise ValueError(f"a {self.type} window needs exactly {' and '.join(needed)}")
        if self.type == "hopping" and (self.hop_s or 0) > (self.size_s or 0):
            raise ValueError("hop_s must not exceed size_s: records between windows would be lost")
        return self

    @field_validator("key")
    @classmethod
    def _key_columns(cls, key: list[str]) -> list[str]:
        if len({column_name(path) for path in key}) < len(key):
            raise ValueError("two key fields would have the same column name")
        return key


if TYPE_CHECKING:
    SinkConfig = SinkSettings
else:
    # Every installed sink, a stranger's too: its settings are checked here and stand in the JSON schema.
    SinkConfig = SINKS.config_union()
_LISTED = frozenset(SINKS.config_types())


class CheckpointConfig(Config):
    """How often outputs, state and offsets are committed together."""

    interval_s: float = Field(default=5.0, gt=0, le=3600)
    """Longest time between commits, in seconds."""
    rows: int = Field(default=100_000, gt=0)
    """Commit after this many records, sooner than `interval_s`."""


class LimitsConfig(Config):
    """Where a pipeline stops rather than harm."""

    invalid_ratio: float = Field(default=0.5, gt=0, le=1)
    """Largest share of invalid records in a run, once `invalid_after` were read."""
    invalid_after: int = Field(default=1_000, ge=0)
    """Records to read before `invalid_ratio` counts."""
    open_windows: int = Field(default=1_000_000, gt=0)
    """Open windows per partition."""
    batch_records: int = Field(default=20_000, gt=0)
    """Records fetched at once; while they are processed and committed, nothing more is taken."""


class PipelineConfig(Config):
    """One pipeline: a source, what is valid, what is kept, how it is grouped, and the sinks."""

    name: str = Field(pattern=_NAME)
    """Names the pipeline's progress; renaming it starts it anew."""
    source: SourceConfig
    """Where records come from."""
    format: Literal["json"] = "json"
    """How a message's value is encoded: one JSON document."""
    schema_: SchemaConfig = Field(default=SchemaConfig(), alias="schema")
    """What a record must look like; without a schema any JSON object whose declared fields have the declared types."""
    where: str | None = None
    """SQL-like condition of the records to keep: ``dep_time is not null and origin in ('JFK', 'LGA')``."""
    rows: RowsConfig = RowsConfig()
    """The columns of the row output."""
    window: WindowConfig | None = None
    """Grouping by event time; unset means none."""
    sinks: list[SinkConfig] = Field(min_length=1)
    """Where outputs go; each sink is exactly once by itself."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often to commit."""
    limits: LimitsConfig = LimitsConfig()
    """Where to stop."""
    flush_on_drain: bool = False
    """Close every open window at the end of a bounded drain; later records for them are late."""

    @field_validator("sinks", mode="before")
    @classmethod
    def _sinks_usable(cls, given: Any) -> Any:
        for each in given if isinstance(given, list | tuple) else ():
            name = each.get("type") if isinstance(each, Mapping) else getattr(each, "type", None)
            # An unknown or broken extension is missing in the union, which could only list the others.
            if not isinstance(name, str):
                continue
            if reason := why_unusable(name):
                raise ValueError(reason)
            if name not in _LISTED:
                raise ValueError(
                    f"stream sink {name!r} could not be loaded before tidemill_stream.config was: its module must not "
                    "import that, and must be registered before"
                )
        return given

    @model_validator(mode="after")
    def _sinks_differ(self) -> PipelineConfig:
        places = [sink.place() for sink in self.sinks]
        if len(set(places)) < len(places):
            raise ValueError("two sinks are the same place")
        return self

    @property
    def group(self) -> str:
        """Consumer group of the service."""
        return self.source.group or self.name


class PipelinesConfig(Config):
    """A file of pipelines, each run by a process of its own."""

    pipelines: list[PipelineConfig] = Field(min_length=1)
    """The pipelines."""

    @model_validator(mode="after")
    def _names_differ(self) -> PipelinesConfig:
        names = [pipeline.name for pipeline in self.pipelines]
        for name in {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two pipelines are called {name!r}")
        owners: dict[str, str] = {}
        for pipeline in self.pipelines:
            for sink in pipeline.sinks:
                for table in sink.owned():
                    if owners.setdefault(table, pipeline.name) != pipeline.name:
                        raise ValueError(f"pipelines {owners[table]!r} and {pipeline.name!r} both write {table}")
        return self


def column_name(path: str) -> str:
    """Name the output column of a field: the last part of its path."""
    return split_path(path)[-1]
