"""Compile DAG files to Dagster definitions: an asset per task (or a graph of ops), one job per DAG."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from tidemill_core.config import ConfigFault, ConfigFaults
from tidemill_core.dag.callables import import_callable
from tidemill_core.dag.expand import Step, asset_path, op_name, steps
from tidemill_core.dag.load import LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.params import bind
from tidemill_core.dag.spec import DagSpec, ParamSpec, StaticPartitions
from tidemill_core.dag.template import render
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.component_tasks import ComponentTask, build_component_task, step_tags
from tidemill_core.defs.dag.fan_out import DONE, fan_out_graph, tag_limits
from tidemill_core.defs.dag.guard import guarded
from tidemill_core.defs.dag.hooks import run_sensors, task_hooks
from tidemill_core.defs.dag.overlap import OVERLAP_TAG
from tidemill_core.defs.dag.schedules import schedule_definition
from tidemill_core.defs.dag.tasks import TaskPlan, execute, retry_policy
from tidemill_core.defs.executor.threads import executor_by_name
from tidemill_core.errors import ConfigError

_FIELDS = {"str": str, "date": str, "int": int, "float": float, "bool": bool, "list": list}


def definitions_from_dags(
    source: str | Path | DagSpec | LoadedDag | Sequence[DagSpec | LoadedDag],
    *,
    resources: Mapping[str, Any] | None = None,
    executor: str = "threads",
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> dg.Definitions:
    """Compile every DAG of a file, of a folder, or made in Python.

    Args:
        source: A file, a folder, or DAGs made in Python.
        resources: Resources by key, given to components and callables.
        executor: Executor of DAGs that name none.
        params: By DAG, values that replace parameters' defaults, also in components' attributes.

    Returns:
        Assets, checks, jobs (one per DAG, of its name), schedules and sensors.

    Raises:
        ConfigFaults: What is wrong with the files, with file and line.
        ConfigError: A component, callable or executor cannot be had.
    """
    if isinstance(source, str | Path):
        dags: Sequence[DagSpec | LoadedDag] = load_dags(source)
    else:
        dags = [source] if isinstance(source, DagSpec | LoadedDag) else source
    parts = [
        build_dag(
            loaded_dag(dag) if isinstance(dag, DagSpec) else dag,
            executor=executor,
            params=(params or {}).get((dag if isinstance(dag, DagSpec) else dag.spec).name, {}),
        )
        for dag in dags
    ]
    merged = dg.Definitions.merge(*parts)
    own = {key: value for key, value in (merged.resources or {}).items() if key not in (resources or {})}
    return dg.Definitions(
        assets=merged.assets,
        asset_checks=merged.asset_checks,
        jobs=merged.jobs,
        schedules=merged.schedules,
        sensors=merged.sensors,
        resources={**own, **(resources or {})},
        executor=executor_by_name(executor),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDag:
    """Definitions of one DAG, and which of them belongs to which step."""

    definitions: dg.Definitions
    keys: Mapping[str, Sequence[dg.AssetKey]]
    """Asset keys by step; empty for a DAG of ops."""
    resources: frozenset[str]
    """Resource keys that its callables ask for."""


def build_dag(
    dag: LoadedDag, *, executor: str = "threads", params: Mapping[str, Any] | None = None, context: Any = None
) -> dg.Definitions:
    """Compile one DAG to definitions; see `compile_dag`."""
    return compile_dag(dag, executor=executor, params=params, context=context).definitions


def compile_dag(
    dag: LoadedDag, *, executor: str = "threads", params: Mapping[str, Any] | None = None, context: Any = None
) -> CompiledDag:
    """Compile one DAG.

    Args:
        dag: The checked DAG.
        executor: Executor if the DAG names none.
        params: Values that replace parameters' defaults.
        context: Load context, inside a component.

    Raises:
        ConfigError: A component, callable or executor cannot be had.
    """
    spec = _with_values(dag.spec, params or {})
    limits = [each.model_dump(exclude_none=True) for each in spec.tag_limits]
    _refuse_executor(spec, spec.executor or executor)
    plans = _plans(dag, spec)
    limits += tag_limits(plans)
    chosen = guarded(executor_by_name(spec.executor or executor, spec.max_concurrent, limits), spec)
    partitions = partitions_definition(spec)
    resources = _params_resource(spec)
    keys: dict[str, Sequence[dg.AssetKey]] = {}
    if spec.kind == "op":
        job: Any = _op_job(spec, plans, chosen, partitions)
        parts = [dg.Definitions(jobs=[job])]
    else:
        parts = _assets(dag, spec, plans, partitions, context, keys)
        job = dg.define_asset_job(
            spec.name,
            selection=dg.AssetSelection.assets(*(key for each in keys.values() for key in each)),
            description=spec.description or None,
            tags=_run_tags(spec),
            executor_def=chosen,
        )
        parts.append(dg.Definitions(jobs=[job]))
    schedules = [schedule_definition(spec, spec.schedule, job, partitions)] if spec.schedule else []
    sensors = [import_callable(each, dag.folder) for each in spec.sensors]
    more = dg.Definitions(
        schedules=schedules, sensors=[*sensors, *run_sensors(spec.name, spec.hooks, job)], resources=resources
    )
    asked = frozenset(key for plan in plans.values() for key in plan.resources) - set(resources)
    return CompiledDag(definitions=dg.Definitions.merge(*parts, more), keys=keys, resources=asked)


def params_key(dag: str) -> str:
    """Resource key under which a run's parameters are configured."""
    return f"{dag}_params"


