"""A task with a copy for each item of an earlier task's output: Dagster's dynamic outputs, collected.

Three ops make one graph, which is an asset (graph-backed) or a node of an op graph:

    copies     reads the lists and gives out one dynamic output for each combination
    copy[KEY]  the work, once for each; retried, limited and re-executed by itself
    done       collects what the copies returned into lists, in the order of the matrix

Nothing passes through an IO manager: the values of a copy are metadata of its dynamic output, so
the graph works in every process and store that Dagster's own events reach.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import BadOutputs
from tidemill_core.dag.expand import run_time_copies
from tidemill_core.dag.template import holds, references
from tidemill_core.dag.values import decode
from tidemill_core.defs._dagster import DynamicCollectDependencyDefinition
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.component_tasks import step_tags
from tidemill_core.defs.dag.hooks import task_hooks
from tidemill_core.defs.dag.tasks import TaskPlan, execute, params_of, retry_policy, scopes_of
from tidemill_core.defs.executor.triggers import TRIGGER_TAG

COPIES_TAG = "tidemill/copies"
"""On each copy, with its task's name: what `max_parallel` limits."""
LIST, COPY, DONE = "copies", "copy", "done"
_MATRIX = "tidemill/matrix"
_KNOWN: dict[tuple[str, str], Mapping[str, Any]] = {}
"""Matrix values by run and step: the events are read once in a process, not once for each copy."""
_KNOWN_RUNS = 16
_LOCK = threading.Lock()


def fan_out_graph(plan: TaskPlan, name: str, inputs: Sequence[str]) -> dg.GraphDefinition:
    """Compile a fan-out over outputs.

    Args:
        plan: The task.
        name: Name of the graph, which begins the keys of its steps.
        inputs: Names of its inputs, one for each thing that comes first; they carry no values.

    Returns:
        A graph with the output `done`.
    """
    hooks = task_hooks(plan.dag, plan.step.name, plan.step.task.hooks)
    failure_hooks = {hook for hook in hooks if hook.name.endswith("__on_failure")}
    nodes = {
        LIST: (_list_op(plan, f"{name}__{LIST}", inputs), failure_hooks),
        COPY: (_copy_op(plan, f"{name}__{COPY}"), failure_hooks),
        DONE: (_done_op(plan, f"{name}__{DONE}"), hooks),
    }
    invocations = {alias: dg.NodeInvocation(op.name, alias=alias, hook_defs=own) for alias, (op, own) in nodes.items()}
    edges: dict[dg.NodeInvocation, dict[str, Any]] = {
        invocations[LIST]: {},
        invocations[COPY]: {"values": dg.DependencyDefinition(LIST, COPY)},
        invocations[DONE]: {
            "copies": DynamicCollectDependencyDefinition(COPY, DONE),
            "go": dg.DependencyDefinition(LIST, "go"),
        },
    }
    return dg.GraphDefinition(
        name=name,
        description=plan.step.task.description or None,
        node_defs=[op for op, _ in nodes.values()],
        dependencies=edges,
        input_mappings=[
            dg.InputMapping(graph_input_name=each, mapped_node_name=LIST, mapped_node_input_name=each)
            for each in inputs
        ],
        output_mappings=[dg.OutputMapping(graph_output_name=DONE, mapped_node_name=DONE, mapped_node_output_name=DONE)],
    )


def tag_limits(plans: Mapping[str, TaskPlan]) -> list[dict[str, Any]]:
    """Say `max_parallel` as the executor knows it: limits of a tag's value."""
    limits = ((plan.step.name, plan.step.task.max_parallel) for plan in plans.values() if plan.step.is_fan_out)
    return [{"key": COPIES_TAG, "value": name, "limit": limit} for name, limit in limits if limit]


def _tags(plan: TaskPlan, *, is_list: bool = False, is_copy: bool = False) -> dict[str, str]:
    """The trigger rule decides about the list, a timeout and `max_parallel` about copies."""
    tags = {key: value for key, value in step_tags(plan.step).items() if key != TRIGGER_TAG or is_list}
    if not is_copy:
        tags.pop("tidemill/timeout_s", None)
    return tags | ({COPIES_TAG: plan.step.name} if is_copy else {})


