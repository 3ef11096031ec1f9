"""Turn tasks into steps: defaults applied, matrices fanned out, needs spelled out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from tidemill_core.dag.graph import topological_order
from tidemill_core.dag.spec import DagSpec, RetrySpec, Scalar, TaskDefaults, TaskSpec
from tidemill_core.dag.template import render

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
    """List the matrix values of each copy; one empty one without a matrix."""
    return [dict(zip(task.matrix, values, strict=True)) for values in product(*task.matrix.values())]


def step_name(task: str, values: Mapping[str, Scalar]) -> str:
    """Name a copy after its values: ``fetch__us_2013``."""
    if not values:
        return task
    return f"{task}__{'_'.join(_NOT_WORD.sub('_', str(value)).strip('_') or 'x' for value in values.values())}"


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
    texts = ("description", "run", "with_", "arguments", "env", "cwd", "pool", "tags", "asset_key", "deps", "when")
    update = {name: render(getattr(task, name), scopes, partial=True) for name in texts}
    if task.when:
        update["when"] = _condition(task.when, values)
    return task.model_copy(update=update)


def _condition(text: str, values: Mapping[str, Scalar]) -> str:
    """Put matrix values into a condition as literals."""
    for name, value in values.items():
        text = repr(value).join(re.split(rf"\$\{{\s*matrix\.{name}\s*\}}|\bmatrix\.{name}\b", text))
    return text
