"""The structlog side of logging: one processor chain, written to whatever stderr is at that moment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import structlog

from tidemill_core.telemetry.redact import redact_event

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor


class _Stderr:
    """The end of the chain; looks `sys.stderr` up at every write, so that redirection works."""

    def msg(self, message: str) -> None:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    log = debug = info = warn = warning = error = critical = fatal = exception = failure = err = msg


def bound_logger(name: str, level: int, form: str, **fields: Any) -> FilteringBoundLogger:
    """Build a logger: through the application's own structlog where it has configured one, else ours."""
    if structlog.is_configured():
        return cast("FilteringBoundLogger", structlog.get_logger(name).bind(logger=name, **fields))
    wrapped = structlog.wrap_logger(
        _Stderr(),
        processors=_processors(form),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return cast("FilteringBoundLogger", wrapped.bind(logger=name, **fields))


def _processors(form: str) -> list[Processor]:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "console":
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        return [*shared, structlog.processors.format_exc_info, _redact, console]
    return [*shared, structlog.processors.format_exc_info, _redact, structlog.processors.JSONRenderer(default=str)]


def _redact(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return redact_event(event)
