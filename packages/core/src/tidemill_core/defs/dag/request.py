"""What to run of a DAG: which tasks, with which parameters, on the outputs of which run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from tidemill_core.config import ConfigFault, ConfigFaults
from tidemill_core.dag.expand import op_name, outputs_read, steps
from tidemill_core.dag.graph import dependents, reach
from tidemill_core.dag.load import LoadedDag
from tidemill_core.dag.params import bind
from tidemill_core.dag.shell import misplaced, shell_references, unsuitable
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.jobs import output_sources, partitions_definition
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

_SHOWN_KEYS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What to run of a DAG, and how."""

    params: Mapping[str, Any] = field(default_factory=dict)
    only: Sequence[str] = ()
    """Just these tasks."""
    start: Sequence[str] = ()
    """These tasks and all that needs them."""
    retry_run: str | None = None
    """Only what did not succeed in this run."""
    outputs_from: str | None = None
    """Run whose outputs stand for those of the tasks that `only` and `start` leave out; without, the
    newest finished one with the same parameters and partition."""
    partition: str | None = None
    executor: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags of the run."""
    module: str | None = None
    """Module whose `defs` give the resources; the shared ones without."""


def find_run(instance: dg.DagsterInstance, text: str) -> dg.DagsterRun:
    """Find a run by its id, the beginning of one, or ``last``.

    Raises:
        ConfigError: There is no such run, or there are several.
    """
    exact = instance.get_run_by_id(text) if text != "last" else None
    if exact is not None:
        return exact
    runs = instance.get_runs(limit=1 if text == "last" else 500)
    found = [run for run in runs if text == "last" or run.run_id.startswith(text)]
    if len(found) != 1:
        what = "there is no such run" if not found else f"{len(found)} runs begin so"
        raise ConfigError(f"run {text!r}: {what}; `tidemill dag status` lists them")
    return found[0]


def selected_steps(dag: LoadedDag, request: RunRequest) -> set[str] | None:
    """Names of the steps to run; None for all."""
    if not request.only and not request.start:
        return None
    every = steps(dag.spec)
    of_task: dict[str, list[str]] = {}
    for step in every:
        of_task.setdefault(step.task.name, []).append(step.name)
        of_task.setdefault(step.name, [step.name])
    for name in (*request.only, *request.start):
        if name not in of_task:
            raise ConfigError(f"DAG {dag.spec.name!r} has no task {name!r}{did_you_mean(name, list(of_task))}")
    users = dependents({step.name: step.needs for step in every})
    chosen = {step for name in request.only for step in of_task[name]}
    return chosen | reach(users, [step for name in request.start for step in of_task[name]])


def check_words(dag: LoadedDag, request: RunRequest) -> None:
    """Refuse parameters that need quoting where a command cannot quote them, before anything runs."""
    given = typed_params(dag, request.params)
    for step in steps(dag.spec) if given else ():
        line = step.task.run
        for reference in shell_references(line) if isinstance(line, str) else ():
            scope, name = reference.parts[0], reference.parts[1]
            if scope == "params" and name in given and unsuitable(reference, given[name]):
                place = dag.task_places.get(step.task.name, dag.place)
                fault = ConfigFault(
                    place, f"task {step.name}: run", f"the value {given[name]!r:.60} {misplaced(reference)}"
                )
                raise ConfigFaults([fault])


def choose_outputs(
    dag: LoadedDag, request: RunRequest, selected: set[str] | None, instance: dg.DagsterInstance
) -> dg.DagsterRun | None:
    """Choose the run whose outputs stand for those of tasks that are left out; None if none is needed.

    Raises:
        ConfigError: There is none; or the one that is named is of another DAG, goes on, or has not all outputs.
    """
    left_out = _read_but_left_out(dag, selected)
    if not left_out:
        if request.outputs_from:
            raise ConfigError("--outputs-from has no meaning here: this run makes all the outputs that it reads")
        return None
    if request.outputs_from:
        other = find_run(instance, request.outputs_from)
        if other.job_name != dag.spec.name:
            raise ConfigError(f"run {other.run_id} is one of {other.job_name!r}, not of {dag.spec.name!r}")
        if not other.is_finished:
            raise ConfigError(f"run {other.run_id} goes on; its outputs can be used when it has ended")
        missing = left_out.keys() - outputs.returned(instance, other, left_out).keys()
        if missing:
            raise ConfigError(f"run {other.run_id} has no outputs of {', '.join(sorted(map(repr, missing)))}")
    else:
        params = bind(dag.spec.params, request.params, dag=dag.spec.name)
        alike = outputs.Alike(dag=dag.spec.name, params=outputs.params_digest(params), partition=request.partition)
        found = outputs.find_run_alike(instance, left_out, alike)
        if found is None:
            raise ConfigError(outputs.no_run_alike(list(left_out), alike))
        other = found
    return other


def _read_but_left_out(dag: LoadedDag, selected: set[str] | None) -> dict[str, Sequence[outputs.Source]]:
    """Where the outputs stand that the selected steps read of steps that are not run."""
    if selected is None:
        return {}
    every = {step.name: step for step in steps(dag.spec)}
    read = {name for step in selected for name in outputs_read(every[step].task)}
    made = {op_name(dag.spec.name, step) for step in selected}
    found: dict[str, Sequence[outputs.Source]] = {}
    for task, sources in output_sources(dag.spec).items():
        missing = [source for source in sources if source.step_key.partition(".")[0] not in made]
        if task in read and missing:
            found[task] = missing
    return found


def typed_params(dag: LoadedDag, given: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the given parameters, texts or values, into values of their types; defaults are left out.

    Raises:
        ConfigError: A name is unknown, or a value is wrong.
    """
    known = {name: spec for name, spec in dag.spec.params.items() if name in given}
    return bind(known, given, dag=dag.spec.name)


