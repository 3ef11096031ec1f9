"""Say in one line what is wrong with Dagster's storage: a full disk, a broken home, a lost server."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tidemill_core.errors import ConfigError, TidemillError, TransientError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
"""What a folder that cannot be made says: only of paths in the home are these its own troubles."""
_BROKEN_NAMES = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_SCHEMA", "SQLITE_ERROR")
_FULL_NAMES = ("SQLITE_FULL", "SQLITE_IOERR")
_CLOSED_NAMES = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")
_BUSY_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED")


class HomeBroken(ConfigError):
    """The databases of the home cannot be read."""


class HomeClosed(ConfigError):
    """The home cannot be written."""


class DiskFull(TransientError):
    """There is no room for what a run writes."""


class StorageUnavailable(TransientError):
    """Dagster's storage does not answer now."""


def storage_error(error: BaseException) -> TidemillError | None:
    """Find out whether an error comes from where Dagster keeps its runs.

    Args:
        error: What ended a command; the errors behind it are looked at, too.

    Returns:
        Our error with what to do about it, or None for an error of another kind.
    """
    for each in _chain(error):
        found = _of_sqlite(each) or _of_postgres(each) or _of_system(each) or _of_dagster(each)
        if found is not None:
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it, SQLAlchemy's `orig` among them."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [getattr(each, "orig", None), each.__cause__, each.__context__]


def _home() -> str:
    return os.environ.get("DAGSTER_HOME") or "the Dagster home"


def _of_sqlite(error: BaseException) -> TidemillError | None:
    if not isinstance(error, sqlite3.Error):
        return None
    name, home = getattr(error, "sqlite_errorname", None) or "", _home()
    if name.startswith(_FULL_NAMES):
        return DiskFull(f"{home} cannot be written, is the disk full? ({error}); make room, then run again")
    if name.startswith(_CLOSED_NAMES):
        return HomeClosed(f"{home} cannot be opened for writing ({error}); set TIDEMILL_HOME to a folder of your own")
    if name.startswith(_BUSY_NAMES):
        return StorageUnavailable(f"the databases of {home} are locked by another process ({error}); try again")
    if name.startswith(_BROKEN_NAMES):
        return HomeBroken(
            f"the databases of {home} are broken ({error}); move the folder {home}/storage away and run again: "
            "a new one is made, without the runs of the old one"
        )
    return None


def _of_postgres(error: BaseException) -> TidemillError | None:
    kind = type(error)
    if kind.__module__.partition(".")[0] != "psycopg2" or kind.__name__ not in ("OperationalError", "InterfaceError"):
        return None
    reason = (str(error).strip().splitlines() or ["the connection is closed"])[0]
    return StorageUnavailable(
        f"Dagster's storage in PostgreSQL does not answer: {reason}; see TIDEMILL_DAGSTER_POSTGRES_URL, and try again"
    )


def _of_system(error: BaseException) -> TidemillError | None:
    if not isinstance(error, OSError):
        return None
    where = error.filename or _home()
    if error.errno in _FULL:
        return DiskFull(f"{where} cannot be written: {error.strerror}; make room, then run again")
    if error.errno in _CLOSED and error.filename:
        return HomeClosed(f"{where}: {error.strerror}; is it a folder of yours? TIDEMILL_HOME names another one")
    if error.errno in _MISPLACED and error.filename and _is_in_home(os.fsdecode(error.filename)):
        return HomeClosed(
            f"{where}: {error.strerror}; the home {_home()} is no folder in which folders can be made: "
            "move away what is in the way, or set TIDEMILL_HOME (or DAGSTER_HOME) to a folder of your own"
        )
    return None


def _is_in_home(path: str) -> bool:
    home = os.environ.get("DAGSTER_HOME")
    return bool(home) and Path(path).absolute().is_relative_to(Path(home or "").absolute())


def _of_dagster(error: BaseException) -> TidemillError | None:
    names = ("DagsterInvalidConfigError", "DagsterHomeNotSetError", "DagsterInvariantViolationError")
    kind = type(error)
    if kind.__name__ not in names or not kind.__module__.startswith("dagster."):
        return None
    text = " ".join(str(error).split())
    if "dagster.yaml" not in text and "DAGSTER_HOME" not in text:
        return None
    return HomeBroken(f"{_home()}: {text[:300]}")
