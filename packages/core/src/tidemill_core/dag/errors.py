"""How a task of a DAG can fail.

TidemillError
└── TaskError
    ├── CommandFailed        a command ended with an exit code that is not 0
    ├── TaskTimedOut         a task took longer than its `timeout_s`
    ├── TaskTemporarilyFailed (Transient) exit code 75, or a transient error in a callable
    ├── BadOutputs           (Permanent) a task did not return what it declares
    ├── RunTimedOut          a run took longer than its `timeout_s`
    ├── LockLost             (Transient) the lock of a run was lost, so that another run may have begun
    ├── AnotherRunGoesOn     (Transient) `overlap: refuse`, and another run has not ended
    └── RunSkipped           `overlap: skip`, and another run has not ended
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


class RunTimedOut(TaskError):
    """A run took longer than the `timeout_s` of its DAG."""

    def __init__(self, dag: str, timeout_s: float) -> None:
        self.dag, self.timeout_s = dag, timeout_s
        super().__init__(f"the run of DAG {dag!r} took longer than its {timeout_s:g} s and was stopped")


class LockLost(TaskError, TransientError):
    """The lock that keeps two runs of a DAG apart was lost during the run."""

    def __init__(self, dag: str) -> None:
        self.dag = dag
        super().__init__(
            f"the lock of DAG {dag!r} was lost, and another run of it may have begun, so this one was stopped;"
            " run it again: what is done is kept"
        )


class AnotherRunGoesOn(TaskError, TransientError):
    """Another run of the DAG has not ended, and its `overlap` is `refuse`."""

    def __init__(self, dag: str, other: str) -> None:
        self.dag, self.other = dag, other
        super().__init__(f"{other} of DAG {dag!r} goes on, and its overlap is `refuse`; try again when it has ended")


class RunSkipped(TaskError):
    """The run does not take place, by the DAG's `overlap`; nothing is wrong."""

    def __init__(self, dag: str, reason: str) -> None:
        self.dag, self.reason = dag, reason
        super().__init__(f"DAG {dag!r} is skipped: {reason}")
