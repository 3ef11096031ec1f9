"""How a task of a DAG can fail.

TidemillError
└── TaskError
    ├── CommandFailed        a command ended with an exit code that is not 0
    ├── TaskTimedOut         a task took longer than its `timeout_s`
    ├── TaskTemporarilyFailed (Transient) exit code 75, or a transient error in a callable
    └── BadOutputs           (Permanent) a task did not return what it declares
"""

from __future__ import annotations

from tidemill_core.errors import PermanentError, TidemillError, TransientError


class TaskError(TidemillError):
    """A task of a DAG failed."""


class CommandFailed(TaskError):
    """A command ended with an exit code that is not 0."""

    def __init__(self, task: str, code: int, tail: str) -> None:
        self.task, self.code, self.tail = task, code, tail
        what = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"command of task {task!r} {what}" + (f"; its last lines:\n{tail}" if tail else ""))


class TaskTimedOut(TaskError, TimeoutError):
    """A task took longer than its `timeout_s`."""

    def __init__(self, task: str, timeout_s: float) -> None:
        self.task, self.timeout_s = task, timeout_s
        super().__init__(f"task {task!r} took longer than its {timeout_s:g} s and was stopped")


class TaskTemporarilyFailed(TaskError, TransientError):
    """A task says that it may succeed later."""

    def __init__(self, task: str, reason: str, retry_after_s: float | None = None) -> None:
        self.task, self.retry_after_s = task, retry_after_s
        super().__init__(f"task {task!r} failed for now: {reason}")


class BadOutputs(TaskError, PermanentError):
    """A task did not return what it declares."""
