"""What a task does when Dagster runs it: condition, templates, the work, errors and outputs."""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from tidemill_core.config import Place
from tidemill_core.dag.callables import INJECTED, SHARED_RESOURCES, find_callable, import_callable
from tidemill_core.dag.errors import BadOutputs, CommandFailed, TaskTemporarilyFailed
from tidemill_core.dag.expand import Step, outputs_read
from tidemill_core.dag.load import find_child
from tidemill_core.dag.process import Command, call_in_process, run_command
from tidemill_core.dag.shell import param_environment, render_shell
from tidemill_core.dag.spec import RetrySpec
from tidemill_core.dag.template import TemplateError, condition_references, holds, render
from tidemill_core.dag.values import as_text, decode
from tidemill_core.defs.dag import child_run, outputs
from tidemill_core.defs.dag.hooks import note_skipped
from tidemill_core.defs.dag.states import read_states
from tidemill_core.defs.facts import note_failure
from tidemill_core.errors import PermanentError, TransientError

DEFAULT_RETRIES = RetrySpec(count=3, delay_s=5.0, on=("transient",))
Context = dg.AssetExecutionContext | dg.OpExecutionContext
_EVENTS = (
    dg.MaterializeResult,
    dg.ObserveResult,
    dg.Output,
    dg.DynamicOutput,
    dg.AssetMaterialization,
    dg.AssetObservation,
    dg.AssetCheckResult,
    dg.AssetCheckEvaluation,
    dg.ExpectationResult,
)
"""What Dagster takes from a generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """A step with all that its run needs to know."""

    dag: str
    folder: Path
    file: Path | None
    """The DAG's file; None for one made in Python."""
    step: Step
    params_key: str | None
    """Resource that holds the parameters; None in a DAG without."""
    asset_key: dg.AssetKey | None
    place: Place
    """Where its command stands, else the task."""
    sources: Mapping[str, Sequence[outputs.Source]]
    """Where outputs are written down, by task."""

    @property
    def resources(self) -> frozenset[str]:
        """Keys of the resources the step takes."""
        return frozenset(call_resources(self)) | ({self.params_key} if self.params_key else frozenset())


def call_resources(plan: TaskPlan) -> list[str]:
    """List the resource keys a callable takes: those declared, and parameters named like a shared one."""
    task = plan.step.task
    keys = list(task.resources or ()) if task.call else []
    if task.call and task.executor is None:
        parameters = find_callable(task.call, folder=plan.folder)
        taken = parameters.annotations if parameters else {}
        keys += [key for key in SHARED_RESOURCES if key in taken and key not in task.arguments]
    return list(dict.fromkeys(keys))


def execute(plan: TaskPlan, context: Context) -> Iterator[Any]:
    """Run a step; yields what Dagster records, or nothing when its condition says no."""
    task = plan.step.task
    scopes = scopes_of(plan, context)
    if task.when and not holds(task.when, scopes):
        context.log.info("task %s is skipped: %s is false", plan.step.name, task.when)
        if task.hooks.on_success:
            note_skipped(context.run.run_id, context.get_step_execution_context().step.key)
        return
    try:
        result = _work(plan, context, scopes)
        yield from _results(plan, result, scopes["params"])
    except dg.Failure:
        raise
    except dg.RetryRequested:
        raise
    except Exception as error:  # the task's own code may raise anything; it becomes retry or failure
        note_failure(context, error)
        raise translated(plan.step, error) from error


def translated(step: Step, error: Exception) -> Exception:
    """Choose what Dagster is told: retry (perhaps later), or fail for good."""
    rule = step.retry
    if isinstance(error, TransientError) and not isinstance(error, TaskTemporarilyFailed):
        error = TaskTemporarilyFailed(step.name, f"{type(error).__name__}: {error}", error.retry_after_s)
    if rule is None and not isinstance(error, PermanentError | TransientError):
        return error  # nothing will try again, so the error itself tells most
    if isinstance(error, PermanentError) or not is_retried(rule or DEFAULT_RETRIES, error):
        return dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False)
    if rule is None:
        delay_s = error.retry_after_s if isinstance(error, TransientError) else None
        return dg.RetryRequested(max_retries=DEFAULT_RETRIES.count, seconds_to_wait=delay_s or DEFAULT_RETRIES.delay_s)
    if isinstance(error, TransientError) and error.retry_after_s:
        return dg.RetryRequested(max_retries=rule.count, seconds_to_wait=max(error.retry_after_s, rule.delay_s))
    return error


