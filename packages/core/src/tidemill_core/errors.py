"""The error tree: what happened (domain) crossed with what the caller must do (remedy).

    TidemillError
    ├── ConfigError            a file, option or definition is wrong          exit 3
    ├── PluginError            an extension is missing or broken              exit 3
    ├── StorageError           an object store refused or failed
    │   ├── ObjectNotFound     (Permanent)
    │   └── PreconditionFailed (Permanent) somebody else wrote first
    ├── PostgresError          a PostgreSQL server refused or failed
    ├── CheckpointError
    │   └── CheckpointConflict (Permanent) a newer owner has saved
    └── ServiceError           a server we need is not there or did not start

    TransientError   try again, perhaps after `retry_after_s`                 exit 75
    PermanentError   trying again cannot help                                 exit 1
    RecordError      this record is bad: set it aside and go on               exit 1

A concrete error inherits one domain class and, where it is known, one remedy:
``class BackendThrottled(StorageError, TransientError)``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a `tidemill` command tells the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    TEMPORARY = 75
    INTERRUPTED = 130


class TidemillError(Exception):
    """Base of every error Tidemill raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles as type(*args), but ours are made of facts and hold the finished message in args.
        return _rebuilt, (type(self), self.args, dict(vars(self)))


class TransientError(TidemillError):
    """The same call may succeed later.

    Attributes:
        retry_after_s: Seconds the other side asked us to wait, or None.
    """

    retry_after_s: float | None = None


class PermanentError(TidemillError):
    """The same call will fail again; somebody must change something first."""


class RecordError(TidemillError):
    """One record is bad; the rest of the work can go on without it."""


class ConfigError(PermanentError):
    """A configuration file, option or definition is wrong."""


class PluginError(ConfigError):
    """An extension is unknown or cannot be loaded."""


class StorageError(TidemillError):
    """An object store refused or failed."""


class ObjectNotFound(StorageError, PermanentError):
    """No object has this key."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        super().__init__(f"{url} has no object {key!r}")


class PreconditionFailed(StorageError, PermanentError):
    """A conditional write lost: the object exists already, or has changed."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        super().__init__(f"{key!r} in {url} was written by somebody else; read it again and decide anew")


class PostgresError(TidemillError):
    """A PostgreSQL server refused or failed."""


class CheckpointError(TidemillError):
    """A checkpoint could not be read or saved."""


class CheckpointConflict(CheckpointError, PermanentError):
    """A newer owner has saved this checkpoint; our work must stop."""

    def __init__(self, scope: str, key: str, expected: int, found: int) -> None:
        self.scope, self.key, self.expected, self.found = scope, key, expected, found
        super().__init__(
            f"checkpoint {scope}/{key} is at version {found}, we hold {expected}: another worker took over"
        )


class ServiceError(TidemillError):
    """A server we need is not there, or did not start."""


class Stopped(Exception):
    """Work ended because somebody asked it to; a stop request is not an error."""

    def __init__(self, reason: str = "stop requested") -> None:
        self.reason = reason
        super().__init__(reason)


def exit_code(error: BaseException) -> ExitCode:
    """Choose the process exit code for an error that ended a command.

    Returns:
        3 for configuration, 75 for transient errors, 130 for interrupts, else 1.
    """
    if isinstance(error, (KeyboardInterrupt, Stopped)):
        return ExitCode.INTERRUPTED
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, TransientError):
        return ExitCode.TEMPORARY
    return ExitCode.FAILED


def _rebuilt(kind: type[TidemillError], args: tuple[Any, ...], facts: dict[str, Any]) -> TidemillError:
    """Make an error that came from another process, without its ``__init__``."""
    error = kind.__new__(kind, *args)
    # An OSError (our time-outs are some) takes its arguments in __init__ only.
    error.args = args
    vars(error).update(facts)
    return error
