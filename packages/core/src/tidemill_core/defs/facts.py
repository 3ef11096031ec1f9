"""Facts about failed tries, kept in the event log, where Dagster itself keeps errors as text only."""

from contextlib import suppress
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import CommandFailed, TaskTemporarilyFailed, TaskTimedOut
from tidemill_core.defs._dagster import EngineEventData
from tidemill_core.defs.executor.steps import StepTimedOut
from tidemill_core.errors import ExitCode, TransientError

FAILURE = "tidemill/failure"
"""Metadata of the event that says why a try of a task failed: `transient`, `timeout` or `error`."""
EXIT_CODE = "tidemill/exit_code"
"""Metadata of the event that says how a command ended."""


def note_failure(context: Any, error: BaseException) -> None:
    """Write down what kind of failure ended a try: for exit codes and for conditions of later tasks.

    The event log keeps errors as text only; this is the fact.
    """
    code = getattr(error, "code", None) if isinstance(error, CommandFailed) else None
    if isinstance(error, TaskTemporarilyFailed):
        code = int(ExitCode.TEMPORARY)
    metadata: dict[str, Any] = {FAILURE: failure_kind(error)}
    if code is not None:
        metadata[EXIT_CODE] = dg.MetadataValue.int(code)
    step = context.get_step_execution_context().step.key
    text = f"exit code {code}" if code is not None else f"{metadata[FAILURE]} failure"
    context.instance.report_engine_event(text, context.run, EngineEventData(metadata=metadata), step_key=step)


def failure_kind(error: BaseException) -> str:
    """Tell a failure that may pass by itself from one that will not: `transient`, `timeout` or `error`.

    A timeout is one by the task's `timeout_s`; a TimeoutError of the task's own code is an error.
    """
    if isinstance(error, TaskTimedOut | StepTimedOut):
        return "timeout"
    return "transient" if isinstance(error, TransientError) else "error"


def note_failure_here(error: BaseException) -> None:
    """Write the same down for the step that calls this; outside a step there is nowhere to, and nothing is done."""
    with suppress(dg.DagsterInvariantViolationError):
        note_failure(dg.OpExecutionContext.get(), error)