def is_retried(rule: RetrySpec, error: Exception) -> bool:
    """Tell whether `rule` names this error."""
    names = {name for cls in type(error).__mro__ for name in (cls.__name__, f"{cls.__module__}:{cls.__qualname__}")}
    for wanted in rule.on:
        if wanted == "any" or wanted in names:
            return True
        if wanted == "transient" and isinstance(error, TransientError):
            return True
        if wanted == "timeout" and isinstance(error, TimeoutError):
            return True
        if isinstance(wanted, int) and isinstance(error, CommandFailed) and error.code == wanted:
            return True
    return False


def retry_policy(rule: RetrySpec | None) -> dg.RetryPolicy | None:
    """Make Dagster's policy of a retry rule."""
    if rule is None or rule.count == 0:
        return None
    if rule.delay_s == 0:
        return dg.RetryPolicy(max_retries=rule.count)
    backoff = {"constant": None, "linear": dg.Backoff.LINEAR, "exponential": dg.Backoff.EXPONENTIAL}[rule.backoff]
    jitter = {"none": None, "full": dg.Jitter.FULL, "plus_minus": dg.Jitter.PLUS_MINUS}[rule.jitter]
    return dg.RetryPolicy(max_retries=rule.count, delay=rule.delay_s, backoff=backoff, jitter=jitter)


def scopes_of(plan: TaskPlan, context: Context) -> dict[str, Any]:
    """Collect the values that the texts of a step and its condition may name."""
    task = plan.step.task
    partition = context.partition_key if context.has_partition_key else None
    params = params_of(plan, context)
    asked = {parts[1] for parts in condition_references(task.when) if parts[0] == "tasks"} if task.when else set()
    run = {"id": context.run.run_id, "dag": plan.dag, "task": task.name}
    return {
        "params": params,
        "matrix": plan.step.matrix,
        "run": run,
        "partition": {"key": partition} if partition else {},
        "outputs": _outputs(
            plan,
            context,
            outputs_read(task),
            outputs.Alike(dag=plan.dag, params=outputs.params_digest(params), partition=partition),
        ),
        "tasks": _states(plan, context, asked) if asked else {},
    }


def params_of(plan: TaskPlan, context: Context) -> Mapping[str, Any]:
    """The parameters of the run."""
    return getattr(context.resources, plan.params_key) if plan.params_key else {}


def _outputs(plan: TaskPlan, context: Context, used: Iterable[str], alike: outputs.Alike) -> dict[str, Any]:
    wanted = {name: plan.sources[name] for name in sorted(used)}
    return outputs.read(context.instance, context.run, wanted, alike) if wanted else {}


def _states(plan: TaskPlan, context: Context, asked: Iterable[str]) -> dict[str, Any]:
    prefix = f"{plan.dag}__"
    # A fan-out's source is its collecting step, ``dag__task.done``; its facts are those of all its steps.
    copies = {
        name: [source.step_key.removeprefix(prefix).partition(".")[0] for source in plan.sources[name]]
        for name in asked
    }
    return read_states(context.instance, context.run.run_id, copies)


def _work(plan: TaskPlan, context: Context, scopes: Mapping[str, Any]) -> Any:
    task = plan.step.task
    if task.dag is not None:
        return _run_dag(plan, context, scopes)
    return _run(plan, context, scopes) if task.run is not None else _call(plan, context, scopes)


def _run_dag(plan: TaskPlan, context: Context, scopes: Mapping[str, Any]) -> dict[str, Any]:
    """Run another DAG in a process of its own and wait for it; a stop and the time limit go to it."""
    task = plan.step.task
    assert task.dag is not None
    assert plan.file is not None
    child = find_child(task.dag, plan.file)
    env = child_run.request(
        context.instance,
        dag=child,
        params=render(task.params, scopes),
        partition=scopes["partition"].get("key"),
        started_by=f"{context.run.run_id}/{plan.step.name}",
        outputs=list(task.outputs),
    )
    returned = run_command(
        Command(
            task=plan.step.name,
            run=(sys.executable, "-m", child_run.__name__),
            env=env,
            cwd=plan.folder,
            timeout_s=task.timeout_s,
            grace_s=child_run.GRACE_S,
        )
    )
    return {name: decode(value) for name, value in returned.items()}


