"""Values that tasks hand to later tasks, kept as Dagster metadata so that any worker can read them.

They are those of a run, never of an asset: a task reads what its own run returned, a retry also what
the runs it retries returned, and a run of some tasks only (`--only`, `--from`, a selection in the UI)
what one finished run with the same parameters and partition did.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import BadOutputs
from tidemill_core.dag.values import decode, encode_outputs

METADATA_KEY = "tidemill/outputs"
PARAMS_KEY = "tidemill/params"
"""Metadata beside the outputs: a digest of the run's parameters."""
FROM_TAG = "tidemill/outputs_from"
"""On a run of some tasks: the run whose outputs stand for those of the others."""
PARTITION_TAG = "dagster/partition"
_ASSET_JOB = "__ASSET_JOB"
"""Name of Dagster's job of runs that materialize assets from the UI."""
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_SEARCHED_RUNS = 500
_KEPT_RUNS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one step's outputs are written down."""

    step_key: str
    asset_key: dg.AssetKey | None
    """None in a DAG of ops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """What a run must share with another so that its outputs can stand for the other's."""

    dag: str
    params: str
    """Digest of the parameters; empty without any."""
    partition: str | None


def params_digest(params: Mapping[str, Any]) -> str:
    """Shorten parameters to 16 hex digits; equal parameters give equal digits. Empty without any."""
    if not params:
        return ""
    text = json.dumps(dict(params), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def metadata_of(
    values: Mapping[str, Any], *, task: str, params: Mapping[str, Any]
) -> dict[str, dg.MetadataValue[Any] | str]:
    """Make the metadata entries that carry the outputs of a task.

    Raises:
        BadOutputs: A value is of a type that cannot be kept, or they are too large.
    """
    if not values:
        return {}
    found: dict[str, Any] = {METADATA_KEY: dg.MetadataValue.json(encode_outputs(values, task=task))}
    digest = params_digest(params)
    return {**found, PARAMS_KEY: digest} if digest else found


def read(
    instance: dg.DagsterInstance, run: dg.DagsterRun, wanted: Mapping[str, Sequence[Source]], alike: Alike
) -> dict[str, dict[str, Any]]:
    """Read the outputs of tasks, as a step of `run` must see them.

    Args:
        instance: Where the runs are recorded.
        run: The run that reads.
        wanted: Where the outputs of each task are written down.
        alike: What another run must share to stand in, if this one leaves tasks out.

    Returns:
        By task its outputs by name; of a task with a matrix, each output is a list over its copies.

    Raises:
        BadOutputs: A task has returned none, neither in this run nor in one that stands in for it.
    """
    found = _metadata_of_chain(instance, run, wanted)
    missing = _without(found, wanted)
    if missing:
        with _LOCK:
            other = _stand_in(instance, instance.get_run_by_id(run.run_id) or run, missing, alike)
        found |= _metadata_of_chain(instance, other, missing)
        lost = next(iter(_without(found, missing)), None)
        if lost is not None:
            raise BadOutputs(f"run {other.run_id}, whose outputs stand in, has none of task {lost!r}")
    return {
        task: _together([_values(found[source.step_key]) for source in sources]) for task, sources in wanted.items()
    }


def _without(found: Mapping[str, Any], wanted: Mapping[str, Sequence[Source]]) -> dict[str, list[Source]]:
    """The sources that are not found, by task."""
    missing = {task: [each for each in sources if each.step_key not in found] for task, sources in wanted.items()}
    return {task: sources for task, sources in missing.items() if sources}


def _values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = decode(metadata[METADATA_KEY].value)
    return values


def find_run_alike(
    instance: dg.DagsterInstance, wanted: Mapping[str, Sequence[Source]], alike: Alike
) -> dg.DagsterRun | None:
    """Find the newest finished run of a DAG with the same parameters and partition that has all these outputs."""
    for run in _finished_runs(instance, alike, is_asset=_is_asset(wanted)):
        metadata = _metadata_of_chain(instance, run, wanted)
        if len(metadata) == sum(map(len, wanted.values())) and all(
            _params_of(each) == alike.params for each in metadata.values()
        ):
            return run
    return None


def returned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, wanted: Mapping[str, Sequence[Source]]
) -> dict[str, dict[str, Any]]:
    """Read the outputs that tasks returned in a run or in those it retries; leaves out tasks that returned none."""
    found = _metadata_of_chain(instance, run, wanted)
    missing = _without(found, wanted)
    return {
        task: _together([_values(found[source.step_key]) for source in sources])
        for task, sources in wanted.items()
        if task not in missing
    }


def _is_asset(wanted: Mapping[str, Sequence[Source]]) -> bool:
    return any(source.asset_key is not None for sources in wanted.values() for source in sources)


