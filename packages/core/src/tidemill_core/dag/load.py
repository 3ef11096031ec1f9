"""Read DAG files: several documents in a file, several files in a folder, includes; all faults at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tidemill_core.config import ConfigFault, ConfigFaults, Document, Place, load_documents
from tidemill_core.config import faults_of as model_faults
from tidemill_core.dag.check import faults as dag_faults
from tidemill_core.dag.expand import asset_path, op_name, steps
from tidemill_core.dag.nested import Child, Siblings, nested_faults
from tidemill_core.dag.raw import RawDag, RawTask
from tidemill_core.dag.spec import DagSpec, Fragment
from tidemill_core.errors import ConfigError

SUFFIXES = (".yaml", ".yml", ".json")
M = TypeVar("M", DagSpec, Fragment)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedDag:
    """A checked DAG and the file it came from."""

    spec: DagSpec
    file: Path | None
    """None for one made in Python or inline in a component."""
    place: Place
    """Where the document begins."""
    task_places: Mapping[str, Place] = field(default_factory=dict)
    """Where each task's command or the attributes of its component stand, else the task."""

    @property
    def folder(self) -> Path:
        """Where its relative paths and its own modules are looked for."""
        return self.file.absolute().parent if self.file else Path.cwd()


def load_dags(path: Path | str, *, env: Mapping[str, str] | None = None) -> list[LoadedDag]:
    """Read and check every DAG of a file, or of all files of a folder.

    Args:
        path: A YAML or JSON file, or a folder (searched with its sub-folders;
            files whose name begins with ``_`` are left for includes).
        env: Values for ``${NAME}``; default this process's environment.

    Returns:
        The DAGs in file order.

    Raises:
        ConfigFaults: Every fault of every document, with file and line.
    """
    faults: list[ConfigFault] = []
    dags: list[LoadedDag] = []
    siblings = _siblings(env)
    for file in dag_files(Path(path)):
        try:
            documents = load_documents(file, env=env)
        except ConfigFaults as wrong:
            faults += wrong.faults
            continue
        if not documents:
            faults.append(
                ConfigFault(Place(str(file), 1), "", "the file is empty; a DAG is a mapping with name and tasks")
            )
        for document in documents:
            try:
                dags.append(loaded_dag(document, file=file, env=env, siblings=siblings))
            except ConfigFaults as wrong:
                faults += wrong.faults
    faults += _duplicates(dags)
    if faults:
        raise ConfigFaults(faults)
    return dags


