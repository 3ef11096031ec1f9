"""What our executors in the run's own process share: how a plan is set up, and its first and last event."""

import os
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import dagster as dg

from tidemill_core.defs._dagster import (
    DagsterEvent,
    EngineEventData,
    ExecuteRunWithPlanIterable,
    ExecutionPlan,
    PlanExecutionContext,
    PlanExecutionContextManager,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
    create_compute_log_file_key,
    serializable_error_info_from_exc_info,
)
from tidemill_core.defs.executor.kept_connections import kept_connections
from tidemill_core.defs.executor.pools import PoolClaims
from tidemill_core.defs.executor.scheduler import Scheduler


class PlanExecutor(dg.Executor):
    """Sets up the scheduler, pools and logs of a run, and leaves the steps to a subclass."""

    how: str
    """Ends the sentence "Executing steps ..."."""

    def __init__(self, *, retries: RetryMode, step_dependency_config: StepDependencyConfig | None = None) -> None:
        self._retries = retries
        self._step_dependency_config = step_dependency_config or StepDependencyConfig.default()

    @property
    def retries(self) -> RetryMode:
        """Whether steps are tried again."""
        return self._retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """Whether a step waits for upstream steps, or only for their outputs."""
        return self._step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run all steps of the plan; yields every event, each already in the event log."""
        pid, keys = os.getpid(), execution_plan.step_keys_to_execute
        data = EngineEventData.in_process(pid, keys)
        yield DagsterEvent.engine_event(plan_context, f"Executing steps {self.how} (pid: {pid})", data)
        started = time.monotonic()
        yield from ExecuteRunWithPlanIterable(
            execution_plan=execution_plan,
            iterator=self._run_plan,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )
        seconds = time.monotonic() - started
        yield DagsterEvent.engine_event(
            plan_context, f"Finished steps {self.how} (pid: {pid}) in {seconds:.2f} s", data
        )

    def _run_plan(self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        with ExitStack() as stack:
            stack.enter_context(kept_connections(job_context.instance))
            pools = stack.enter_context(PoolClaims(job_context.instance, job_context.dagster_run))
            scheduler = stack.enter_context(
                Scheduler(
                    execution_plan,
                    retry_mode=self.retries,
                    instance_concurrency_context=pools,
                    step_dependency_config=self.step_dependency_config,
                    **self._limits(),
                )
            )
            yield from self._capture(stack, job_context, execution_plan)
            yield from self._run_steps(job_context, scheduler, pools)

    def _limits(self) -> Mapping[str, Any]:
        return {"max_concurrent": 1}

    def _captured_steps(self, execution_plan: ExecutionPlan) -> list[str]:
        """Name the steps whose output is in the log of the process."""
        return [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]

    def _capture(
        self, stack: ExitStack, job_context: PlanExecutionContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Capture stdout and stderr of the process for the whole run."""
        manager = job_context.instance.compute_log_manager
        file_key = create_compute_log_file_key()  # type: ignore[no-untyped-call]
        log_key = manager.build_log_key_for_run(job_context.run_id, file_key)
        try:
            captured = stack.enter_context(manager.capture_logs(log_key))
            yield DagsterEvent.capture_logs(job_context, self._captured_steps(execution_plan), log_key, captured)
        except Exception:  # noqa: BLE001 - a run must not fail because its output cannot be kept
            error = serializable_error_info_from_exc_info(sys.exc_info())
            yield DagsterEvent.engine_event(
                job_context, "Exception while setting up compute log capture", EngineEventData(error=error)
            )

    @abstractmethod
    def _run_steps(
        self, job_context: PlanExecutionContext, scheduler: Scheduler, pools: PoolClaims
    ) -> Iterator[DagsterEvent]:
        """Run every step; the context is set up, and nothing has started."""
