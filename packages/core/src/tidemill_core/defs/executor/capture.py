"""What a step on a thread prints, kept under the step: its own compute log, beside the process's.

All threads share ``sys.stdout`` and ``sys.stderr``. While a run goes on, both are routers that
look up whose step writes (a context variable); handlers of ``logging`` that were made before are
pointed at them, too. All of it stays in the log of the whole process as well; what C code writes to
the file descriptors, and what a step's own threads print, is in that log alone.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from tidemill_core.defs._dagster import CapturedLogContext, ComputeIOType

_STEP: ContextVar["StepOutput | None"] = ContextVar("tidemill_step_output", default=None)


class StepOutput:
    """Where one try of a step prints; its files are made when it first prints something.

    Args:
        manager: The instance's compute log manager.
        log_key: Of this try.
        begun: Called once, before the first text is kept. It must not log: the text may come from a
            handler of `logging`, whose lock this thread then holds.
    """

    def __init__(self, manager: Any, log_key: Sequence[str], begun: Callable[[CapturedLogContext], None]) -> None:
        self._manager, self._log_key, self._begun = manager, log_key, begun
        self._files: dict[str, TextIO] | None = None
        self._stack = ExitStack()

    def write(self, kind: str, text: str) -> None:
        """Keep text that was written to ``stdout`` or ``stderr``."""
        # A full disk must not fail a step that only prints; the process's log has it, too.
        with suppress(OSError):
            if self._files is None:
                self._open()
            file = (self._files or {}).get(kind)
            if file is None:
                return
            file.write(text)
            if text.endswith("\n"):
                # Who watches the run wants whole lines now.
                file.flush()

    def _open(self) -> None:
        self._files = {}
        # A cloud's manager uploads both files when the one stream closes that it opened itself:
        # that one must close last, and the other be opened below it.
        local = getattr(self._manager, "local_manager", self._manager)
        out = self._stack.enter_context(self._manager.open_log_stream(self._log_key, ComputeIOType.STDOUT))
        err = self._stack.enter_context(local.open_log_stream(self._log_key, ComputeIOType.STDERR))
        if out is None or err is None:
            return  # compute logs are switched off
        self._files = {"stdout": out, "stderr": err}
        self._begun(CapturedLogContext(self._log_key))

    def close(self) -> None:
        """Close the files; what is written later is in the process's log only."""
        is_kept = bool(self._files)
        self._files = {}
        with suppress(OSError):  # what could not be flushed or uploaded must not fail the step
            self._stack.close()
            complete = getattr(self._manager, "complete_artifact_path", None)
            if is_kept and complete is not None:
                Path(complete(self._log_key)).touch()


@contextmanager
def printing_to(output: StepOutput) -> Iterator[None]:
    """Send what this thread prints inside the block to `output`."""
    reset = _STEP.set(output)
    try:
        yield
    finally:
        _STEP.reset(reset)
        output.close()


class _Router:
    """A text stream that asks, at every write, whose step it is."""

    def __init__(self, kind: str, process: TextIO) -> None:
        self._kind, self._process = kind, process

    def write(self, text: str) -> int:
        """Write to the process's stream, as ever, and to the step's own log."""
        step = _STEP.get()
        if step is not None:
            step.write(self._kind, text)
        self._process.write(text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the process's stream; a step's lines are flushed as they are written."""
        self._process.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


@contextmanager
def routed_output(console: Sequence[logging.Logger] = ()) -> Iterator[None]:
    """Let steps print to logs of their own inside the block.

    Args:
        console: Loggers that show Dagster's events; they go on writing to the process's streams alone.
    """
    with _bound(console), _routed():
        yield


@contextmanager
def _bound(console: Sequence[logging.Logger]) -> Iterator[None]:
    """Keep handlers that ask `sys` for their stream each time at the stream of now.

    Dagster's console is such a handler. Through a router each event of a silent step would be text of
    that step: a log of its own with nothing of it, and a quarter more CPU for fifty empty steps.
    """
    before = [(logger, list(logger.handlers)) for logger in console]
    for logger, handlers in before:
        logger.handlers = [_with_own_stream(handler) for handler in handlers]
    try:
        yield
    finally:
        for logger, handlers in before:
            logger.handlers = handlers


def _with_own_stream(handler: logging.Handler) -> logging.Handler:
    if not isinstance(handler, logging.StreamHandler) or "stream" in vars(handler):
        return handler
    bound = logging.StreamHandler(handler.stream)
    bound.setLevel(handler.level)
    bound.setFormatter(handler.formatter)
    bound.filters = handler.filters
    return bound


@contextmanager
def _routed() -> Iterator[None]:
    out, err = sys.stdout, sys.stderr
    routers: dict[int, Any] = {id(out): _Router("stdout", out), id(err): _Router("stderr", err)}
    moved = []
    for handler in _stream_handlers():
        router = routers.get(id(handler.stream))
        if router is not None:
            moved.append((handler, handler.stream))
            handler.stream = router
    sys.stdout, sys.stderr = routers[id(out)], routers[id(err)]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        for handler, stream in moved:
            handler.stream = stream


def _stream_handlers() -> list["logging.StreamHandler[Any]"]:
    """List the handlers of Python's loggers; Dagster's console is none of them, it shows events."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    found = {handler for each in loggers if isinstance(each, logging.Logger) for handler in each.handlers}
    # The handler of last resort has no stream of its own: it asks `sys` each time, and so us.
    return [each for each in found if isinstance(each, logging.StreamHandler) and "stream" in vars(each)]
