"""`in_process`: one step after the other in the run's own thread, by the settled scheduler.

Stock Dagster's loop asks for the next step before it has followed skips and held steps to their
end: a step behind both makes it spin for ever, deaf to SIGTERM. This one settles first, and also
knows the trigger rules of DAG files.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from tidemill_core.defs._dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    PlanExecutionContext,
    RetryMode,
    StepDependencyConfig,
    dagster_event_sequence_for_step,
    get_retries_config,
    get_step_dependency_config_field,
    trigger_hook,
)
from tidemill_core.defs.executor.plan import PlanExecutor
from tidemill_core.defs.executor.pools import PoolClaims
from tidemill_core.defs.executor.scheduler import Scheduler

POLL_S = 0.2


@dg.executor(
    name="in_process",
    config_schema={
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "step_dependency_config": get_step_dependency_config_field(),  # type: ignore[no-untyped-call]
    },
)
def in_process_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Run one step after the other in the run's process."""
    config: Mapping[str, Any] = context.executor_config
    retries = RetryMode.from_config(config["retries"])
    assert retries is not None
    return InProcessExecutor(
        retries=retries,
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
    )


class InProcessExecutor(PlanExecutor):
    """The executor behind `in_process_executor`."""

    how = "in process"

    def _run_steps(
        self, job_context: PlanExecutionContext, scheduler: Scheduler, pools: PoolClaims
    ) -> Iterator[DagsterEvent]:
        yield from scheduler.settle(job_context)
        while not scheduler.is_complete:
            self._stop_if_interrupted(scheduler)
            step = scheduler.get_next_step()
            yield from scheduler.concurrency_event_iterator(job_context)
            if step is None:
                scheduler.check_alive()
                self._wait(scheduler, pools)
                continue
            context = job_context.for_step(step, scheduler.get_known_state())
            events = []
            for event in dagster_event_sequence_for_step(context):
                events.append(event)
                yield event
                scheduler.handle_event(event)
            scheduler.verify_complete(job_context, step.key)
            yield from scheduler.settle(job_context)
            yield from trigger_hook(context, events)
        scheduler.check_whole()

    def _wait(self, scheduler: Scheduler, pools: PoolClaims) -> None:
        """Sleep until a retry or a claim is due, but not for long: a signal must be noticed."""
        waits = [POLL_S]
        if scheduler.next_retry_at is not None:
            waits.append(scheduler.next_retry_at - time.time())
        if pools.next_claim_s is not None:
            waits.append(pools.next_claim_s)
        time.sleep(max(0.005, min(waits)))

    def _stop_if_interrupted(self, scheduler: Scheduler) -> None:
        if scheduler.check_for_interrupts():
            scheduler.mark_interrupted()
            raise DagsterExecutionInterruptedError