def asset_key(dag: str, step: Step) -> dg.AssetKey:
    """Key of the asset that a `run` or `call` step makes."""
    return dg.AssetKey(list(asset_path(dag, step)))


def partitions_definition(spec: DagSpec) -> dg.PartitionsDefinition[str] | None:
    """Make Dagster's partitions of a DAG's."""
    wanted = spec.partitions
    if wanted is None:
        return None
    if isinstance(wanted, StaticPartitions):
        return dg.StaticPartitionsDefinition(list(wanted.keys))
    kinds: dict[str, Any] = {
        "hourly": dg.HourlyPartitionsDefinition,
        "daily": dg.DailyPartitionsDefinition,
        "weekly": dg.WeeklyPartitionsDefinition,
        "monthly": dg.MonthlyPartitionsDefinition,
    }
    made: dg.PartitionsDefinition[str] = kinds[wanted.type](
        start_date=wanted.start, end_date=wanted.end, timezone=wanted.timezone
    )
    return made


def _run_tags(spec: DagSpec) -> dict[str, str]:
    """Tags by which Dagster's run queue and run monitoring keep to what the file says."""
    tags = dict(spec.tags)
    if spec.overlap == "wait":
        tags.setdefault(OVERLAP_TAG, spec.name)
    if spec.timeout_s is not None:
        # Dagster's daemon looks every half minute and ends what our own clock in the run has not.
        tags.setdefault("dagster/max_runtime", f"{math.ceil(spec.timeout_s)}")
    return tags


def _with_values(spec: DagSpec, given: Mapping[str, Any]) -> DagSpec:
    """Put given parameter values in the place of defaults."""
    if not given:
        return spec
    known = {name: each for name, each in spec.params.items() if name in given}
    values = bind(known, given, dag=spec.name)
    changed = {name: each.model_copy(update={"default": values[name]}) for name, each in known.items()}
    return spec.model_copy(update={"params": {**spec.params, **changed}})


def _refuse_executor(spec: DagSpec, executor: str) -> None:
    """Refuse what an executor would leave out without a word."""
    ruled = [task.name for task in spec.tasks if task.trigger != "all_success"]
    if ruled and executor not in ("threads", "in_process"):
        raise ConfigError(
            f"DAG {spec.name!r}: the trigger of {', '.join(ruled)} needs the threads executor, not {executor}; "
            "say `executor: threads` in the DAG"
        )
    limited = [task.name for task in spec.tasks if task.max_parallel]
    if limited and executor == "celery":
        raise ConfigError(
            f"DAG {spec.name!r}: the celery executor knows no max_parallel (of {', '.join(limited)}); "
            "give the task a `pool` with as many slots"
        )


