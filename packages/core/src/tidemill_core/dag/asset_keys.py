"""Which assets the tasks of DAGs make: each one once, and none that waits for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tidemill_core.config import ConfigFault
from tidemill_core.dag.expand import combinations, step_name
from tidemill_core.dag.graph import cycles, draw_cycle
from tidemill_core.dag.raw import RawDag, RawTask
from tidemill_core.dag.spec import TaskSpec
from tidemill_core.dag.template import TemplateError, render

Key = tuple[str, ...]


def asset_faults(dag: RawDag) -> Iterator[ConfigFault]:
    """Find assets that two steps would make, and assets that would wait for themselves."""
    if dag.value.get("kind") == "op":
        return
    maker: dict[Key, RawTask] = {}
    for task in dag.tasks:
        given = task.value.get("asset_key")
        if given and task.has_copies and "${matrix." not in str(given):
            yield task.fault("all copies would make the same asset; put ${matrix.name} into the key", "asset_key")
            continue
        for key in _keys(dag, task):
            if key in maker:
                name = "/".join(key)
                yield task.fault(
                    f"asset {name!r} is made by task {maker[key].name!r} already",
                    "asset_key" if given else "name",
                )
                break
            maker[key] = task
    yield from _circles(dag, maker)


def _circles(dag: RawDag, maker: Mapping[Key, RawTask]) -> Iterator[ConfigFault]:
    read = {task.name: _read(task, maker) for task in dag.tasks if task.value.get("deps")}
    if not read:
        return
    for task in dag.tasks:
        if task.name in read.get(task.name, ()):
            yield task.fault("the task reads an asset that it makes itself", "deps")
    needs = {
        task.name: [*task.needs, *(each for each in read.get(task.name, ()) if each != task.name)]
        for task in dag.tasks
        if task.name
    }
    plain = {task.name: task.needs for task in dag.tasks if task.name}
    if cycles(plain):
        return  # named already
    for cycle in cycles(needs):
        yield dag.by_name[cycle[0]].fault(
            f"tasks wait for each other in a circle, by needs and deps: {draw_cycle(cycle)}", "deps"
        )


def _read(task: RawTask, maker: Mapping[Key, RawTask]) -> list[str]:
    """Name the tasks of this DAG whose assets a task reads by `deps`."""
    found: dict[str, None] = {}
    deps = task.value.get("deps")
    for values in _copies(task):
        for dep in deps if isinstance(deps, list | tuple) else ():
            key = _parts(_filled(dep, values))
            if key in maker:
                found[maker[key].name] = None
    return list(found)


def _keys(dag: RawDag, task: RawTask) -> Iterator[Key]:
    """Yield the key of each copy; none of a component, which makes its own."""
    if task.value.get("use") or not task.name:
        return
    given = task.value.get("asset_key")
    for values in _copies(task):
        if given is None:
            yield (str(dag.value.get("name")), step_name(task.name, values))
        else:
            yield _parts(_filled(given, values))


def _copies(task: RawTask) -> list[dict[str, Any]]:
    if not task.has_copies:
        return [{}]
    return combinations(TaskSpec.model_construct(name=task.name, matrix=dict(task.value["matrix"])))


def _filled(key: Any, values: Mapping[str, Any]) -> Any:
    try:
        return render(key, {"matrix": values} if values else {}, partial=True)
    except TemplateError:
        return key  # the check of references names it


def _parts(key: Any) -> Key:
    return tuple(key.split("/")) if isinstance(key, str) else tuple(map(str, key or ()))
