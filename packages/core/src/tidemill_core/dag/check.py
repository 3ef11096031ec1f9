"""Find everything that is wrong between the parts of a DAG, each fault with its place.

These checks read the plain values of the file, not the model, so that they also speak
when other values of the same document are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from tidemill_core.config import ConfigFault
from tidemill_core.dag.asset_keys import asset_faults
from tidemill_core.dag.callables import find_callable, find_component, wrong_arguments
from tidemill_core.dag.expand import combinations, step_name
from tidemill_core.dag.graph import cycles, draw_cycle, reach
from tidemill_core.dag.names import check_key, check_pool, check_tags
from tidemill_core.dag.params import check_value
from tidemill_core.dag.raw import RawDag, RawTask
from tidemill_core.dag.shell import misplaced, shell_references, unsuitable, variable
from tidemill_core.dag.spec import ParamSpec, TaskSpec
from tidemill_core.dag.template import (
    SCOPES,
    TASK_FACTS,
    TASK_STATES,
    TemplateError,
    condition_references,
    references,
    render,
    state_words,
)
from tidemill_core.plugins import did_you_mean

_WORK = ("run", "call", "use", "dag")
_ONLY_WITH = {
    "with": ("use",),
    "arguments": ("call",),
    "resources": ("call",),
    "executor": ("call",),
    "env": ("run",),
    "cwd": ("run",),
    "pipes": ("run",),
    "params": ("dag",),
    "outputs": ("run", "call", "dag"),
}
_TEMPLATES = ("run", "with", "arguments", "env", "cwd", "matrix", "params")
_FILLED: Mapping[str, Callable[[Any], Any]] = {
    "pool": check_pool,
    "tags": check_tags,
    "asset_key": check_key,
    "deps": lambda deps: [check_key(each) for each in deps],
}
"""Texts in which only `${matrix.name}` is known, and what Dagster wants of them."""
_PLAIN = ("group", "kinds", "owners")
_MOST_KINDS = 3
_CONCURRENCY = "dagster/concurrency_key"
_ONCE = ("asset_key", "tags", "pool", "deps", "description", "when")
"""What a task has once, however many copies a list makes at run time."""


def faults(dag: RawDag) -> list[ConfigFault]:
    """List every fault between the parts of `dag`, in no special order."""
    checks: tuple[Callable[[RawDag], Iterable[ConfigFault]], ...] = (
        _size,
        _names,
        _needs,
        _cycles,
        _work,
        _triggers,
        _matrices,
        _params,
        asset_faults,
        _filled,
        _limits,
        _templates,
        _shell_lines,
        _callables,
    )
    return [fault for check in checks for fault in check(dag)]


def _size(dag: RawDag) -> Iterator[ConfigFault]:
    if not dag.tasks and "tasks" in dag.value:
        yield ConfigFault(dag.document.place(("tasks",)), "tasks", "a DAG needs at least one task")


def _names(dag: RawDag) -> Iterator[ConfigFault]:
    first: dict[str, RawTask] = {}
    for task in dag.tasks:
        if task.name in first:
            yield task.fault(f"task {task.name!r} is there already, at {first[task.name].place('name')}", "name")
        elif task.name:
            first[task.name] = task


def _needs(dag: RawDag) -> Iterator[ConfigFault]:
    known = list(dag.by_name)
    names = set(known)
    for task in dag.tasks:
        for index, need in enumerate(task.needs):
            if need not in names:
                yield task.fault(f"needs unknown task {need!r}{did_you_mean(need, known)}", "needs", index)


def _cycles(dag: RawDag) -> Iterator[ConfigFault]:
    tasks = dag.by_name
    ordered = {task.name: task.needs for task in dag.tasks if task.name}
    for cycle in cycles(ordered):
        yield tasks[cycle[0]].fault(f"tasks need each other in a circle: {draw_cycle(cycle)}", "needs")


def _work(dag: RawDag) -> Iterator[ConfigFault]:
    for task in dag.tasks:
        given = [kind for kind in _WORK if task.value.get(kind) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            yield task.fault(f"task {task.name!r} must have exactly one of run, call, use, dag; {found}")
            continue
        if given[0] == "use" and dag.value.get("kind") == "op":
            yield task.fault("a component makes assets; it cannot be a task of a DAG of kind op", "use")
        for key, kinds in _ONLY_WITH.items():
            if task.value.get(key) and given[0] not in kinds:
                yield task.fault(f"goes only with {' or '.join(kinds)}, this task has {given[0]}", key)


def _triggers(dag: RawDag) -> Iterator[ConfigFault]:
    executor = dag.value.get("executor")
    for task in dag.tasks:
        trigger = task.value.get("trigger") or "all_success"
        if trigger == "all_success":
            continue
        if not task.needs:
            yield task.fault(f"{trigger} has no meaning without needs", "trigger")
        if executor not in (None, "threads", "in_process"):
            yield task.fault(
                f"{trigger} needs the threads executor (or in_process); this DAG has {executor}, "
                "which never starts a task after a failed one",
                "trigger",
            )


def _matrices(dag: RawDag) -> Iterator[ConfigFault]:
    steps: dict[str, str] = {task.name: task.name for task in dag.tasks if not task.value.get("matrix")}
    for task in dag.tasks:
        matrix = task.value.get("matrix")
        if not isinstance(matrix, Mapping) or not matrix:
            continue
        if any(not isinstance(values, list | tuple) for values in matrix.values()):
            yield from _fan_out(task)
            continue
        for name, values in matrix.items():
            if not values:
                yield task.fault("the list is empty, so the task would never run", "matrix", name)
        bare = TaskSpec.model_construct(name=task.name, matrix=dict(matrix))
        for values in combinations(bare):
            name = step_name(task.name, values)
            if name in steps:
                yield task.fault(f"two copies would have the name {name!r}", "matrix")
            steps[name] = task.name


def _fan_out(task: RawTask) -> Iterator[ConfigFault]:
    """Check a matrix that an earlier task fills."""
    if task.value.get("use"):
        message = "a component's attributes are read before the run, so only a list in the file can fan it out"
        yield task.fault(message, "matrix")
    for key in _ONCE:
        texts = [text for text, parts in _named(task.value.get(key)) if parts[0] == "matrix"]
        if texts:
            message = f"{texts[0]}: the copies are made when the run goes on, and share one {key}"
            yield task.fault(message, key)


def _named(value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((f"${{{'.'.join(parts)}}}", parts) for parts in references(value))
    if isinstance(value, str) and "${" not in value:
        yield from ((name, ("matrix",)) for name in re.findall(r"\bmatrix\.\w+", value))


def _params(dag: RawDag) -> Iterator[ConfigFault]:
    for name, (value, document, path) in dag.params.items():
        try:
            spec = ParamSpec.model_validate(value)
        except ValidationError:
            continue  # the model's own check has named it
        if spec.default is None:
            continue
        try:
            check_value(spec, spec.default)
        except ValueError as error:
            yield ConfigFault(document.place((*path, "default")), f"params.{name}.default", f"the default {error}")


def _filled(dag: RawDag) -> Iterator[ConfigFault]:
    """Check what the copies of a matrix make of texts that Dagster is particular about."""
    for task in dag.tasks:
        matrix = task.value.get("matrix")
        if not task.has_copies or not isinstance(matrix, Mapping):
            continue
        bare = TaskSpec.model_construct(name=task.name, matrix=dict(matrix))
        for key, check in _FILLED.items():
            if not any(parts[0] == "matrix" for parts in references(task.value.get(key))):
                continue
            for values in combinations(bare):
                try:
                    check(render(task.value[key], {"matrix": values}, partial=True))
                except (ValueError, TypeError, TemplateError) as error:
                    yield task.fault(f"for {step_name(task.name, values)}: {error}", key)
                    break


def _limits(dag: RawDag) -> Iterator[ConfigFault]:
    """Check what Dagster counts or compares on a task."""
    for task in dag.tasks:
        kinds, tags = task.value.get("kinds"), task.value.get("tags")
        if task.value.get("kind") == "op" and isinstance(kinds, list | tuple) and len({*kinds, "op"}) > _MOST_KINDS:
            yield task.fault("an op has the kind `op` already, so it takes two more", "kinds")
        own = tags.get(_CONCURRENCY) if isinstance(tags, Mapping) else None
        pool = task.value.get("pool")
        if own and pool and own != pool:
            yield task.fault(f"the tag {_CONCURRENCY} says {own!r}, the pool is {pool!r}; leave the tag out", "tags")


def _templates(dag: RawDag) -> Iterator[ConfigFault]:
    tasks = dag.by_name
    needs = {name: task.needs for name, task in tasks.items()}
    for task in dag.tasks:
        upstream: set[str] | None = None
        for key, parts in _references(task):
            if isinstance(parts, ConfigFault):
                yield parts
                continue
            if parts[0] in ("outputs", "tasks") and upstream is None:
                upstream = reach(needs, task.needs)
            message = _wrong_reference(parts, key, task, dag, tasks, upstream or set())
            if message:
                yield task.fault(message, key)


def _references(task: RawTask) -> Iterator[tuple[str, tuple[str, ...] | ConfigFault]]:
    yield from _early_references(task)
    for key in _TEMPLATES:
        for parts in references(task.value.get(key)):
            yield key, parts
    condition = task.value.get("when")
    if isinstance(condition, str):
        try:
            yield from _of_condition(task, condition)
        except TemplateError as error:
            yield "when", task.fault(str(error), "when")


def _of_condition(task: RawTask, condition: str) -> Iterator[tuple[str, tuple[str, ...] | ConfigFault]]:
    for parts in condition_references(condition):
        if parts not in (("true",), ("false",)):
            yield "when", parts
    for word in state_words(condition):
        if word not in TASK_STATES:
            message = f"{word!r} is no state of a task{did_you_mean(word, list(TASK_STATES))}"
            yield "when", task.fault(f"{message}; known: {', '.join(TASK_STATES)}", "when")


def _early_references(task: RawTask) -> Iterator[tuple[str, tuple[str, ...] | ConfigFault]]:
    """References in texts that are read before the run, where nothing but a matrix of the file is known."""
    for key in (*_FILLED, *_PLAIN):
        for parts in references(task.value.get(key)):
            if parts[0] == "matrix" and key in _FILLED:
                yield key, parts
            else:
                known = "only ${matrix.name} is" if key in _FILLED else "nothing is"
                yield key, task.fault(f"${{{'.'.join(parts)}}}: {known} filled in here", key)


def _wrong_reference(  # noqa: PLR0911 - one return per scope
    parts: tuple[str, ...], key: str, task: RawTask, dag: RawDag, tasks: Mapping[str, RawTask], upstream: set[str]
) -> str:
    scope, rest, text = parts[0], parts[1:], ".".join(parts)
    if scope not in SCOPES:
        return f"{text}: {scope!r} is not known{did_you_mean(scope, list(SCOPES))}"
    if not rest:
        return f"{text}: name a value, such as {text}.name"
    if key == "with" and scope not in ("params", "matrix"):
        return f"{text} is known only when the task runs; a component's attributes are read before"
    if scope == "params" and rest[0] not in dag.params:
        return f"unknown parameter {rest[0]!r}{did_you_mean(rest[0], list(dag.params))}"
    if scope == "matrix":
        matrix = task.value.get("matrix")
        known = list(matrix) if isinstance(matrix, Mapping) else []
        return "" if rest[0] in known else f"the matrix has no {rest[0]!r}{did_you_mean(rest[0], known)}"
    if scope == "outputs":
        return _wrong_output(rest, text, tasks, upstream)
    if scope == "tasks":
        return _wrong_fact(rest, text, key, tasks, upstream)
    return ""


def _wrong_fact(rest: tuple[str, ...], text: str, key: str, tasks: Mapping[str, RawTask], upstream: set[str]) -> str:
    """Say what is wrong with `tasks.NAME.fact`, if anything."""
    if key != "when":
        return f"{text}: how a task ended is known only in `when`"
    if rest[0] not in tasks:
        return f"{text}: unknown task {rest[0]!r}{did_you_mean(rest[0], list(tasks))}"
    if rest[0] not in upstream:
        return f"{text}: add {rest[0]!r} to needs, or it may not have ended yet"
    fact = ".".join(rest[1:])
    if fact not in TASK_FACTS:
        return f"{text}: a task has {', '.join(TASK_FACTS)}{did_you_mean(fact, list(TASK_FACTS))}"
    return ""


def _wrong_output(rest: tuple[str, ...], text: str, tasks: Mapping[str, RawTask], upstream: set[str]) -> str:
    if rest[0] not in tasks:
        return f"{text}: unknown task {rest[0]!r}{did_you_mean(rest[0], list(tasks))}"
    if rest[0] not in upstream:
        return f"{text}: add {rest[0]!r} to needs, or it may not have run yet"
    if len(rest) < 2:  # noqa: PLR2004 - task and output
        return f"{text}: name the output, such as {text}.rows"
    declared = tasks[rest[0]].value.get("outputs") or ()
    if rest[1] not in declared:
        return f"{text}: task {rest[0]!r} declares no output {rest[1]!r}{did_you_mean(rest[1], list(declared))}"
    return ""


def _shell_lines(dag: RawDag) -> Iterator[ConfigFault]:
    """Check the values that are known already: defaults of parameters, and lists of a matrix."""
    by_variable: dict[str, str] = {}
    for name, (_, document, path) in dag.params.items():
        other = by_variable.setdefault(variable(name), name)
        if other != name:
            message = f"parameters {other!r} and {name!r} would share the variable ${variable(name)} of commands"
            yield ConfigFault(document.place(path), f"params.{name}", message)
    defaults = {
        name: [value.get("default")] for name, (value, _, _) in dag.params.items() if isinstance(value, Mapping)
    }
    for task in dag.tasks:
        line, matrix = task.value.get("run"), task.value.get("matrix")
        if not isinstance(line, str):
            continue
        known = {"params": defaults, "matrix": matrix if isinstance(matrix, Mapping) else {}}
        for reference in shell_references(line):
            values = known.get(reference.parts[0], {}).get(reference.parts[1])
            for value in values if isinstance(values, list | tuple) else ():
                if value is not None and unsuitable(reference, value):
                    yield task.fault(f"the value {value!r:.60} {misplaced(reference)}", "run")


def _callables(dag: RawDag) -> Iterator[ConfigFault]:
    defaults = dag.value.get("defaults")
    shared = defaults.get("resources") if isinstance(defaults, Mapping) else None
    for task in dag.tasks:
        call, use = task.value.get("call"), task.value.get("use")
        try:
            if isinstance(call, str) and ":" in call:
                parameters = find_callable(call, folder=dag.folder)
                filled = tuple(task.value.get("resources") or shared or ())
                given = task.value.get("arguments") or {}
                if parameters is not None and isinstance(given, Mapping):
                    for name, message in wrong_arguments(parameters, given, filled=filled):
                        yield task.fault(message, *(("arguments", name) if name else ("call",)))
            elif isinstance(use, str) and "." in use:
                find_component(use)
        except LookupError as error:
            yield task.fault(str(error), "call" if call else "use")
    for index, sensor in enumerate(dag.value.get("sensors") or ()):
        try:
            if isinstance(sensor, str):
                find_callable(sensor, folder=dag.folder)
        except LookupError as error:
            yield ConfigFault(dag.document.place(("sensors", index)), f"sensors[{index}]", str(error))
