"""Put an executor behind what a DAG says about its runs: one at a time, and no longer than its time."""

import _thread
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import LockLost, RunSkipped, RunTimedOut
from tidemill_core.dag.spec import DagSpec
from tidemill_core.defs._dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
    raise_execution_interrupts,
)
from tidemill_core.defs.dag.liveness import heartbeat
from tidemill_core.defs.dag.overlap import Turn, holding, shares_state, take_turn
from tidemill_core.defs.dag.status import (
    HEARTBEAT_TAG,
    LOCK_LOST_TAG,
    OWNER_TAG,
    PROCESS_OF_TAG,
    PROCESS_TAG,
    TIMED_OUT_TAG,
    owner_tag,
)
from tidemill_core.defs.executor.run_engine import STOPPED


def guarded(executor: dg.ExecutorDefinition, dag: DagSpec) -> dg.ExecutorDefinition:
    """Wrap an executor so that `overlap` and `timeout_s` hold however a run is started.

    The wrapper has the name and the configuration of what it wraps.
    """
    inner_creation = executor.executor_creation_fn
    if inner_creation is None:
        return executor

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        return GuardedExecutor(inner_creation(context), dag)

    schema: Any = executor.config_schema
    return dg.ExecutorDefinition(
        name=executor.name,
        config_schema=schema,
        requirements=executor.get_requirements,
        executor_creation_fn=create,
        description=executor.description,
    )


class GuardedExecutor(dg.Executor):
    """Waits for its turn, then runs steps as the wrapped executor does, against the clock."""

    def __init__(self, inner: dg.Executor, dag: DagSpec) -> None:
        self.inner, self.dag = inner, dag

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def retries(self) -> RetryMode:
        """Whether steps are tried again."""
        return self.inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """Whether a step waits for upstream steps, or only for their outputs."""
        return self.inner.step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run all steps of the plan, when it is this run's turn and until its time is up."""
        instance, run = plan_context.instance, plan_context.dagster_run
        with ExitStack() as stack:
            self._say_who_runs_it(stack, instance, run)
            self._take_turn(stack, instance, run)
            held = holding(self.dag.name)
            clock = stack.enter_context(_clock(self.dag.timeout_s))
            is_failed = False
            try:
                for event in self.inner.execute(plan_context, execution_plan):
                    is_failed = is_failed or event.is_step_failure
                    if clock.is_over or (held and held.is_lost):
                        STOPPED.add(run.run_id)
                    yield event
            except (KeyboardInterrupt, DagsterExecutionInterruptedError):
                if not clock.is_over and not (held and held.is_lost):
                    raise
                is_failed = True
            if held and held.is_lost:
                instance.add_run_tags(run.run_id, {LOCK_LOST_TAG: "true"})
                raise LockLost(self.dag.name)
            if clock.is_over and is_failed and self.dag.timeout_s is not None:
                instance.add_run_tags(run.run_id, {TIMED_OUT_TAG: f"{self.dag.timeout_s:g}"})
                raise RunTimedOut(self.dag.name, self.dag.timeout_s)

    def _say_who_runs_it(self, stack: ExitStack, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        """Let others see whether the process of the run still lives."""
        now = f"{time.time():.0f}"
        tags = {PROCESS_TAG: owner_tag(), PROCESS_OF_TAG: run.run_id, HEARTBEAT_TAG: now}
        instance.add_run_tags(run.run_id, tags)
        if run.tags.get(OWNER_TAG) != owner_tag():  # else `start_dag` has the beat
            stack.enter_context(heartbeat(instance, run.run_id))

    def _take_turn(self, stack: ExitStack, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        record = instance.get_run_record_by_id(run.run_id)
        asked = {"asked": record.create_timestamp.timestamp()} if record else {}
        shares = shares_state(self.dag)
        turn = Turn(dag=self.dag.name, overlap=self.dag.overlap, run_id=run.run_id, shares=shares, **asked)

        def say(text: str) -> None:
            instance.report_engine_event(text, run)

        try:
            stack.enter_context(take_turn(instance, turn, say=say, pause=_pause))
        except RunSkipped as skipped:
            # A run that exists cannot be undone; cancelled is the state in which nothing was run.
            instance.report_engine_event(str(skipped), run)
            instance.report_run_canceling(run, str(skipped))
            raise DagsterExecutionInterruptedError from skipped


def _pause(seconds: float) -> None:
    """Sleep; an interrupt that Dagster would only note down ends the sleep."""
    with raise_execution_interrupts():
        threading.Event().wait(seconds)


class _Clock:
    """Interrupts the run when its time is up."""

    def __init__(self) -> None:
        self.is_over = False
        self._is_ended = False
        # Held for the look and the interrupt together, so that none comes after the run has ended.
        self._lock = threading.Lock()

    def strike(self) -> None:
        """End the run, as an interrupt from the keyboard would."""
        with self._lock:
            if not self._is_ended:
                self.is_over = True
                _thread.interrupt_main()

    def end(self) -> None:
        """Let no interrupt come any more."""
        with self._lock:
            self._is_ended = True


@contextmanager
def _clock(timeout_s: float | None) -> Iterator[_Clock]:
    clock = _Clock()
    # Python delivers interrupts to the main thread only; elsewhere `dagster/max_runtime` has to do.
    if timeout_s is None or threading.current_thread() is not threading.main_thread():
        yield clock
        return
    timer = threading.Timer(timeout_s, clock.strike)
    timer.daemon = True
    timer.start()
    try:
        yield clock
    finally:
        clock.end()
        timer.cancel()
