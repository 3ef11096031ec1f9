"""What to load, where to, and what may happen to it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from tidemill_core.config import Config, SecretStr
from tidemill_core.errors import ConfigError
from tidemill_core.postgres.identifiers import TableName, check_identifier

Mode = Literal["replace", "append", "upsert"]


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_Name = Annotated[str, StringConstraints(min_length=1)]
Names = Annotated[tuple[_Name, ...], BeforeValidator(_listed, json_schema_input_type=_Name | tuple[_Name, ...])]
"""One name, or several."""
_SomeNames = Annotated[tuple[_Name, ...], Field(min_length=1)]
SomeNames = Annotated[_SomeNames, BeforeValidator(_listed, json_schema_input_type=_Name | _SomeNames)]
"""One name, or several, and not none."""
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])]
"""One text, or several; also an empty one."""


class ColumnOptions(Config):
    """What to do with one column of the files."""

    type: str | None = None
    """PostgreSQL type of the column in a new table, such as ``numeric(18,2)``; default chosen from the data."""
    rename: str | None = None
    """Name in the table; default the file's."""
    skip: bool = False
    """Leave the column out."""


def _column(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Column = Annotated[ColumnOptions, BeforeValidator(_column, json_schema_input_type=str | ColumnOptions)]
"""A type alone, or all options."""


class CsvOptions(Config):
    """How CSV files are written."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Character between fields."""
    quote: str = Field(default='"', min_length=1, max_length=1)
    """Character around fields that hold a delimiter, a quote or a new line."""
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    """Character before an escaped one; default: quotes are doubled."""
    header: bool = True
    """The first row names the columns; else they are ``f0``, ``f1``, ..."""
    skip_rows: int = Field(default=0, ge=0)
    """Lines to pass over before the header."""
    encoding: str = "utf8"
    """Character set of the files."""


class LoadFields(Config):
    """Everything about a load but its files and its table."""

    format: str = "auto"
    """``parquet``, ``csv``, ``json`` (an array, or one object a line), or ``auto`` by the file name."""
    mode: Mode = "replace"
    """``replace`` by a new table and a swap, ``append`` each file once, or ``upsert`` by `key`."""
    key: Names = ()
    """Key columns (names in the table): needed by ``upsert``, the primary key of a new table."""
    columns: Mapping[str, Column] = {}
    """Options by name of the column in the files."""
    csv: CsvOptions = CsvOptions()
    """How CSV files are written."""
    nulls: Texts = ("",)
    """Unquoted CSV fields that mean null."""
    hive: bool = True
    """Make columns of ``key=value`` folders in the files' paths."""
    sample_bytes: int = Field(default=4 << 20, ge=1)
    """Bytes of each CSV or JSON file that are read to choose column types; a longer file may surprise later."""
    split: Literal["auto", "all", "none"] = "auto"
    """Which long CSV and JSON lines files are cut into byte ranges that load in parallel: ``auto`` where finding the
    borders is cheap (local files, JSON lines anywhere), ``all``, or ``none``; compressed ones never are."""
    split_bytes: int = Field(default=32 << 20, ge=1)
    """About how long such a range is; a file shorter than two is one unit."""
    batch_rows: int = Field(default=65_536, ge=1, le=1_000_000)
    """Rows decoded and sent at a time; memory per worker grows with it."""
    workers: int = Field(default=2, ge=1, le=64)
    """Threads, each with a connection of its own."""
    max_rejects: int = Field(default=0, ge=0)
    """Bad rows to set aside in the reject table before the load gives up; 0 stops at the first."""
    nanoseconds: Literal["error", "floor", "round"] = "error"
    """What to do with values finer than PostgreSQL's microseconds; whole microseconds always load."""
    digits: Literal["error", "round"] = "error"
    """What to do with digits that the column's type does not keep."""
    timezone: str | None = None
    """Zone of local times that go to or from a column with time zone, such as ``Europe/Paris``; default refused."""
    nul: Literal["error", "strip"] = "error"
    """What to do with NUL characters in text, which PostgreSQL cannot keep."""
    on_changed: Literal["error", "load", "skip"] = "error"
    """``append``: what to do with a file that was loaded before with other content."""
    allow_empty: bool = False
    """Do nothing, rather than fail, when no file matches."""

    @model_validator(mode="after")
    def _names_are_good(self) -> LoadFields:
        for name in (*self.key, *(each.rename for each in self.columns.values() if each.rename)):
            _checked(check_identifier, name)
        if self.mode == "upsert" and not self.key:
            raise ValueError("mode upsert needs a `key`")
        return self


class LoadConfig(LoadFields):
    """One load: files into one table."""

    files: SomeNames
    """Local paths or URLs (file, s3, gs, az, lake) of files, folders, or patterns with ``*``, ``?`` and ``**``."""
    table: str
    """``schema.table``; made if it is not there."""

    @model_validator(mode="after")
    def _table_is_good(self) -> LoadConfig:
        _checked(TableName.parse, self.table)
        return self

    @property
    def target(self) -> TableName:
        """The table's parsed name."""
        return TableName.parse(self.table)


class LoadsFile(Config):
    """A file of loads, for the command line."""

    postgres_url: SecretStr | None = None
    """Where to load; default the settings, then the embedded server."""
    loads: tuple[LoadConfig, ...] = Field(min_length=1)
    """The loads, done in order."""


def _checked(check: Any, value: str) -> None:
    try:
        check(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error
