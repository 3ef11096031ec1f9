"""The file formats a load can read, found through entry points."""

from __future__ import annotations

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry

from tidemill_loader.formats._base import Format, Unit

__all__ = ["FORMATS", "Format", "Unit", "format_for"]

FORMATS: Registry[type[Format]] = Registry("tidemill.loader.formats", "file format")
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}


def format_for(name: str, path: str) -> str:
    """Choose a format: the one named, or by the file name where `name` is ``auto``.

    Raises:
        ConfigError: The file name says nothing.
    """
    if name != "auto":
        return "json" if name == "jsonl" else name
    lowered = path.lower()
    for suffix in COMPRESSIONS:
        lowered = lowered.removesuffix(suffix)
    for suffix, found in _SUFFIXES.items():
        if lowered.endswith(suffix):
            return found
    raise ConfigError(f"{path}: the name does not tell the format; set `format` to one of {', '.join(FORMATS.names())}")