def check_partition(dag: LoadedDag, request: RunRequest) -> None:
    """Insist on a partition of a partitioned DAG, and on none of another, before a run exists.

    Raises:
        ConfigError: It is missing, unknown, or the DAG has none.
    """
    definition = partitions_definition(dag.spec)
    if definition is None:
        if request.partition:
            raise ConfigError(f"DAG {dag.spec.name!r} has no partitions; leave out --partition")
        return
    if request.retry_run is not None and request.partition is None:
        return  # that of the run it retries
    keys = definition.get_partition_keys()
    if request.partition is None:
        raise ConfigError(f"DAG {dag.spec.name!r} is partitioned; give --partition KEY, {_few(keys)}")
    if request.partition not in keys:
        near = did_you_mean(request.partition, list(keys)).partition("; known")[0]
        known = near or f"; its partitions are {_few(keys)}"
        raise ConfigError(f"DAG {dag.spec.name!r} has no partition {request.partition!r}{known}")


def partition_range(dag: LoadedDag, text: str) -> list[str]:
    """List the partitions of ``FROM...TO``, both included, in their order.

    Raises:
        ConfigError: The DAG has no partitions, a key is unknown, or the range runs backwards.
    """
    definition = partitions_definition(dag.spec)
    if definition is None:
        raise ConfigError(f"DAG {dag.spec.name!r} has no partitions; leave out --partition-range")
    first, found, last = text.partition("...")
    if not found:
        raise ConfigError(f"--partition-range {text!r} is not FROM...TO, such as 2024-01-01...2024-01-31")
    keys = definition.get_partition_keys()
    for key in (first, last):
        if key not in keys:
            raise ConfigError(f"DAG {dag.spec.name!r} has no partition {key!r}; its partitions are {_few(keys)}")
    if keys.index(first) > keys.index(last):
        raise ConfigError(f"--partition-range {text!r} runs backwards; write {last}...{first}")
    return list(keys[keys.index(first) : keys.index(last) + 1])


def _few(keys: Sequence[str]) -> str:
    if not keys:
        return "none so far"
    return ", ".join(keys) if len(keys) <= _SHOWN_KEYS else f"{keys[0]} ... {keys[-1]} ({len(keys)})"
