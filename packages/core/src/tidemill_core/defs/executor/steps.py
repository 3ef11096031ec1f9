"""One try of a step on a thread of its own: how it runs, and how it is stopped."""

import contextvars
import ctypes
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from tidemill_core.defs._dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    SerializableErrorInfo,
    StepExecutionContext,
    dagster_event_sequence_for_step,
    serializable_error_info_from_exc_info,
    trigger_hook,
)
from tidemill_core.defs.executor.capture import StepOutput, printing_to
from tidemill_core.lifecycle import StopToken, is_uninterrupted, working_under

TIMEOUT_TAG = "tidemill/timeout_s"
_NOT_WITHIN = (
    "/logging/",
    "/sqlalchemy/",
    "/dagster/_core/storage/",
    "/dagster/_core/instance/",
    "/dagster/_core/events/",
    "/defs/executor/kept_connections.py",
    "/defs/executor/capture.py",
    "/urllib3/",
    "/tidemill_core/storage/_http.py",
    "/psycopg_pool/",
)
"""Code that holds what other threads need (locks, connections of a pool): nothing is raised in a thread
that is anywhere inside it."""
_NOT_AT = ("/contextlib.py",)
"""Code that must not be where an exception strikes: between the generator that took something and the
`with` block that gives it back."""


class StepTimedOut(Exception):
    """A step took longer than its `tidemill/timeout_s` tag allows."""


@dataclass(slots=True, eq=False)
class RunningStep:
    """One try of a step on its thread."""

    key: str
    context: StepExecutionContext
    timeout_s: float | None
    output: StepOutput | None = None
    thread: threading.Thread | None = None
    stop: StopToken = field(default_factory=StopToken)
    reason: type[BaseException] = DagsterExecutionInterruptedError
    """Raised in the thread, once it is time to stop."""
    retry: DagsterEvent | None = None
    """It is to be tried again, as soon as this try has ended."""
    is_abandoned: bool = False

    def ask_to_stop(self, reason: type[BaseException]) -> None:
        """Set the step's stop token; `reason` is raised by the token, or in the thread."""
        self.reason = reason
        error = reason()
        self.stop.set(str(error) or "the run was stopped", error=error)

    def make_stop(self) -> bool:
        """Raise the reason in the thread; False while it must not be disturbed."""
        self.stop.is_overdue = True
        return self.stop.is_delivered or raise_in(self.thread, self.reason)


@dataclass(frozen=True, slots=True)
class Ended:
    """A thread is done with its step; `error` is set if an exception escaped."""

    error: SerializableErrorInfo | None = None
    is_interrupt: bool = False
    exception: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Prints:
    """A step has printed for the first time; its own compute log is that of `log_key`."""

    log_key: Sequence[str]
    captured: Any


Message = DagsterEvent | Prints | Ended
Messages = SimpleQueue[tuple[RunningStep, Message]]


def start(running: RunningStep, messages: Messages) -> None:
    """Run a step on a new thread; everything that happens goes to `messages`."""
    work: Callable[..., Any] = contextvars.copy_context().run
    # A daemon: a step whose thread cannot be stopped must not keep the process alive.
    running.thread = threading.Thread(
        target=work, args=(_work, running, messages), name=f"step {running.key}", daemon=True
    )
    running.thread.start()


def step_output(
    job_context: Any, context: StepExecutionContext, running: RunningStep, messages: Messages
) -> StepOutput:
    """Make the place where a try of a step prints; the loop hears of it when it is first used."""
    manager = job_context.instance.compute_log_manager
    tries = context.previous_attempt_count
    file_key = context.step.key if tries == 0 else f"{context.step.key}-{tries + 1}"
    log_key = manager.build_log_key_for_run(job_context.run_id, file_key)

    def begun(captured: Any) -> None:
        # The loop records it: here a lock of `logging` may be held, and recording logs.
        messages.put((running, Prints(log_key, captured)))

    return StepOutput(manager, log_key, begun)


def _work(running: RunningStep, messages: Messages) -> None:
    ended = Ended()
    assert running.output is not None
    try:
        with working_under(running.stop), printing_to(running.output):
            events = []
            for event in dagster_event_sequence_for_step(running.context):
                if running.is_abandoned:
                    return
                events.append(event)
                messages.put((running, event))
            for event in trigger_hook(running.context, events):
                messages.put((running, event))
    except BaseException as error:  # noqa: BLE001 - the loop decides; nothing may end a thread silently
        is_interrupt = isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt)
        ended = Ended(serializable_error_info_from_exc_info(sys.exc_info()), is_interrupt, error)
    finally:
        messages.put((running, ended))


def timed_out(key: str, timeout_s: float) -> type[BaseException]:
    """Make the exception for one step; only a class can be raised in another thread."""
    text = f"step {key} took longer than its {timeout_s:g} s"

    def init(self: TimeoutError) -> None:
        TimeoutError.__init__(self, text)

    return type("StepTimedOut", (StepTimedOut, TimeoutError), {"__init__": init})


def raise_in(thread: threading.Thread | None, reason: type[BaseException]) -> bool:
    """Raise `reason` in a thread at its next Python instruction; False while it must not be disturbed."""
    if thread is None or thread.ident is None:
        return False
    # A fresh time slice, so that the thread stands still between the look and the raise.
    time.sleep(0)
    frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 - the documented way to see another thread
    if is_uninterrupted(thread.ident) or (frame is not None and frame.f_code.co_filename.endswith(_NOT_AT)):
        return False
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in _NOT_WITHIN):
            return False
        frame = frame.f_back
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(reason))
    return True
