"""Log events with fields: to stderr, for people on a terminal and as JSON lines elsewhere, without secrets.

`get_logger` costs nothing at import: structlog is loaded by the first event that is
written. The command calls `configure_logging`; in anybody else's process (Dagster's,
a notebook) nothing global is touched, and a structlog set up there is used as it is.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["Logger", "configure_logging", "get_logger"]

Format = Literal["console", "json"]


class _Setup:
    """What this process logs, and how; `generation` tells loggers to look again."""

    format: Format | None = None
    level: int = logging.INFO
    generation: int = 0


class Logger:
    """A named logger: `log.info("batch_written", rows=n)`; structlog is imported by the first written event."""

    __slots__ = ("_bound", "_fields", "_generation", "_name")

    def __init__(self, name: str, **fields: Any) -> None:
        self._name, self._fields = name, fields
        self._bound: FilteringBoundLogger | None = None
        self._generation = -1

    def bind(self, **fields: Any) -> Logger:
        """Make a logger that adds `fields` to each of its events."""
        return Logger(self._name, **{**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """Log a detail that only a person hunting a fault reads."""
        if _Setup.level <= logging.DEBUG:
            self._structlog().debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log a step of the work."""
        if _Setup.level <= logging.INFO:
            self._structlog().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log something unexpected that the work survives."""
        if _Setup.level <= logging.WARNING:
            self._structlog().warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure."""
        self._structlog().error(event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log a failure with the traceback of the exception being handled."""
        self._structlog().exception(event, **fields)

    def _structlog(self) -> FilteringBoundLogger:
        if self._bound is None or self._generation != _Setup.generation:
            from tidemill_core.telemetry._structlog import bound_logger

            self._bound = bound_logger(self._name, _Setup.level, chosen_format(), **self._fields)
            self._generation = _Setup.generation
        return self._bound


def get_logger(name: str, **fields: Any) -> Logger:
    """Make a logger called `name`; `fields` are added to each of its events."""
    return Logger(name, **fields)


def configure_logging(verbosity: int = 0, format: Format | str | None = None) -> None:  # noqa: A002  # the CLI's word
    """Set up this process's logging; for commands, which own their process.

    Libraries that use the standard `logging` are written in the same format: their
    warnings always, their info from verbosity 2.

    Args:
        verbosity: 0 shows warnings on a terminal (where progress bars tell the rest)
            and info elsewhere, 1 shows info, 2 debug.
        format: ``console`` or ``json``; default console when stderr is a terminal.
    """
    _Setup.format = "console" if format == "console" else "json" if format == "json" else None
    quiet = logging.WARNING if chosen_format() == "console" else logging.INFO
    _Setup.level = {0: quiet, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    _Setup.generation += 1
    foreign = logging.INFO if verbosity > 1 else logging.WARNING
    logging.basicConfig(level=foreign, handlers=[_ForeignHandler()], force=True)


def chosen_format() -> Format:
    """The format in force: the configured one, else console on a terminal, else JSON lines."""
    if _Setup.format:
        return _Setup.format
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return "console" if is_terminal else "json"


class _ForeignHandler(logging.Handler):
    """Writes records of the standard `logging` as our events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            from tidemill_core.telemetry._structlog import bound_logger

            logger = bound_logger(record.name, logging.NOTSET, chosen_format())
            logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001  # logging must never fail the work; the standard hook reports it
            self.handleError(record)