def _params_resource(spec: DagSpec) -> dict[str, dg.ResourceDefinition]:
    if not spec.params:
        return {}

    def fields(param: ParamSpec) -> dg.Field:
        kind = _FIELDS[param.type]
        if param.default is None:
            return dg.Field(kind, is_required=True, description=param.description)
        return dg.Field(kind, default_value=param.default, description=param.description)

    def values(context: dg.InitResourceContext) -> dict[str, Any]:
        return bind(spec.params, context.resource_config, dag=spec.name)

    schema = {name: fields(param) for name, param in spec.params.items()}
    return {params_key(spec.name): dg.ResourceDefinition(values, config_schema=schema)}


def _assets(
    dag: LoadedDag,
    spec: DagSpec,
    plans: Mapping[str, TaskPlan],
    partitions: dg.PartitionsDefinition[str] | None,
    context: Any,
    keys: dict[str, Sequence[dg.AssetKey]],
) -> list[dg.Definitions]:
    """Make the assets of every step; notes in `keys` which are whose."""
    assets: list[Any] = []
    others: list[dg.Definitions] = []
    last: dict[str, Sequence[dg.AssetKey]] = {}
    known = {name: param.default for name, param in spec.params.items()}
    for step in steps(spec):
        needed = [key for need in step.needs for key in last[need]]
        if step.task.use:
            attributes = render(step.task.with_, {"params": known, "matrix": step.matrix}, partial=True)
            with _at_task(dag, step):
                made = build_component_task(step, attributes, needed, context, group=step.task.group)
            assets += made.assets
            others.append(_leftovers(made))
            keys[step.name], last[step.name] = made.keys, made.last_keys
        else:
            make = _fan_out_asset if step.is_fan_out else _task_asset
            assets.append(make(spec, plans[step.name], needed, partitions))
            keys[step.name] = last[step.name] = [asset_key(spec.name, step)]
    return [dg.Definitions(assets=assets), *others]


@contextmanager
def _at_task(dag: LoadedDag, step: Step) -> Iterator[None]:
    """Give what a component says about its attributes the place where they stand in the DAG file."""
    place = dag.task_places.get(step.task.name, dag.place)
    try:
        yield
    except ConfigFaults as wrong:
        key = f"task {step.name}: with"
        raise ConfigFaults(
            ConfigFault(place, f"{key}.{fault.key}" if fault.key else key, fault.message) for fault in wrong.faults
        ) from wrong
    except ConfigError as error:
        raise ConfigFaults([ConfigFault(place, "", str(error))]) from error


def _leftovers(made: ComponentTask) -> dg.Definitions:
    """What a component made besides its assets."""
    defs = made.definitions
    return dg.Definitions(
        asset_checks=defs.asset_checks, schedules=defs.schedules, sensors=defs.sensors, resources=defs.resources
    )


def output_sources(spec: DagSpec) -> dict[str, list[outputs.Source]]:
    """Say where the outputs of each task are written down."""
    sources: dict[str, list[outputs.Source]] = {}
    for step in steps(spec):
        name = op_name(spec.name, step.name)
        source = outputs.Source(
            step_key=f"{name}.{DONE}" if step.is_fan_out else name,
            asset_key=asset_key(spec.name, step) if spec.kind == "asset" else None,
        )
        sources.setdefault(step.task.name, []).append(source)
    return sources


def _plans(dag: LoadedDag, spec: DagSpec) -> dict[str, TaskPlan]:
    is_asset = spec.kind == "asset"
    sources = output_sources(spec)
    return {
        step.name: TaskPlan(
            dag=spec.name,
            folder=dag.folder,
            file=dag.file.absolute() if dag.file else None,
            step=step,
            params_key=params_key(spec.name) if spec.params else None,
            asset_key=asset_key(spec.name, step) if is_asset else None,
            place=dag.task_places.get(step.task.name, dag.place),
            sources=sources,
        )
        for step in steps(spec)
    }


