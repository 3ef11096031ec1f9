"""Tell Dagster what to do about our errors: try again, or give up."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from tidemill_core.defs.facts import note_failure_here
from tidemill_core.errors import PermanentError, RecordError, Stopped, TidemillError, TransientError
from tidemill_core.telemetry.redact import redact

MAX_RETRIES = 3
RETRY_DELAY_S = 5.0


@contextmanager
def dagster_errors(*, max_retries: int = MAX_RETRIES, delay_s: float = RETRY_DELAY_S) -> Iterator[None]:
    """Translate Tidemill's errors inside the block into Dagster's.

    Args:
        max_retries: How often a step that hits transient errors is run again.
        delay_s: Seconds before it is run again, when the error does not ask for more.

    Raises:
        RetryRequested: The error was transient.
        Failure: It was permanent (a retry policy then does not apply), or of unknown kind (it does).
        DagsterExecutionInterruptedError: The work was asked to stop.
    """
    try:
        yield
    except TransientError as error:
        note_failure_here(error)
        wait_s = max(delay_s, error.retry_after_s or 0.0)
        raise dg.RetryRequested(max_retries=max_retries, seconds_to_wait=wait_s) from error
    except TidemillError as error:
        note_failure_here(error)
        raise failure(error) from error
    except Stopped as stopped:
        raise dg.DagsterExecutionInterruptedError(stopped.reason) from stopped


def failure(error: TidemillError) -> dg.Failure:
    """Make Dagster's failure of one of our errors; its text holds no secret."""
    return dg.Failure(
        description=redact(str(error)),
        metadata={"error": type(error).__name__},
        allow_retries=not isinstance(error, (PermanentError, RecordError)),
    )