def dag_files(path: Path) -> list[Path]:
    """List the DAG files of a path, sorted.

    Raises:
        ConfigError: There is no such path, or no DAG file in the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{path} is neither a DAG file nor a folder of DAG files")
    hidden = ("_", ".")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in SUFFIXES and not any(part.startswith(hidden) for part in file.relative_to(path).parts)
    )
    if not found:
        raise ConfigError(f"{path} holds no DAG file (*.yaml, *.yml, *.json)")
    return found


def loaded_dag(
    document: Document | DagSpec,
    *,
    file: Path | None = None,
    env: Mapping[str, str] | None = None,
    siblings: Siblings | None = None,
) -> LoadedDag:
    """Check one DAG, from a document or made in Python, with its includes.

    Args:
        document: The DAG.
        file: Where it stands.
        env: Values for ``${NAME}``; default this process's environment.
        siblings: Finds the DAGs that its tasks run; made when first needed.

    Raises:
        ConfigFaults: Every fault, with its place.
    """
    if isinstance(document, DagSpec):
        plain = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        document = Document({**plain, "name": document.name}, {}, f"<dag {document.name}>")
    if not isinstance(document.value, Mapping):
        raise ConfigFaults([ConfigFault(document.place(()), "", "a DAG is a mapping with name and tasks")])
    faults: list[ConfigFault] = []
    included = list(_included(document, file, env, faults))
    spec = _validated(document, DagSpec, faults)
    fragments = [part for each in included if (part := _validated(each, Fragment, faults)) is not None]
    folder = file.absolute().parent if file else None
    raw = _raw(document, included, folder)
    faults += dag_faults(raw)
    if any(task.value.get("dag") for task in raw.tasks):
        found = siblings or _siblings(env)
        faults += nested_faults(
            str(document.value.get("name")), file, raw.tasks, found, lambda child: _child(child, env)
        )
    if faults or spec is None:
        raise ConfigFaults(faults)
    merged = _merged(spec, fragments)
    places = {task.name: task.place("run" if "run" in task.value else "with") for task in raw.tasks}
    return LoadedDag(spec=merged, file=file, place=document.place(()), task_places=places)


def find_child(reference: str, file: Path) -> str:
    """Find the DAG that a task of `file` runs, as ``/path/of/file.yaml:name``.

    Raises:
        ConfigError: There is none, or there are several.
    """
    try:
        child = _siblings(None).find(reference, file)
    except LookupError as error:
        raise ConfigError(str(error)) from error
    return f"{child.file.absolute()}:{child.name}"


def _siblings(env: Mapping[str, str] | None) -> Siblings:
    def read(file: Path) -> Sequence[Document]:
        try:
            return list(load_documents(file, env=env))
        except (ConfigError, OSError):
            return []  # what is wrong with another file is told when that file is checked

    return Siblings(read, dag_files)


def _child(child: Child, env: Mapping[str, str] | None) -> DagSpec | None:
    """Read a DAG that a task runs, with its includes; its own faults are told where it stands."""
    faults: list[ConfigFault] = []
    spec = _validated(child.document, DagSpec, faults)
    included = _included(child.document, child.file, env, faults)
    fragments = [part for each in included if (part := _validated(each, Fragment, faults)) is not None]
    return None if faults or spec is None else _merged(spec, fragments)


def _merged(spec: DagSpec, fragments: Sequence[Fragment]) -> DagSpec:
    parts: list[DagSpec | Fragment] = [*fragments, spec]
    return spec.model_copy(
        update={
            "params": {name: value for part in parts for name, value in part.params.items()},
            "tasks": tuple(task for part in parts for task in part.tasks),
        }
    )


def _validated(document: Document, model: type[M], faults: list[ConfigFault]) -> M | None:
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        faults += model_faults(error, document, model)
        return None


def _included(
    document: Document, file: Path | None, env: Mapping[str, str] | None, faults: list[ConfigFault]
) -> Iterator[Document]:
    names = document.value.get("include")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        place = document.place(("include", index))
        if file is None:
            faults.append(ConfigFault(place, f"include[{index}]", "only a file can include; this DAG is not in one"))
            continue
        try:
            documents = load_documents(file.parent / str(name), env=env)
        except ConfigFaults as wrong:
            faults += wrong.faults
            faults.append(ConfigFault(place, f"include[{index}]", f"{name} is wrong, see there"))
            continue
        yield from documents


def _raw(document: Document, included: Sequence[Document], folder: Path | None) -> RawDag:
    tasks: list[RawTask] = []
    params: dict[str, tuple[Any, Document, tuple[str | int, ...]]] = {}
    for each in (*included, document):
        if not isinstance(each.value, Mapping):
            continue
        listed = each.value.get("tasks")
        for index, value in enumerate(listed if isinstance(listed, list | tuple) else ()):
            if isinstance(value, Mapping):
                tasks.append(RawTask(value=value, document=each, path=("tasks", index)))
        given = each.value.get("params")
        for name, value in given.items() if isinstance(given, Mapping) else ():
            params[name] = (value, each, ("params", name))
    return RawDag(value=document.value, document=document, tasks=tuple(tasks), params=params, folder=folder)


def _duplicates(dags: Sequence[LoadedDag]) -> Iterator[ConfigFault]:
    """Find DAGs, assets and steps that Dagster would see twice, in one code location."""
    first: dict[str, LoadedDag] = {}
    assets: dict[tuple[str, ...], LoadedDag] = {}
    ops: dict[str, LoadedDag] = {}
    for dag in dags:
        if dag.spec.name in first:
            where = first[dag.spec.name].place
            yield ConfigFault(dag.place, "name", f"DAG {dag.spec.name!r} is there already, at {where}")
            continue
        first[dag.spec.name] = dag
        if len(dags) > 1:
            yield from _made_by_others(dag, assets, ops)


def _made_by_others(
    dag: LoadedDag, assets: dict[tuple[str, ...], LoadedDag], ops: dict[str, LoadedDag]
) -> Iterator[ConfigFault]:
    for step in steps(dag.spec):
        place = dag.task_places.get(step.task.name, dag.place)
        if step.task.use is None and dag.spec.kind == "asset":
            key = asset_path(dag.spec.name, step)
            other = assets.setdefault(key, dag)
            if other is not dag:
                name = "/".join(key)
                message = f"asset {name!r} is made by DAG {other.spec.name!r} already, at {other.place}"
                yield ConfigFault(place, f"task {step.name}: asset_key", message)
        op = op_name(dag.spec.name, step.name)
        other = ops.setdefault(op, dag)
        if other is not dag:
            message = f"its step {op!r} is also one of DAG {other.spec.name!r}, at {other.place}; rename one"
            yield ConfigFault(place, f"task {step.name}: name", message)
