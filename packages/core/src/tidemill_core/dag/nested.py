"""Tasks that run another DAG: find it, and check parameters, outputs and circles before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill_core.dag.graph import draw_cycle
from tidemill_core.dag.params import check_value
from tidemill_core.dag.spec import DagSpec
from tidemill_core.plugins import did_you_mean

if TYPE_CHECKING:
    from tidemill_core.config import ConfigFault, Document
    from tidemill_core.dag.raw import RawTask

Read = Callable[[Path], Sequence["Document"]]
Files = Callable[[Path], Sequence[Path]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """Another DAG, as its file has it."""

    name: str
    file: Path
    value: Mapping[str, Any]
    document: Document


class Siblings:
    """The DAGs that a file may name: its own, then those of the files in its folder.

    Args:
        read: Reads the documents of a file; an empty list if the file is wrong.
        files: Lists the DAG files of a folder.
    """

    def __init__(self, read: Read, files: Files) -> None:
        self._read, self._files = read, files
        self._known: dict[Path, list[Child]] = {}

    def find(self, reference: str, file: Path) -> Child:
        """Find a DAG that a task of `file` names: ``name`` or ``other.yaml:name``.

        Raises:
            LookupError: There is none, or there are several; says what to write.
        """
        path, _, name = reference.rpartition(":")
        if path:
            if not (file.parent / path).is_file():
                raise LookupError(f"there is no file {path!r} beside {file.name}")
            return self._only(name, self._of(file.parent / path), path)
        own = self._of(file)
        if any(child.name == name for child in own):
            return self._only(name, own, file.name)
        near = [child for each in self._files(file.parent) for child in self._of(each)]
        return self._only(name, near, f"the folder of {file.name}")

    def _only(self, name: str, children: Sequence[Child], where: str) -> Child:
        found = [child for child in children if child.name == name]
        if len(found) > 1:
            places = " and ".join(f"{child.file.name}:{name}" for child in found)
            raise LookupError(f"{where} has several DAGs {name!r}; say which: {places}")
        if not found:
            known = [child.name for child in children]
            raise LookupError(f"{where} has no DAG {name!r}{did_you_mean(name, known)}")
        return found[0]

    def _of(self, file: Path) -> list[Child]:
        key = file.resolve()
        if key not in self._known:
            self._known[key] = [
                Child(name=document.value["name"], file=file, value=document.value, document=document)
                for document in self._read(file)
                if isinstance(document.value, Mapping) and isinstance(document.value.get("name"), str)
            ]
        return self._known[key]


def references_of(value: Mapping[str, Any]) -> list[str]:
    """List the DAGs that the tasks of a DAG name, as its file has it."""
    tasks = value.get("tasks")
    return [
        task["dag"]
        for task in (tasks if isinstance(tasks, list | tuple) else ())
        if isinstance(task, Mapping) and isinstance(task.get("dag"), str)
    ]


def nested_faults(
    dag: str,
    file: Path | None,
    tasks: Sequence[RawTask],
    siblings: Siblings,
    load: Callable[[Child], DagSpec | None],
) -> Iterator[ConfigFault]:
    """Say what is wrong with the tasks that run another DAG.

    Args:
        dag: Name of the DAG whose tasks they are.
        file: Its file; None for one made in Python.
        tasks: Its tasks.
        siblings: Finds the other DAGs.
        load: Reads one of them without its own nested checks; None if it is wrong.
    """
    for task in tasks:
        reference = task.value.get("dag")
        if not isinstance(reference, str):
            continue
        if file is None:
            yield task.fault("only a DAG in a file can run another one", "dag")
            continue
        try:
            child = siblings.find(reference, file)
            circle = _circle(dag, file, child, siblings)
        except LookupError as error:
            yield task.fault(str(error), "dag")
            continue
        if circle:
            yield task.fault(f"DAGs run each other in a circle: {draw_cycle(circle)}", "dag")
            continue
        spec = load(child)
        if spec is None:
            yield task.fault(f"DAG {child.name!r} is wrong, see {child.file.name}", "dag")
            continue
        yield from _params(task, spec)
        yield from _outputs(task, spec)


def _circle(dag: str, file: Path, child: Child, siblings: Siblings) -> list[str]:
    """Find a circle that begins with this task: one that leads back to the DAG, or one further down."""
    start = (file.resolve(), dag)

    def walk(at: Child, path: list[tuple[Path, str]]) -> list[str]:
        key = (at.file.resolve(), at.name)
        if key in path:
            return [name for _, name in path[path.index(key) :]]
        for reference in references_of(at.value):
            found = walk(siblings.find(reference, at.file), [*path, key])
            if found:
                return found
        return []

    return walk(child, [start])


def _params(task: RawTask, child: DagSpec) -> Iterator[ConfigFault]:
    given = task.value.get("params")
    given = given if isinstance(given, Mapping) else {}
    for name, value in given.items():
        if name not in child.params:
            message = f"DAG {child.name!r} has no parameter {name!r}{did_you_mean(str(name), list(child.params))}"
            yield task.fault(message, "params", name)
        elif not (isinstance(value, str) and "${" in value):
            try:
                check_value(child.params[name], value)
            except ValueError as error:
                yield task.fault(f"parameter {name!r} of DAG {child.name!r}: {error}", "params", name)
    missing = [name for name, spec in child.params.items() if spec.default is None and name not in given]
    if missing:
        yield task.fault(f"DAG {child.name!r} needs the parameter {', '.join(missing)}", "dag")


def _outputs(task: RawTask, child: DagSpec) -> Iterator[ConfigFault]:
    makers = output_tasks(child)
    outputs = task.value.get("outputs")
    for index, name in enumerate(outputs if isinstance(outputs, list | tuple) else ()):
        found = makers.get(str(name), [])
        if not found:
            message = f"no task of DAG {child.name!r} has the output {name!r}{did_you_mean(str(name), list(makers))}"
            yield task.fault(message, "outputs", index)
        elif len(found) > 1:
            message = f"the output {name!r} is made by {' and '.join(found)} of DAG {child.name!r}; name it once there"
            yield task.fault(message, "outputs", index)


def output_tasks(dag: DagSpec) -> dict[str, list[str]]:
    """List, for each name of an output, the tasks of a DAG that make it."""
    makers: dict[str, list[str]] = {}
    for task in dag.tasks:
        for name in task.outputs:
            makers.setdefault(name, []).append(task.name)
    return makers