def _run(plan: TaskPlan, context: Context, scopes: Mapping[str, Any]) -> dict[str, Any]:
    task = plan.step.task
    own = {"TIDEMILL_DAG": plan.dag, "TIDEMILL_TASK": plan.step.name, "TIDEMILL_RUN_ID": context.run.run_id}
    partition = {"TIDEMILL_PARTITION": scopes["partition"]["key"]} if scopes["partition"] else {}
    env = {name: as_text(value, where=f"env.{name}") for name, value in render(task.env, scopes).items()}
    command = Command(
        task=plan.step.name,
        run=_command_line(plan, scopes),
        env={**own, **partition, **param_environment(scopes["params"]), **env},
        cwd=plan.folder / str(render(task.cwd or ".", scopes)),
        timeout_s=task.timeout_s,
    )
    if not task.pipes:
        return run_command(command)
    with dg.open_pipes_session(
        context=context,
        context_injector=dg.PipesTempFileContextInjector(),
        message_reader=dg.PipesTempFileMessageReader(),
    ) as session:
        printed = run_command(
            Command(
                task=command.task,
                run=command.run,
                env={**command.env, **session.get_bootstrap_env_vars()},
                cwd=command.cwd,
                timeout_s=command.timeout_s,
            )
        )
    reported = [each.metadata or {} for each in session.get_results() if isinstance(each, dg.MaterializeResult)]
    return {**printed, **{name: getattr(value, "value", value) for each in reported for name, value in each.items()}}


def _command_line(plan: TaskPlan, scopes: Mapping[str, Any]) -> str | tuple[str, ...]:
    """The command with its values filled in: a shell line, or arguments.

    Raises:
        TemplateError: A value that needs quoting stands inside quotes of the line; says where.
    """
    run = plan.step.task.run
    assert run is not None
    try:
        if isinstance(run, str):
            return render_shell(run, scopes)
        return tuple(as_text(each, where="run") for each in render(run, scopes))
    except TemplateError as error:
        raise TemplateError(f"{plan.place}: task {plan.step.name!r}: {error}") from error


def _call(plan: TaskPlan, context: Context, scopes: Mapping[str, Any]) -> Any:
    task = plan.step.task
    assert task.call is not None
    arguments = render(task.arguments, scopes)
    if task.executor == "multiprocess":
        return call_in_process(plan.step.name, task.call, arguments, folder=plan.folder, timeout_s=task.timeout_s)
    function = import_callable(task.call, plan.folder)
    for key in call_resources(plan):
        arguments[key] = getattr(context.resources, key)
    injected = {"context": context, "params": scopes["params"], "outputs": scopes["outputs"]}
    try:
        taken: Mapping[str, Any] = inspect.signature(function).parameters
    except ValueError:  # some built-in functions do not tell
        taken = {}
    arguments.update({name: injected[name] for name in INJECTED if name in taken and name not in arguments})
    return function(**arguments)


def _results(plan: TaskPlan, result: Any, params: Mapping[str, Any]) -> Iterator[Any]:
    """Turn what the work returned into what Dagster records."""
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if inspect.isasyncgen(result):
        result = asyncio.run(_collected(result))
    if inspect.isgenerator(result) or isinstance(result, _Collected):
        events = list(result)
        _check_events(plan, events)
        results = [each for each in events if isinstance(each, dg.MaterializeResult)]
        yield from (each for each in events if not isinstance(each, dg.MaterializeResult))
        result = results[-1] if results else None
    metadata: dict[str, Any] = {}
    checks: Sequence[dg.AssetCheckResult] = ()
    if isinstance(result, dg.MaterializeResult):
        metadata, checks = dict(result.metadata or {}), result.check_results or ()
        values = {name: getattr(value, "value", value) for name, value in metadata.items()}
    elif isinstance(result, dg.Output):
        metadata = dict(result.metadata)
        values = dict(result.value) if isinstance(result.value, Mapping) else _single(plan, result.value)
    elif isinstance(result, Mapping):
        values = dict(result)
        metadata = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
    else:
        values = _single(plan, result)
    metadata.update(outputs.metadata_of(_declared(plan, values), task=plan.step.name, params=params))
    if plan.asset_key is None:
        yield dg.Output(None, output_name="done", metadata=metadata)
    else:
        yield dg.MaterializeResult(asset_key=plan.asset_key, metadata=metadata, check_results=checks)


class _Collected(list[Any]):
    """What an asynchronous generator yielded."""


async def _collected(events: AsyncIterator[Any]) -> _Collected:
    return _Collected([event async for event in events])


def _check_events(plan: TaskPlan, events: Sequence[Any]) -> None:
    for event in events:
        if not isinstance(event, _EVENTS):
            raise BadOutputs(
                f"task {plan.step.name!r} yielded a {type(event).__name__}; a generator yields Dagster's events "
                "(MaterializeResult, Output, AssetMaterialization, AssetObservation, AssetCheckResult), "
                "a function returns its values"
            )


def _single(plan: TaskPlan, value: Any) -> dict[str, Any]:
    names = plan.step.task.outputs
    return {names[0]: value} if len(names) == 1 and value is not None else {}


def _declared(plan: TaskPlan, values: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in plan.step.task.outputs if name not in values]
    if missing:
        raise BadOutputs(f"task {plan.step.name!r} declares {', '.join(missing)} but did not return it")
    return {name: values[name] for name in plan.step.task.outputs}