def _list_op(plan: TaskPlan, name: str, inputs: Sequence[str]) -> dg.OpDefinition:
    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
        task = plan.step.task
        scopes = scopes_of(plan, context)
        if task.when and not holds(task.when, scopes):
            context.log.info("task %s is skipped: %s is false", plan.step.name, task.when)
            return
        copies = run_time_copies(task, _lists(plan, scopes))
        context.log.info("task %s has %d copies", plan.step.name, len(copies))
        for key, values in copies.items():
            metadata = {_MATRIX: dg.MetadataValue.json(dict(values))}
            yield dg.DynamicOutput(None, mapping_key=key, output_name=COPY, metadata=metadata)
        yield dg.Output(None, output_name="go")

    def checked(context: dg.OpExecutionContext, given: Any) -> Iterator[Any]:
        try:
            yield from compute(context, given)
        except BadOutputs as error:
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error

    return dg.OpDefinition(
        name=name,
        compute_fn=checked,
        ins={each: dg.In(dg.Nothing) for each in inputs},
        outs={
            COPY: dg.DynamicOut(dg.Nothing),
            "go": dg.Out(dg.Nothing, is_required=False),
        },
        required_resource_keys=set(plan.resources),
        tags=_tags(plan, is_list=True),
    )


def _lists(plan: TaskPlan, scopes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, source in plan.step.task.matrix.items():
        for _, task, output in references(source):
            found[name] = scopes["outputs"][task][output]
    return found


def _copy_op(plan: TaskPlan, name: str) -> dg.OpDefinition:
    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
        key = context.get_mapping_key()
        assert key is not None
        values = _matrix(context.instance, context.run, f"{_graph_key(context)}.{LIST}")[key]
        task = plan.step.task.model_copy(update={"when": None})
        step = replace(plan.step, name=f"{plan.step.name}[{key}]", task=task, matrix=values)
        yield from execute(replace(plan, step=step, asset_key=None), context)

    return dg.OpDefinition(
        name=name,
        compute_fn=compute,
        ins={"values": dg.In(dg.Nothing)},
        outs={DONE: dg.Out(dg.Nothing)},
        required_resource_keys=set(plan.resources),
        tags=_tags(plan, is_copy=True),
        retry_policy=retry_policy(plan.step.retry),
        pool=plan.step.task.pool,
    )


def _done_op(plan: TaskPlan, name: str) -> dg.OpDefinition:
    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Iterator[Any]:
        graph = _graph_key(context)
        keys = list(_matrix(context.instance, context.run, f"{graph}.{LIST}"))
        found = _returned(context.instance, context.run, f"{graph}.{COPY}", keys)
        missing = [key for key in keys if key not in found]
        if missing:
            raise dg.Failure(
                f"task {plan.step.name!r}: the copies {', '.join(missing)} have not run, neither in this run nor in "
                "those it retries; `tidemill dag run --retry-failed` runs them",
                allow_retries=False,
            )
        lists = {output: [found[key][output] for key in keys] for output in plan.step.task.outputs}
        carried = outputs.metadata_of(lists, task=plan.step.name, params=params_of(plan, context))
        yield dg.Output(None, output_name=DONE, metadata={"copies": len(keys), **carried})

    return dg.OpDefinition(
        name=name,
        compute_fn=compute,
        ins={"copies": dg.In(dg.Nothing), "go": dg.In(dg.Nothing)},
        outs={DONE: dg.Out(dg.Nothing, is_required=plan.step.task.when is None)},
        required_resource_keys={plan.params_key} if plan.params_key else set(),
        tags=_tags(plan),
    )


def _graph_key(context: dg.OpExecutionContext) -> str:
    return str(context.op_handle.parent)


def _matrix(instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str) -> Mapping[str, Any]:
    """Read the matrix values of every copy; a retry's are those of the run whose list it uses."""
    with _LOCK:
        known = _KNOWN.get((run.run_id, step_key))
        if known is None:
            events = next((found for found in _outputs_of(instance, run, step_key) if found), [])
            known = {event.mapping_key: event.metadata[_MATRIX].value for event in events if _MATRIX in event.metadata}
            while len(_KNOWN) >= _KNOWN_RUNS:
                _KNOWN.pop(next(iter(_KNOWN)))
            _KNOWN[run.run_id, step_key] = known
    return known


def _returned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str, keys: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Read what each copy returned; of copies that a retry did not run again, in the run before."""
    wanted = {f"{step_key}[{key}]": key for key in keys}
    found: dict[str, Mapping[str, Any]] = {}
    for data in (each for events in _outputs_of(instance, run, f"{step_key}[") for each in reversed(events)):
        key = wanted.get(data.step_output_handle.step_key)
        value = data.metadata.get(outputs.METADATA_KEY)
        if key is not None and key not in found:
            found[key] = decode(value.value) if value is not None else {}
    return found


def _outputs_of(instance: dg.DagsterInstance, run: dg.DagsterRun, prefix: str) -> Iterator[list[Any]]:
    """Yield, for the run and then those that it retries, the outputs of steps whose key begins so."""
    current: dg.DagsterRun | None = run
    while current is not None:
        entries = instance.all_logs(current.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
        events = [each.dagster_event for each in entries if each.dagster_event is not None]
        yield [each.step_output_data for each in events if (each.step_key or "").startswith(prefix)]
        current = instance.get_run_by_id(current.parent_run_id) if current.parent_run_id else None
