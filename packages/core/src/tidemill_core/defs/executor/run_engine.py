"""Dagster's own way to execute a run, called in this process; semi-internal imports stay here."""

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from tidemill_core.dag.report import State
from tidemill_core.defs._dagster import (
    CapturedLogContext,
    DagsterEvent,
    ErrorSource,
    InMemoryJob,
    LocalComputeLogManager,
    context_creation_job,
    create_execution_plan,
    execute_run_iterator,
    redirect_stream,
    redirect_to_file,
)
from tidemill_core.defs.executor.resume import steps_to_resume

STOPPED: set[str] = set()
"""Runs of this process that were interrupted because their time is up or their lock is lost; they fail, they are
not cancelled."""
LOADER = ("tidemill_core.defs.dag.runs", "load_job")
"""Module and function that build the job of a DAG file again."""
_STATES: Mapping[str, State] = {
    "STEP_START": "running",
    "STEP_RESTARTED": "running",
    "STEP_SUCCESS": "done",
    "STEP_FAILURE": "failed",
    "STEP_SKIPPED": "skipped",
    "STEP_UP_FOR_RETRY": "retrying",
}


def execute_events(
    job: dg.JobDefinition,
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    reload: tuple[Any, ...] | None,
    *,
    loader: tuple[str, str] = LOADER,
) -> Iterator[DagsterEvent]:
    """Execute a run; an interrupt marks it as cancelled, where Dagster alone would say failed.

    Args:
        job: The whole job.
        run: The run, created with its selection.
        instance: Where it is recorded.
        reload: Arguments with which worker processes build the job again.
        loader: Module and function that build it.
    """
    target: Any = InMemoryJob(job)
    needs_workers = job.executor_def.name not in ("threads", "in_process")
    if needs_workers and reload is not None:
        target = dg.build_reconstructable_job(*loader, reconstructable_args=reload)
    is_told = False
    for event in execute_run_iterator(target, run, instance):
        if not is_told and run.run_id not in STOPPED and _is_interrupted(event):
            is_told = True
            instance.report_run_canceling(run)
        yield event


def task_state(event: DagsterEvent) -> State | None:
    """Tell which state of its task an event brings; None if none."""
    state = _STATES.get(event.event_type_value)
    return "canceled" if state == "failed" and _is_interrupted(event) else state


def _is_interrupted(event: DagsterEvent) -> bool:
    if event.is_step_failure:
        return event.step_failure_data.error_source == ErrorSource.INTERRUPT
    return event.is_engine_event and "steps_interrupted" in event.engine_event_data.metadata


def retry_plan(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    parent: dg.DagsterRun,
    config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> dg.DagsterRun:
    """Create a run of only what did not succeed in `parent`, as the UI's re-execution does."""
    current = instance.get_run_by_id(parent.run_id) or parent
    target: Any = InMemoryJob(job)
    if current.asset_selection or current.resolved_op_selection:
        target = target.get_subset(
            op_selection=sorted(current.resolved_op_selection) if current.resolved_op_selection else None,
            asset_selection=current.asset_selection,
        )
    keys, known = steps_to_resume(target, instance, current, config)
    plan = create_execution_plan(target, config, step_keys_to_execute=list(keys), known_state=known, tags=dict(tags))
    return instance.create_run_for_job(
        job_def=target.get_definition(),
        execution_plan=plan,
        run_config=config,
        tags=tags,
        asset_selection=current.asset_selection,
        op_selection=current.op_selection,
        resolved_op_selection=current.resolved_op_selection,
        parent_run_id=current.run_id,
        root_run_id=current.root_run_id or current.run_id,
    )


class _FileLogs(LocalComputeLogManager):
    """Captures to files without the two helper processes that copy them to the terminal."""

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext, None, None]:
        """Send what the process prints to the files of `log_key`."""
        with ExitStack() as stack:
            for stream, kind in ((sys.stdout, "out"), (sys.stderr, "err")):
                path = Path(self.get_captured_local_path(log_key, kind))
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(redirect_to_file(stream, str(path)))
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()  # type: ignore[no-untyped-call]


@contextmanager
def quiet_logs(instance: dg.DagsterInstance) -> Iterator[None]:
    """Keep what tasks print in the compute logs, and what Dagster logs in the event log, off the terminal.

    The command prints its own lines. Another kind of log manager than files is left alone.
    """
    manager = instance.compute_log_manager
    module: Any = context_creation_job
    loggers = module.default_system_loggers
    if type(manager) is LocalComputeLogManager:
        instance._compute_log_manager = _FileLogs(manager._base_dir)  # noqa: SLF001 - there is no public way
    module.default_system_loggers = lambda _instance: []
    try:
        with redirect_stream(sys.stderr, sys.stdout):
            yield  # what is not captured must not mix with the command's result
    finally:
        instance._compute_log_manager = manager  # noqa: SLF001 - as above
        module.default_system_loggers = loggers
