"""Turn tasks into steps: defaults applied, matrices fanned out, needs spelled out."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from tidemill_core.dag.errors import BadOutputs
from tidemill_core.dag.graph import topological_order
from tidemill_core.dag.shell import render_shell
from tidemill_core.dag.spec import DagSpec, RetrySpec, Scalar, TaskDefaults, TaskSpec
from tidemill_core.dag.template import condition_references, fill_condition, references, render

_NOT_WORD = re.compile(r"\W+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to run: a task, or one copy of a task with a matrix."""

    name: str
    task: TaskSpec
    """The task with its defaults and matrix values filled in."""
    needs: tuple[str, ...]
    """Names of the steps that come first."""
    matrix: Mapping[str, Scalar]
    """Values of this copy; empty without a matrix."""

    @property
    def is_fan_out(self) -> bool:
        """Whether its copies are made at run time, from what an earlier task returned."""
        return is_fan_out(self.task)

    @property
    def retry(self) -> RetrySpec | None:
        """The retry rule, or None."""
        rule = self.task.retry
        return RetrySpec(count=rule) if isinstance(rule, int) else rule


def steps(dag: DagSpec) -> list[Step]:
    """List the steps of a checked DAG, each after all it needs."""
    copies = {task.name: combinations(task) for task in dag.tasks}
    names = {name: tuple(step_name(name, values) for values in each) for name, each in copies.items()}
    found: dict[str, Step] = {}
    for task in dag.tasks:
        whole = with_defaults(task, dag.defaults)
        needs = tuple(step for need in dict.fromkeys(task.needs) for step in names[need])
        for values in copies[task.name]:
            name = step_name(task.name, values)
            found[name] = Step(name=name, task=_fill(whole, values), needs=needs, matrix=values)
    order = topological_order({step.name: step.needs for step in found.values()})
    return [found[name] for name in order]


def combinations(task: TaskSpec) -> list[dict[str, Scalar]]:
    """List the matrix values of each copy; one empty one without a matrix, and for copies made at run time."""
    if is_fan_out(task):
        return [{}]
    return [dict(zip(task.matrix, values, strict=True)) for values in product(*task.matrix.values())]


def is_fan_out(task: TaskSpec) -> bool:
    """Tell whether a list of the matrix is the output of an earlier task."""
    return any(isinstance(values, str) for values in task.matrix.values())


def run_time_copies(task: TaskSpec, lists: Mapping[str, Any]) -> dict[str, dict[str, Scalar]]:
    """Make the copies of a fan-out over outputs.

    Args:
        task: The task; lists of its own are taken from its matrix.
        lists: What the outputs hold, by name in the matrix.

    Returns:
        Matrix values by the name of each copy, in the order of the lists; empty if a list is.

    Raises:
        BadOutputs: A value is no list, holds something else than texts, numbers and booleans,
            or there are more copies than `max_copies`.
    """
    axes = {name: lists[name] if isinstance(values, str) else values for name, values in task.matrix.items()}
    for name, values in axes.items():
        _check_axis(task, name, values)
    count = math.prod(len(values) for values in axes.values())
    if count > task.max_copies:
        sources = ", ".join(str(values) for values in task.matrix.values() if isinstance(values, str))
        raise BadOutputs(f"task {task.name!r}: {sources} would make {count} copies, max_copies is {task.max_copies}")
    copies: dict[str, dict[str, Scalar]] = {}
    for values in product(*axes.values()):
        found = dict(zip(axes, values, strict=True))
        copies[_free_name(copy_name(found), copies)] = found
    return copies


def _check_axis(task: TaskSpec, name: str, values: Any) -> None:
    source = task.matrix[name]
    if not isinstance(values, list | tuple):
        kind = type(values).__name__
        raise BadOutputs(f"task {task.name!r}: {source} must be a list to fan out over, it is {kind} ({values!r:.60})")
    for index, value in enumerate(values):
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise BadOutputs(
                f"task {task.name!r}: item {index} of {source} is {kind} ({value!r:.60}); "
                "a copy is made for a text, a number or a boolean"
            )


def copy_name(values: Mapping[str, Scalar]) -> str:
    """Name a copy after its values, by their last 60 characters (paths differ at the end): ``us_2013``."""
    words = (_NOT_WORD.sub("_", str(value)).strip("_") or "x" for value in values.values())
    return "_".join(words).encode("ascii", "replace").decode().replace("?", "_")[-60:]


def _free_name(name: str, taken: Container[str]) -> str:
    numbers = (f"{name}_{number}" for number in itertools.count(2))
    return name if name not in taken else next(each for each in numbers if each not in taken)


def step_name(task: str, values: Mapping[str, Scalar]) -> str:
    """Name a copy after its values: ``fetch__us_2013``."""
    if not values:
        return task
    return f"{task}__{'_'.join(_NOT_WORD.sub('_', str(value)).strip('_') or 'x' for value in values.values())}"


def outputs_read(task: TaskSpec, *more: Any) -> set[str]:
    """Name the tasks whose outputs the texts of a task, its condition and `more` texts read."""
    texts = [task.run, task.arguments, task.env, task.cwd, task.params, *task.matrix.values(), *more]
    found = {parts[1] for parts in references(texts) if parts[0] == "outputs"}
    if task.when:
        found |= {parts[1] for parts in condition_references(task.when) if parts[0] == "outputs"}
    return found


def op_name(dag: str, step: str) -> str:
    """Name of a step's op, which is its step key in Dagster."""
    return f"{dag}__{step}"


def asset_path(dag: str, step: Step) -> tuple[str, ...]:
    """Path of the asset that a `run`, `call` or `dag` step makes."""
    given = step.task.asset_key
    if given is None:
        return (dag, step.name)
    return tuple(given.split("/") if isinstance(given, str) else given)


def with_defaults(task: TaskSpec, defaults: TaskDefaults) -> TaskSpec:
    """Fill what the task leaves open from the DAG's defaults."""
    return task.model_copy(
        update={
            "retry": defaults.retry if task.retry is None else task.retry,
            "timeout_s": task.timeout_s or defaults.timeout_s,
            "pool": task.pool or defaults.pool,
            "tags": {**defaults.tags, **task.tags},
            "env": {**defaults.env, **task.env},
            "cwd": task.cwd or defaults.cwd,
            "resources": defaults.resources if task.resources is None else task.resources,
        }
    )


def _fill(task: TaskSpec, values: Mapping[str, Scalar]) -> TaskSpec:
    if not values:
        return task
    scopes: Mapping[str, Any] = {"matrix": values}
    texts = ("description", "with_", "arguments", "env", "cwd", "pool", "tags", "asset_key", "deps", "params")
    update = {name: render(getattr(task, name), scopes, partial=True) for name in texts}
    if isinstance(task.run, str):
        update["run"] = render_shell(task.run, scopes, partial=True)
    else:
        update["run"] = render(task.run, scopes, partial=True)
    if task.when:
        update["when"] = fill_condition(task.when, "matrix", values)
    return task.model_copy(update=update)
