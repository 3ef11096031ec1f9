"""Start DAGs on a Dagster instance from this process, and read what became of runs."""

import contextlib
import importlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import uuid4

import dagster as dg

from tidemill_core.dag.expand import op_name
from tidemill_core.dag.load import LoadedDag
from tidemill_core.dag.report import RunView, State
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.jobs import CompiledDag, compile_dag, params_key
from tidemill_core.defs.dag.liveness import fail_lost_runs, heartbeat
from tidemill_core.defs.dag.overlap import OVERLAP_TAG, Turn, shares_state, take_turn
from tidemill_core.defs.dag.request import (
    RunRequest,
    check_partition,
    check_words,
    choose_outputs,
    find_run,
    selected_steps,
    typed_params,
)
from tidemill_core.defs.dag.status import HEARTBEAT_TAG, OWNER_TAG, is_lost, name_of, owner_tag, task_names, view
from tidemill_core.defs.executor.kept_connections import kept_connections
from tidemill_core.defs.executor.run_engine import LOADER, execute_events, quiet_logs, retry_plan, task_state
from tidemill_core.errors import ConfigError, PermanentError
from tidemill_core.settings import Settings

BACKFILL_TAG = "dagster/backfill"
PARTITION_TAGS = (outputs.PARTITION_TAG, "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class Watcher(Protocol):
    """Follows a run as it goes."""

    def begin(self, run_id: str, dag: str, tasks: Sequence[str]) -> None:
        """Hear that the run begins, and which tasks it has."""

    def task(self, name: str, state: State) -> None:
        """Hear that a task is in a new state."""


@contextlib.contextmanager
def open_instance(*, ephemeral: bool = False) -> Iterator[dg.DagsterInstance]:
    """Open the instance of ``$DAGSTER_HOME``, else the one in the Tidemill home; its lost runs are marked as failed.

    Args:
        ephemeral: Keep everything in memory; nothing of the run remains.
    """
    if ephemeral:
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
        return
    if not os.environ.get("DAGSTER_HOME"):
        from tidemill_core.defs.home import prepare_home

        os.environ["DAGSTER_HOME"] = str(prepare_home(Settings.from_env()))
    with dg.DagsterInstance.get() as instance, kept_connections(instance):
        fail_lost_runs(instance)
        yield instance


def start_dag(
    dag: LoadedDag,
    request: RunRequest,
    instance: dg.DagsterInstance,
    *,
    watcher: Watcher | None = None,
) -> RunView:
    """Run a DAG in this process and return how it ended.

    Args:
        dag: The checked DAG.
        request: What to run of it.
        instance: Where the run is recorded.
        watcher: Told when the run begins, and when a task starts or ends.

    Raises:
        ConfigError: Parameters, tasks or the run to retry are wrong.
        AnotherRunGoesOn: The DAG's `overlap` is `refuse`, and another run has not ended.
        RunSkipped: Its `overlap` is `skip`, and another run has not ended.
        LockLost: The lock that keeps other runs away was lost.
    """
    compiled = compile_dag(dag, executor=request.executor or Settings.from_env().executor, params=request.params)
    job = _job(dag, compiled, request.module)
    selected = selected_steps(dag, request)
    check_words(dag, request)
    check_partition(dag, request)
    turn = Turn(dag=dag.spec.name, overlap=dag.spec.overlap, shares=shares_state(dag.spec))
    with take_turn(instance, turn, say=say):
        run = _create_run(dag, compiled, job, request, selected, instance)
        return _execute(dag, job, run, request, instance, watcher)


def start_range(
    dag: LoadedDag,
    request: RunRequest,
    partitions: Sequence[str],
    instance: dg.DagsterInstance,
    *,
    watcher: Watcher | None = None,
) -> Iterator[RunView]:
    """Run a DAG for several partitions, one after the other in their order; ends after the first that fails.

    The runs share the tag `dagster/backfill`, by which the UI shows them together.

    Yields:
        How each run ended.
    """
    backfill = {BACKFILL_TAG: uuid4().hex[:8]}
    for partition in partitions:
        one = replace(request, partition=partition, tags={**request.tags, **backfill})
        ended = start_dag(dag, one, instance, watcher=watcher)
        yield ended
        if ended.state != "done":
            return


def say(text: str) -> None:
    """Tell the user on stderr what a run waits for, or what it takes from elsewhere."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _execute(
    dag: LoadedDag,
    job: dg.JobDefinition,
    run: dg.DagsterRun,
    request: RunRequest,
    instance: dg.DagsterInstance,
    watcher: Watcher | None,
) -> RunView:
    """Run what was created; then the hooks of the DAG."""
    ended = follow(job, run, instance, watcher, reload=_reload_arguments(dag, request))
    _run_hooks(dag, ended, instance)
    return ended


def follow(
    job: dg.JobDefinition,
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    watcher: Watcher | None = None,
    *,
    reload: tuple[Any, ...] | None = None,
    loader: tuple[str, str] = LOADER,
) -> RunView:
    """Run what was created in this process, with a heartbeat, and tell how it goes and how it ended.

    Args:
        job: The whole job.
        run: The run, created with its selection.
        instance: Where it is recorded.
        watcher: Told when the run begins, and when a task starts or ends.
        reload: Arguments with which worker processes build the job again; None if they cannot.
        loader: Module and function that build it.
    """
    with heartbeat(instance, run.run_id), quiet_logs(instance):
        names = task_names(instance, run)
        if watcher is not None:
            watcher.begin(run.run_id, run.job_name, [name for name in names.values() if "[?]" not in name])
        for event in execute_events(job, run, instance, reload, loader=loader):
            state = task_state(event)
            name = name_of(names, event.step_key or "")
            if watcher is not None and state and name is not None:
                watcher.task(name, state)
    return view(instance, run.run_id)


def _job(dag: LoadedDag, compiled: CompiledDag, module: str | None) -> dg.JobDefinition:
    definitions = compiled.definitions
    if module or compiled.resources or any(task.use for task in dag.spec.tasks):
        own = definitions.resources or {}
        missing = {key: value for key, value in _resources(module).items() if key not in own}
        definitions = dg.Definitions.merge(definitions, dg.Definitions(resources=missing))
    return definitions.resolve_job_def(dag.spec.name)


def _resources(module: str | None) -> Mapping[str, Any]:
    """The resources of a code location, or the shared ones."""
    if module is None:
        from tidemill_core.defs.resources import default_resources

        return default_resources()
    found = getattr(importlib.import_module(module), "defs", None)
    if not isinstance(found, dg.Definitions):
        raise ConfigError(f"module {module!r} has no Dagster Definitions called `defs`")
    return found.resources or {}


def load_job(
    path: str, name: str, executor: str | None, params: Mapping[str, Any], module: str | None
) -> dg.JobDefinition:
    """Build one job of a file again; worker processes of `multiprocess` call it."""
    from tidemill_core.dag.load import load_dags

    dag = next(each for each in load_dags(path) if each.spec.name == name)
    return _job(dag, compile_dag(dag, executor=executor or Settings.from_env().executor, params=params), module)


def _reload_arguments(dag: LoadedDag, request: RunRequest) -> tuple[Any, ...] | None:
    """How worker processes find the job again; None for a DAG that is in no file."""
    if dag.file is None:
        return None
    return (str(dag.file.absolute()), dag.spec.name, request.executor, dict(request.params), request.module)


def own_tags(job: dg.JobDefinition) -> dict[str, str]:
    """Tags of a run that this process starts: those of its job, and who runs it."""
    # The lock keeps our own runs apart. Without the queue's tag, one that was killed does not hold up the queue.
    kept = {key: value for key, value in job.run_tags.items() if key != OVERLAP_TAG}
    return {**kept, OWNER_TAG: owner_tag(), HEARTBEAT_TAG: f"{time.time():.0f}"}


def _create_run(
    dag: LoadedDag,
    compiled: CompiledDag,
    job: dg.JobDefinition,
    request: RunRequest,
    selected: set[str] | None,
    instance: dg.DagsterInstance,
) -> dg.DagsterRun:
    name = dag.spec.name
    tags = {**own_tags(job), **request.tags}
    if request.partition:
        tags[outputs.PARTITION_TAG] = request.partition
    parent = find_run(instance, request.retry_run) if request.retry_run else None
    other = choose_outputs(dag, request, selected, instance)
    if other is not None:
        say(f"outputs of earlier tasks: those of run {other.run_id}")
        tags[outputs.FROM_TAG] = other.run_id
    config: Mapping[str, Any] = parent.run_config if parent else {}
    if request.params:
        config = {"resources": {params_key(name): {"config": typed_params(dag, request.params)}}}
    if parent is not None:
        _check_parent(name, parent, instance)
        tags = {**{key: value for key, value in parent.tags.items() if key in PARTITION_TAGS}, **tags}
        return retry_plan(job, instance, parent, config, tags)
    keys = {key for step in selected for key in compiled.keys[step]} if selected and compiled.keys else None
    ops = [op_name(name, step) for step in selected] if selected and not compiled.keys else None
    subset = job.get_subset(op_selection=ops, asset_selection=keys) if keys or ops else job
    return instance.create_run_for_job(
        job_def=subset,
        run_config=config,
        tags=tags,
        asset_selection=keys,
        op_selection=ops,
        resolved_op_selection=set(ops) if ops else None,
    )


def _check_parent(name: str, parent: dg.DagsterRun, instance: dg.DagsterInstance) -> None:
    if parent.job_name != name:
        raise ConfigError(f"run {parent.run_id} is one of {parent.job_name!r}, not of {name!r}")
    if is_lost(parent):
        instance.report_run_failed(parent, "The process that ran it is gone; marked as failed to be retried.")
    elif parent.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        raise PermanentError(f"run {parent.run_id} is {parent.status.value.lower()}; only a failed one can be retried")


def _run_hooks(dag: LoadedDag, run: RunView, instance: dg.DagsterInstance) -> None:
    hooks = dag.spec.hooks.on_success if run.state == "done" else dag.spec.hooks.on_failure
    if not hooks or run.state not in ("done", "failed"):
        return
    from tidemill_core.defs.dag.hooks import DONE_TAG, run_hooks

    instance.add_run_tags(run.id, {DONE_TAG: socket.gethostname()})
    status = "success" if run.state == "done" else "failure"
    run_hooks(hooks, {"dag": run.dag, "id": run.id, "status": status, "task": ""}, logging.getLogger("tidemill.dag"))


def log_lines(instance: dg.DagsterInstance, run_id: str, task: str | None = None) -> Iterator[str]:
    """Yield what the tasks of a run, or one task, printed and logged.

    On threads a task's output stands in a log of its own and in that of the whole process: it is
    read from one of them.
    """
    run = instance.get_run_by_id(run_id)
    names = task_names(instance, run) if run else {}
    captured: list[Any] = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        name = name_of(names, entry.step_key or "")
        if event is None and name is not None and task in (None, name):
            yield f"[{name}] {logging.getLevelName(entry.level).lower()}: {entry.user_message}"
        elif event is not None and event.event_type == dg.DagsterEventType.LOGS_CAPTURED:
            captured.append(event.logs_captured_data)
    own = [each for each in captured if _only_task(each, names) == task]
    shared = [each for each in captured if _only_task(each, names) is None]
    prefix = "" if task is None or own else f"[{task}]"
    chosen = (own if task is not None else shared) or shared or captured
    for each in chosen:
        data = instance.compute_log_manager.get_log_data([run_id, "compute_logs", each.file_key])
        for line in _text(data.stdout).splitlines() + _text(data.stderr).splitlines():
            if line.startswith(prefix):
                yield line


def _only_task(captured: Any, names: Mapping[str, str]) -> str | None:
    """The task whose output alone a log holds; None for the log of several."""
    keys = captured.step_keys or []
    return name_of(names, keys[0]) if len(keys) == 1 else None


def _text(data: bytes | None) -> str:
    return data.decode("utf-8", "replace") if data else ""
