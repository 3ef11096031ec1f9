"""Read the state of runs and their tasks from a Dagster instance, and notice runs whose process is gone."""

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import LockLost
from tidemill_core.dag.report import RunView, State, TaskView
from tidemill_core.defs._dagster import ErrorSource, RunStepKeyStatsSnapshot, StepFailureData
from tidemill_core.defs.facts import FAILURE

OWNER_TAG = "tidemill/owner"
HEARTBEAT_TAG = "tidemill/heartbeat"
TASK_TAG = "tidemill/task"
TIMED_OUT_TAG = "tidemill/timed_out_s"
LOCK_LOST_TAG = "tidemill/lock_lost"
PROCESS_TAG = "tidemill/process"
"""On every run of a DAG: its process, however it was started."""
PROCESS_OF_TAG = "tidemill/process_of"
"""The run that `PROCESS_TAG` was written for: Dagster copies tags to the runs that repeat one."""
CANCEL_TAG = "tidemill/cancel"
"""On a run that its process, on another machine, shall stop."""
SILENT_S = 50.0
"""Seconds without a heartbeat after which a run of another machine is lost; three beats."""
_FAILURE_EVENTS = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_RESTARTED,
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.STEP_FAILURE,
}
_TEMPORARY = frozenset({"TaskTemporarilyFailed", "RetryRequested", "TaskTimedOut", "StepTimedOut"})
"""Classes of a last error after which a step may succeed later, where no fact was recorded (steps whose thread was
left behind, IO managers). A retry rule that is used up leaves a
`RetryRequestedFromPolicy` before the error itself, which says nothing about that error."""
_OURS = "tidemill_"
"""How messages of our errors begin: with their module."""
_INTERRUPT = "DagsterExecutionInterruptedError"
_INTERRUPTED = "stopped by an interrupt"
_MODULES = re.compile(r"^(?:\w+\.)+(?=\w+: )")
_RUN_STATES: Mapping[str, State] = {
    "SUCCESS": "done",
    "FAILURE": "failed",
    "CANCELED": "canceled",
    "CANCELING": "canceling",
    "STARTED": "running",
    "STARTING": "running",
}
_STEP_STATES: Mapping[str, State] = {
    "SUCCESS": "done",
    "FAILURE": "failed",
    "SKIPPED": "skipped",
    "IN_PROGRESS": "running",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why a step failed in the end."""

    text: str
    is_temporary: bool
    is_interrupt: bool


def owner_tag() -> str:
    """Name this process so that others can tell whether it still lives: ``host:pid:start``."""
    return f"{socket.gethostname()}:{os.getpid()}:{process_started(os.getpid())}"


def owner_of(run: dg.DagsterRun) -> str:
    """Name the process of a run, as `owner_tag` does; empty if the run does not say it yet, or never will."""
    if run.tags.get(PROCESS_OF_TAG) == run.run_id:
        return run.tags.get(PROCESS_TAG, "")
    # A repeated run has the tags of the first one, whose process is gone.
    return run.tags.get(OWNER_TAG, "") if run.parent_run_id is None else ""


def is_lost(run: dg.DagsterRun) -> bool:
    """Tell whether a run that claims to go on has lost its process.

    On this host the process is looked for; of other hosts the heartbeat must be fresh.
    Runs of jobs that are no DAGs do not name their process, and are never called lost.
    """
    owner = owner_of(run)
    if run.is_finished or not owner:
        return False
    host, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    if host == socket.gethostname():
        return process_started(int(pid)) != started
    return time.time() - float(run.tags.get(HEARTBEAT_TAG, "0")) > SILENT_S


def process_started(pid: int) -> str:
    """When a process started (in kernel ticks); empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return _started_elsewhere(pid)
    return "" if fields[0] == "Z" else fields[19]


def _started_elsewhere(pid: int) -> str:
    """The same on a system without /proc: whether the process is there at all."""
    if Path("/proc").is_dir():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def recent_runs(instance: dg.DagsterInstance, *, dag: str | None = None, limit: int = 20) -> list[RunView]:
    """List the newest runs, of one DAG or of all jobs, without their tasks."""
    records = instance.get_run_records(dg.RunsFilter(job_name=dag) if dag else None, limit=limit)
    return [
        RunView(
            id=record.dagster_run.run_id,
            dag=record.dagster_run.job_name,
            state=_run_state(record.dagster_run),
            started=record.start_time,
            seconds=_seconds(record.start_time, record.end_time, is_over=record.dagster_run.is_finished),
            tasks=(),
        )
        for record in records
        if not record.dagster_run.job_name.startswith("__")
    ]


def view(instance: dg.DagsterInstance, run_id: str) -> RunView:
    """Read one run with the state of each of its tasks."""
    record = instance.get_run_record_by_id(run_id)
    assert record is not None
    run = record.dagster_run
    state = _run_state(run)
    stats = {each.step_key: each for each in instance.get_run_step_stats(run_id)}
    names = _with_copies(task_names(instance, run), stats)
    failures = _failures(instance, run_id) if any(_status(each) == "FAILURE" for each in stats.values()) else {}
    silent = _without_output(instance, run_id, stats) if state == "done" or failures else set()
    is_over = state in ("done", "failed", "canceled", "lost")
    begun = {key: each.start_time for key, each in stats.items() if each.start_time is not None}
    tasks = [
        _task(name, stats.get(key), is_over=is_over, is_silent=key in silent, failure=failures.get(key))
        for key, name in sorted(names.items(), key=lambda item: begun.get(item[0], time.time()))
    ]
    return RunView(
        id=run_id,
        dag=run.job_name,
        state=state,
        started=record.start_time,
        seconds=_seconds(record.start_time, record.end_time, is_over=run.is_finished),
        tasks=tasks,
        error=_stopped(run),
        is_temporary=LOCK_LOST_TAG in run.tags
        or (bool(failures) and all(each.is_temporary for each in failures.values())),
    )


def _stopped(run: dg.DagsterRun) -> str:
    if LOCK_LOST_TAG in run.tags:
        return str(LockLost(run.job_name))
    limit = run.tags.get(TIMED_OUT_TAG)
    return f"the run took longer than its {limit} s and was stopped" if limit else ""


def _run_state(run: dg.DagsterRun) -> State:
    return "lost" if is_lost(run) else _RUN_STATES.get(run.status.value, "queued")


def _seconds(start: float | None, end: float | None, *, is_over: bool) -> float | None:
    if start is None:
        return None
    return (end if end is not None else time.time()) - start if end is not None or not is_over else None


def task_names(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    """List names to show, by step key, in the order of the plan."""
    snapshot_id = run.execution_plan_snapshot_id
    plan = instance.get_execution_plan_snapshot(snapshot_id) if snapshot_id else None
    if plan is None:
        return {}
    wanted = set(plan.step_keys_to_execute)
    names: dict[str, str] = {}
    for step in plan.steps:
        if step.key in wanted:
            tag: str = (step.tags or {}).get(TASK_TAG, step.key)
            names[step.key] = _shown(run.job_name, step.key, tag)
    return names


def _shown(job: str, key: str, tag: str) -> str:
    """Name a step for people: its task; of a fan-out over outputs ``task (list)``, ``task[copy]`` and ``task``."""
    own = f"{job}__{tag}"
    if key in (own, tag, f"{own}.done"):
        return tag
    if key == f"{own}.copies":
        return f"{tag} (list)"
    return tag + key.removeprefix(f"{own}.copy") if key.startswith(f"{own}.copy[") else f"{tag} ({key})"


def name_of(names: Mapping[str, str], key: str) -> str | None:
    """Look up the name of a step; a copy made at run time has that of its plan, ``task[?]``, with its own key."""
    if key in names or "[" not in key:
        return names.get(key)
    plain, _, copy = key.partition("[")
    name = names.get(f"{plain}[?]")
    return name.replace("[?]", f"[{copy}") if name else None


def _with_copies(names: Mapping[str, str], stats: Iterable[str]) -> dict[str, str]:
    """Put the copies that were made in the place of ``task[?]``."""
    found = {key: name for key, name in names.items() if "[?]" not in key}
    for key in stats:
        name = name_of(names, key)
        if name is not None:
            found[key] = name
    return found


def _status(stats: RunStepKeyStatsSnapshot) -> str:
    return stats.status.value if stats.status else ""


def _task(
    name: str, stats: RunStepKeyStatsSnapshot | None, *, is_over: bool, is_silent: bool, failure: _Failure | None
) -> TaskView:
    if stats is None or stats.status is None:
        return TaskView(name=name, state="not run" if is_over else "waiting", tries=0, seconds=None)
    state = _STEP_STATES.get(_status(stats), "running")
    if state == "running" and is_over:
        state = "lost"
    if state == "running" and (stats.attempts or 1) > 1 and stats.partial_attempt_start is None:
        state = "retrying"
    if state == "done" and is_silent:
        state = "skipped"
    if state == "failed" and failure is not None and failure.is_interrupt:
        state = "canceled"
    seconds = None
    if stats.start_time is not None and not (state == "lost" and stats.end_time is None):
        seconds = (stats.end_time or time.time()) - stats.start_time
    return TaskView(
        name=name,
        state=state,
        tries=stats.attempts or (1 if stats.start_time else 0),
        seconds=seconds,
        error=failure.text if failure else "",
    )


def _without_output(
    instance: dg.DagsterInstance, run_id: str, stats: Mapping[str, RunStepKeyStatsSnapshot]
) -> set[str]:
    """Steps that succeeded without any output: their condition was false."""
    kinds = {dg.DagsterEventType.STEP_OUTPUT}
    spoke = {entry.step_key for entry in instance.all_logs(run_id, of_type=kinds)}
    return {key for key in stats if key not in spoke}


def _failures(instance: dg.DagsterInstance, run_id: str) -> dict[str, _Failure]:
    """The last error of each failed step, and what kind of failure it was."""
    found: dict[str, _Failure] = {}
    kinds: dict[str, str] = {}
    for entry in instance.all_logs(run_id, of_type=_FAILURE_EVENTS):
        event = entry.get_dagster_event()
        key = event.step_key or ""
        if event.is_step_failure:
            found[key] = _failure(event.step_failure_data, kinds.get(key))
        elif event.is_engine_event:
            kind = event.engine_event_data.metadata.get(FAILURE)
            if kind is not None:
                kinds[key] = str(kind.value)
        else:
            kinds.pop(key, None)  # another try begins; what ended the last one says nothing about it
    return found


def _failure(data: StepFailureData, kind: str | None) -> _Failure:
    """Describe a failure; without a recorded fact, by the classes of its errors."""
    errors: list[Any] = [data.error] if data.error is not None else []
    while errors and errors[-1].cause is not None:
        errors.append(errors[-1].cause)
    classes = {error.cls_name for error in errors}
    described = data.user_failure_data.description if data.user_failure_data else None
    # Ours says what to do; the driver's, which caused it, does not.
    telling = next((error for error in errors if error.message.startswith(_OURS)), errors[-1] if errors else None)
    text = described or (telling.message.strip() if telling else "failed")
    is_interrupt = data.error_source is ErrorSource.INTERRUPT or _INTERRUPT in classes
    return _Failure(
        text=_INTERRUPTED if is_interrupt else _MODULES.sub("", text),
        is_temporary=kind in ("transient", "timeout") if kind else bool(classes & _TEMPORARY),
        is_interrupt=is_interrupt,
    )
