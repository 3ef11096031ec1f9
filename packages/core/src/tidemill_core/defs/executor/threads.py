"""`threads`: a Dagster executor that runs steps on threads of the run's own process.

A step costs no process start, so many small or waiting steps run close to their ideal time.
`Scheduler` decides what is ready, `ThreadLoop` starts it and listens, `steps` runs and stops it.
What a step does when it must stop:

* it is asked: its `stop_token` is set. A step that has looked for the token gets a few seconds;
* then an exception is raised inside its thread at its next Python instruction, never while an
  event is being written or something shared is taken or given back (`uninterrupted`);
* a thread that waits in C code (a socket, `time.sleep`) does not notice; after a grace period its
  step is marked failed, whatever the thread still writes to the log is dropped, and the thread is
  left behind as a daemon. It cannot be killed.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from tidemill_core.defs._dagster import (
    DagsterEvent,
    ExecutionPlan,
    PlanExecutionContext,
    RetryMode,
    StepDependencyConfig,
    console_loggers,
    get_retries_config,
    get_step_dependency_config_field,
    get_tag_concurrency_limits_config,
)
from tidemill_core.defs.executor.capture import routed_output
from tidemill_core.defs.executor.in_process import in_process_executor
from tidemill_core.defs.executor.loop import ThreadLoop
from tidemill_core.defs.executor.plan import PlanExecutor
from tidemill_core.defs.executor.pools import PoolClaims
from tidemill_core.defs.executor.scheduler import Scheduler
from tidemill_core.errors import ConfigError
from tidemill_core.extras import MissingExtra
from tidemill_core.settings import Settings


def default_max_concurrent() -> int:
    """Threads of a run that names no number: steps mostly wait, so more than there are cores."""
    return max(8, 2 * (os.cpu_count() or 1))


@dg.executor(
    name="threads",
    config_schema={
        "max_concurrent": dg.Field(dg.Noneable(int), default_value=None, description="Steps that run at once."),
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "step_dependency_config": get_step_dependency_config_field(),  # type: ignore[no-untyped-call]
        "stop_grace_s": dg.Field(
            float, default_value=30.0, description="Seconds a step may take to stop before its thread is left behind."
        ),
    },
)
def threads_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Run steps on threads of the run's process.

    Resources are made once and shared by all steps, as with `in_process`. Use it as
    ``dg.Definitions(executor=threads_executor)``, on a job, or configured:
    ``threads_executor.configured({"max_concurrent": 20})``.
    """
    config: Mapping[str, Any] = context.executor_config
    retries = RetryMode.from_config(config["retries"])
    assert retries is not None
    return ThreadsExecutor(
        retries=retries,
        max_concurrent=config.get("max_concurrent") or default_max_concurrent(),
        tag_concurrency_limits=config.get("tag_concurrency_limits"),
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
        stop_grace_s=config["stop_grace_s"],
    )


def executor_by_name(
    name: str, max_concurrent: int | None = None, tag_limits: Sequence[Mapping[str, Any]] = ()
) -> dg.ExecutorDefinition:
    """Choose an executor by the name that settings and DAG files use.

    Args:
        name: ``in_process``, ``threads``, ``multiprocess``, ``celery`` or ``k8s``.
        max_concurrent: Steps at once; `in_process` and `celery` have no such limit.
        tag_limits: Mappings of ``key``, perhaps ``value``, and ``limit``.

    Raises:
        ConfigError: No such executor, or its package is not installed.
    """
    config: dict[str, Any] = {"max_concurrent": max_concurrent} if max_concurrent else {}
    if tag_limits:
        config["tag_concurrency_limits"] = [dict(each) for each in tag_limits]
    if name == "in_process":
        return in_process_executor
    if name == "threads":
        return threads_executor.configured(config, name="threads") if config else threads_executor
    if name == "multiprocess":
        return dg.multiprocess_executor.configured(config, name="multiprocess") if config else dg.multiprocess_executor
    if name == "celery":
        from tidemill_core.defs.executor.celery import celery_executor_of

        return celery_executor_of(Settings.from_env())
    if name != "k8s":
        raise ConfigError(f"unknown executor {name!r}; known: in_process, threads, multiprocess, celery, k8s")
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise MissingExtra("the executor 'k8s'", "k8s") from error
    found: dg.ExecutorDefinition = k8s_job_executor
    return found.configured(config, name=found.name) if config else found


class ThreadsExecutor(PlanExecutor):
    """The executor behind `threads_executor`.

    Args:
        retries: Whether steps are tried again.
        max_concurrent: Steps at once.
        tag_concurrency_limits: Limits for steps that carry a tag.
        step_dependency_config: What a step waits for.
        stop_grace_s: Seconds a step may take to stop before its thread is left behind.
    """

    def __init__(
        self,
        *,
        retries: RetryMode,
        max_concurrent: int,
        tag_concurrency_limits: list[dict[str, Any]] | None = None,
        step_dependency_config: StepDependencyConfig | None = None,
        stop_grace_s: float = 30.0,
    ) -> None:
        super().__init__(retries=retries, step_dependency_config=step_dependency_config)
        self.max_concurrent = max_concurrent
        self.tag_concurrency_limits = tag_concurrency_limits or []
        self.stop_grace_s = stop_grace_s
        self.how = f"on up to {max_concurrent} threads"

    def _limits(self) -> Mapping[str, Any]:
        return {"max_concurrent": self.max_concurrent, "tag_concurrency_limits": self.tag_concurrency_limits}

    def _captured_steps(self, execution_plan: ExecutionPlan) -> list[str]:
        """Name none: each step has a log of its own, and the UI shows the first log that names a step."""
        del execution_plan
        return []

    def _run_steps(
        self, job_context: PlanExecutionContext, scheduler: Scheduler, pools: PoolClaims
    ) -> Iterator[DagsterEvent]:
        with routed_output(console_loggers(job_context.log)):
            yield from ThreadLoop(self, job_context, scheduler, pools).run()
