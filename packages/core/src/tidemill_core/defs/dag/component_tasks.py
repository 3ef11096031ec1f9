"""Tasks that are components: build one from its attributes and fit its assets into the DAG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import dagster as dg

from tidemill_core.dag.expand import Step
from tidemill_core.defs.dag.tasks import retry_policy
from tidemill_core.errors import ConfigError, TidemillError


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentTask:
    """What a component made, fitted into a DAG."""

    assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]
    definitions: dg.Definitions
    """Everything else it made: checks, sensors, schedules, resources."""

    @property
    def keys(self) -> list[dg.AssetKey]:
        """Keys of its assets."""
        return [key for each in self.assets for key in ([each.key] if isinstance(each, dg.AssetSpec) else each.keys)]

    @property
    def last_keys(self) -> list[dg.AssetKey]:
        """Keys of the assets that none of its other assets reads."""
        read = {dep.asset_key for spec in _specs(self.assets) for dep in spec.deps}
        return [key for key in self.keys if key not in read] or self.keys


def component_type(reference: str) -> type[dg.Component]:
    """Import a component type: ``package.Type``, or the same in the package's ``defs``.

    Raises:
        ConfigError: Neither place has it, or it is no component type.
    """
    module, _, name = reference.rpartition(".")
    for place in (module, f"{module}.defs"):
        try:
            found = getattr(import_module(place), name, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise ConfigError(f"{place} cannot be imported: {error}") from error
            continue
        if isinstance(found, type) and issubclass(found, dg.Component):
            return found
    raise ConfigError(f"{reference!r} is no installed component type; `dg list components` shows them")


def build_component_task(
    step: Step, attributes: Mapping[str, Any], needed: Sequence[dg.AssetKey], context: Any = None, *, group: str | None
) -> ComponentTask:
    """Build the component of a step and put it behind what the step needs.

    Args:
        step: The step; its pool, retry rule, tags and timeout go to every asset that has none of its own.
        attributes: The component's attributes, templates filled in.
        needed: Asset keys that must be there first; added to each root asset.
        context: Load context of the DAG's own component; a fresh one without.
        group: Asset group, where the step names one.

    Raises:
        ConfigError: The attributes are wrong, or the component makes no asset.
    """
    load_context = context or dg.ComponentTree.for_test().load_context
    kind = component_type(step.task.use or "")
    try:
        component = kind.from_attributes_dict(attributes=dict(attributes), context=load_context)
        made = component.build_defs(load_context)
    except TidemillError:
        raise
    except Exception as error:  # a stranger's component may raise anything; it is told with the task's name
        raise ConfigError(f"task {step.name!r}: {step.task.use} refuses its attributes: {error}") from error
    assets = [each for each in made.assets or () if isinstance(each, dg.AssetsDefinition | dg.AssetSpec)]
    if not assets:
        raise ConfigError(f"task {step.name!r}: {step.task.use} makes no asset, so it cannot be a task")
    keys = {key for each in assets for key in ([each.key] if isinstance(each, dg.AssetSpec) else each.keys)}

    def behind(spec: dg.AssetSpec) -> dg.AssetSpec:
        is_root = not any(dep.asset_key in keys for dep in spec.deps)
        have = {dep.asset_key for dep in spec.deps}
        added = [key for key in needed if is_root and key not in have and key not in keys]
        whole = spec.merge_attributes(deps=added) if added else spec
        return whole.replace_attributes(group_name=group) if group else whole

    fitted = [behind(each) if isinstance(each, dg.AssetSpec) else _fitted(each, behind, step) for each in assets]
    return ComponentTask(assets=fitted, definitions=made)


def _specs(assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]) -> list[dg.AssetSpec]:
    return [spec for each in assets for spec in ([each] if isinstance(each, dg.AssetSpec) else each.specs)]


def _fitted(
    assets: dg.AssetsDefinition, behind: Callable[[dg.AssetSpec], dg.AssetSpec], step: Step
) -> dg.AssetsDefinition:
    """Put an asset behind what its step needs, and give its op what the DAG file says about the step.

    The op gets an input for each added dependency: `map_asset_specs` (1.13.27) adds the
    input but forgets which asset it stands for, so the order would not be kept.
    """
    op = assets.node_def
    specs = [behind(spec) for spec in assets.specs]
    if not isinstance(op, dg.OpDefinition):
        return assets.map_asset_specs(behind)
    inputs = dict(assets.node_keys_by_input_name)
    outputs = set(assets.node_keys_by_output_name.values())
    wanted = dict.fromkeys(dep.asset_key for spec in specs for dep in spec.deps)
    added = [key for key in wanted if key not in inputs.values() and key not in outputs]
    names = {key: f"needs_{key.to_python_identifier()}" for key in added}
    changed = dg.OpDefinition(
        name=op.name,
        compute_fn=op.compute_fn,
        ins={
            **{each.name: dg.In.from_definition(each) for each in op.input_defs},
            **{name: dg.In(dg.Nothing) for name in names.values()},
        },
        outs={each.name: dg.Out.from_definition(each) for each in op.output_defs},
        config_schema=op.config_schema,
        description=op.description,
        required_resource_keys=set(op.required_resource_keys),
        tags={**op.tags, **step_tags(step)},
        retry_policy=_policy(step) or op.retry_policy,
        code_version=op._version,  # noqa: SLF001 - the public name is deprecated
        pool=step.task.pool or op.pool,
    )
    attributes = {
        **assets.get_attributes_dict(),
        "node_def": changed,
        "specs": specs,
        "keys_by_input_name": {**inputs, **{name: key for key, name in names.items()}},
    }
    return assets.__class__.dagster_internal_init(**attributes)


def _policy(step: Step) -> dg.RetryPolicy | None:
    """A rule for any error becomes a policy; temporary errors a component already tries again by itself."""
    return retry_policy(step.retry) if step.retry and "any" in step.retry.on else None


def step_tags(step: Step) -> dict[str, str]:
    """Tags of a step: its own, and what the threads executor reads."""
    task = step.task
    tags = {**task.tags, "tidemill/task": step.name}
    if task.trigger != "all_success":
        tags["tidemill/trigger"] = task.trigger
    if task.timeout_s is not None and task.run is None and task.executor is None:
        tags["tidemill/timeout_s"] = f"{task.timeout_s:g}"
    return tags