def _task_asset(
    spec: DagSpec, plan: TaskPlan, needed: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetsDefinition:
    task = plan.step.task
    asset = _asset_spec(spec, plan, needed, partitions)

    @dg.multi_asset(
        specs=[asset],
        name=op_name(spec.name, plan.step.name),
        required_resource_keys=set(plan.resources),
        op_tags=step_tags(plan.step),
        retry_policy=retry_policy(plan.step.retry),
        pool=task.pool,
        hooks=task_hooks(spec.name, plan.step.name, task.hooks),
        partitions_def=partitions,
    )
    def compute(context: dg.AssetExecutionContext) -> Any:
        yield from execute(plan, context)

    return compute


def _asset_spec(
    spec: DagSpec, plan: TaskPlan, needed: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetSpec:
    task = plan.step.task
    deps = [dg.AssetKey(each.split("/") if isinstance(each, str) else list(each)) for each in task.deps]
    own = {"run": "shell", "dag": "dagster"}.get(task.work[0], "python")
    kinds = set(task.kinds) or {own}
    assert plan.asset_key is not None
    return dg.AssetSpec(
        key=plan.asset_key,
        deps=list(dict.fromkeys([*needed, *deps])),
        description=task.description or None,
        group_name=task.group or spec.name,
        kinds=kinds | ({"op"} if task.kind == "op" else set()),
        owners=list(task.owners),
        skippable=task.when is not None,
        partitions_def=partitions,
    )


def _fan_out_asset(
    spec: DagSpec, plan: TaskPlan, needed: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str] | None
) -> dg.AssetsDefinition:
    """Make one asset of all copies: it is materialized when they are collected."""
    asset = _asset_spec(spec, plan, needed, partitions)
    inputs = {f"needs_{dep.asset_key.to_python_identifier()}": dep.asset_key for dep in asset.deps}
    made = dg.AssetsDefinition.from_graph(
        fan_out_graph(plan, op_name(spec.name, plan.step.name), list(inputs)),
        keys_by_input_name=inputs,
        keys_by_output_name={DONE: asset.key},
        partitions_def=partitions,
    )
    return made.map_asset_specs(
        lambda each: each.replace_attributes(
            description=asset.description, group_name=asset.group_name, kinds=asset.kinds, owners=list(asset.owners)
        )
    )


def _op_job(
    spec: DagSpec,
    plans: Mapping[str, TaskPlan],
    executor: dg.ExecutorDefinition,
    partitions: dg.PartitionsDefinition[str] | None,
) -> dg.JobDefinition:
    ops: list[dg.NodeDefinition] = []
    dependencies: dict[dg.NodeInvocation, dict[str, dg.DependencyDefinition]] = {}
    for step in steps(spec):
        name = op_name(spec.name, step.name)
        if step.is_fan_out:
            ops.append(fan_out_graph(plans[step.name], name, [f"after_{need}" for need in step.needs]))
            invocation = dg.NodeInvocation(name)
        else:
            ops.append(_task_op(plans[step.name], name))
            invocation = dg.NodeInvocation(name, hook_defs=task_hooks(spec.name, step.name, step.task.hooks))
        dependencies[invocation] = {
            f"after_{need}": dg.DependencyDefinition(op_name(spec.name, need), "done") for need in step.needs
        }
    graph = dg.GraphDefinition(
        name=spec.name, description=spec.description or None, node_defs=ops, dependencies=dependencies
    )
    return graph.to_job(executor_def=executor, tags=_run_tags(spec), partitions_def=partitions)


def _task_op(plan: TaskPlan, name: str) -> dg.OpDefinition:
    def compute(context: dg.OpExecutionContext, _inputs: Any) -> Any:
        yield from execute(plan, context)

    return dg.OpDefinition(
        name=name,
        compute_fn=compute,
        ins={f"after_{need}": dg.In(dg.Nothing) for need in plan.step.needs},
        outs={"done": dg.Out(dg.Nothing, is_required=plan.step.task.when is None)},
        description=plan.step.task.description or None,
        required_resource_keys=set(plan.resources),
        tags=step_tags(plan.step),
        retry_policy=retry_policy(plan.step.retry),
        pool=plan.step.task.pool,
    )