def _together(copies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(copies) == 1:
        return dict(copies[0])
    names = dict.fromkeys(name for values in copies for name in values)
    return {name: [values.get(name) for values in copies] for name in names}


def _stand_in(
    instance: dg.DagsterInstance, run: dg.DagsterRun, missing: Mapping[str, Sequence[Source]], alike: Alike
) -> dg.DagsterRun:
    """The run whose outputs a run of some tasks reads; found once, and written down on the run."""
    for each in chain(instance, run):
        named = each.tags.get(FROM_TAG)
        other = instance.get_run_by_id(named) if named else None
        if other is not None:
            return other
    first = next(iter(missing))
    planned = _planned(instance, run)
    if all(source.step_key in planned for sources in missing.values() for source in sources):
        raise BadOutputs(
            f"task {first!r} has returned no outputs in this run: it was skipped, or ended without any; "
            f"a condition can ask, `when: tasks.{first}.state == 'done'`"
        )
    other = find_run_alike(instance, missing, alike)
    if other is None:
        raise BadOutputs(no_run_alike(list(missing), alike))
    instance.add_run_tags(run.run_id, {FROM_TAG: other.run_id})
    # Another process of this run may have found a newer one at the same moment; what is written down holds.
    written = instance.get_run_by_id(run.run_id)
    named = written.tags.get(FROM_TAG, other.run_id) if written else other.run_id
    return instance.get_run_by_id(named) or other


def no_run_alike(tasks: Sequence[str], alike: Alike) -> str:
    """Say that no run can stand in, and what to do."""
    partition = f" and partition {alike.partition!r}" if alike.partition else ""
    names = ", ".join(map(repr, tasks))
    return (
        f"this run leaves out {names}, and no finished run of DAG {alike.dag!r} (of the newest {_SEARCHED_RUNS}) "
        f"with the same parameters{partition} has their outputs; run them too, or name a run with --outputs-from"
    )


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Keys of the steps that the run and those it retries were to execute."""
    return frozenset().union(*(_planned_here(instance, each) for each in chain(instance, run)))


def _planned_here(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Keys of the steps that one run was to execute."""
    snapshot = run.execution_plan_snapshot_id
    return frozenset(instance.get_execution_plan_snapshot(snapshot).step_keys_to_execute) if snapshot else frozenset()


def chain(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.DagsterRun]:
    """Yield a run, then the one it retries, and so on."""
    current: dg.DagsterRun | None = run
    while current is not None:
        yield current
        current = instance.get_run_by_id(current.parent_run_id) if current.parent_run_id else None


def _finished_runs(instance: dg.DagsterInstance, alike: Alike, *, is_asset: bool) -> Iterator[dg.DagsterRun]:
    """Yield the newest finished runs that may have made the outputs, the newest first."""
    tags = {PARTITION_TAG: alike.partition} if alike.partition else {}
    names = [alike.dag, _ASSET_JOB] if is_asset else [alike.dag]
    records = [
        record
        for name in names
        for record in _records(instance, dg.RunsFilter(job_name=name, statuses=_FINISHED, tags=tags))
    ]
    records.sort(key=lambda record: record.create_timestamp, reverse=True)
    for record in records:
        if record.dagster_run.tags.get(PARTITION_TAG) == alike.partition:
            yield record.dagster_run


def _records(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> list[dg.RunRecord]:
    return list(instance.get_run_records(wanted, limit=_SEARCHED_RUNS))


def _metadata_of_chain(
    instance: dg.DagsterInstance, run: dg.DagsterRun, wanted: Mapping[str, Sequence[Source]]
) -> dict[str, Mapping[str, Any]]:
    keys = {source.step_key for sources in wanted.values() for source in sources}
    found: dict[str, Mapping[str, Any]] = {}
    for each in chain(instance, run):
        known = _KNOWN.of_run(instance, each, keys - found.keys())
        found.update({key: known[key] for key in keys - found.keys() if key in known})
        if len(found) == len(keys):
            break
    return found


def _params_of(metadata: Mapping[str, Any]) -> str:
    value = metadata.get(PARAMS_KEY)
    return str(value.value) if value is not None else ""


@dataclass(slots=True)
class _RunEvents:
    """What has been read of one run's log."""

    cursor: str | None = None
    is_whole: bool = False
    """The run had ended when its log was read from the beginning: nothing can be missing."""
    planned: frozenset[str] | None = None
    """Steps of the run; read when one is missed for the first time."""
    by_step: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class _Known:
    """The outputs of the runs read last; of a run that goes on, only what is new is read again.

    Without it each of a thousand steps would read the events of all before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, _RunEvents] = OrderedDict()

    def of_run(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun, wanted: AbstractSet[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Metadata that carries outputs, by step key; `wanted` are the steps that must not be missed."""
        with self._lock:
            known = self._runs.setdefault(run.run_id, _RunEvents())
            self._runs.move_to_end(run.run_id)
            while len(self._runs) > _KEPT_RUNS:
                self._runs.popitem(last=False)
            known.is_whole = known.is_whole or (known.cursor is None and run.is_finished)
            self._read_on(instance, run.run_id, known)
            missed = wanted - known.by_step.keys()
            if missed and not known.is_whole and missed & self._planned(instance, run, known):
                # PostgreSQL may commit an event after one with a higher number, which was read already.
                known.cursor = None
                self._read_on(instance, run.run_id, known)
                known.is_whole = run.is_finished
            return dict(known.by_step)

    @staticmethod
    def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun, known: _RunEvents) -> frozenset[str]:
        """The run's steps: what it leaves out is not in its log, however often that is read."""
        if known.planned is None:
            known.planned = _planned_here(instance, run)
        return known.planned

    @staticmethod
    def _read_on(instance: dg.DagsterInstance, run_id: str, known: _RunEvents) -> None:
        has_more = True
        while has_more:
            page = instance.get_records_for_run(run_id, known.cursor, of_type=dg.DagsterEventType.STEP_OUTPUT)
            for record in page.records:
                event = record.event_log_entry.dagster_event
                if event is not None and METADATA_KEY in event.step_output_data.metadata:
                    known.by_step[event.step_key or ""] = event.step_output_data.metadata
            known.cursor, has_more = page.cursor, page.has_more


_KNOWN = _Known()
_LOCK = threading.Lock()
"""Steps of one run look for the run that stands in one after the other."""
