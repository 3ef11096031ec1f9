"""The file formats a load can read, found through entry points."""

from __future__ import annotations

from tidemill_core.errors import ConfigError, PluginError
from tidemill_core.plugins import Registry

from tidemill_loader.formats._base import Format, Unit

__all__ = ["FORMATS", "Format", "Unit", "format_for"]

FORMATS: Registry[type[Format]] = Registry("tidemill.loader.formats", "file format")
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")


def format_for(name: str, path: str) -> str:
    """Choose a format: the one named, or by the file name where `name` is ``auto``.

    Every installed format is asked for its `suffixes`, before and after the suffix of a compression is
    taken off; the longest suffix that fits decides, so that ``.geo.json`` wins over ``.json``.

    Raises:
        ConfigError: The file name says nothing, or two formats claim its suffix.
    """
    if name != "auto":
        return "json" if name == "jsonl" else name
    suffixes, unloadable = _suffixes()
    lowered = path.lower()
    fitting = [suffix for suffix in suffixes if _without_compression(lowered, suffix).endswith(suffix)]
    if not fitting:
        reasons = "".join(f"; {reason}" for reason in unloadable)
        known = ", ".join(FORMATS.names())
        raise ConfigError(f"{path}: the name does not tell the format; set `format` to one of {known}{reasons}")
    suffix = max(fitting, key=len)
    claimed_by = suffixes[suffix]
    if len(claimed_by) > 1:
        raise ConfigError(f"{path}: {suffix} is claimed by the formats {' and '.join(claimed_by)}; set `format` to one")
    return claimed_by[0]


def _suffixes() -> tuple[dict[str, list[str]], list[str]]:
    """Collect who claims each suffix, and why some formats cannot be asked."""
    claims: dict[str, list[str]] = {}
    unloadable: list[str] = []
    for name in FORMATS.names():
        try:
            extension = FORMATS.get(name)
        except PluginError as error:
            # one broken plugin must not stop the loads of other formats
            unloadable.append(str(error))
            continue
        # a format from before `suffixes` is used by its name alone
        for suffix in getattr(extension, "suffixes", ()):
            claims.setdefault(suffix.lower(), []).append(name)
    return claims, unloadable


def _without_compression(path: str, suffix: str) -> str:
    """Take the compression's suffix off a path, unless the format's own suffix ends with it."""
    if suffix.endswith(COMPRESSIONS):
        return path
    for compression in COMPRESSIONS:
        path = path.removesuffix(compression)
    return path
