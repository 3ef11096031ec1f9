"""How the tasks before this one ended: `tasks.NAME.state`, `.exit_code` and `.tries` of conditions."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from tidemill_core.dag.template import TASK_STATES
from tidemill_core.defs.dag.status import TASK_TAG
from tidemill_core.defs.facts import EXIT_CODE

_KINDS = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_RESTARTED,
    dg.DagsterEventType.STEP_OUTPUT,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.ENGINE_EVENT,
}


@dataclass(slots=True)
class _Step:
    """What the event log says about one step."""

    state: str = "not run"
    exit_code: int | None = None
    tries: int = 0
    has_output: bool = False


def read_states(instance: dg.DagsterInstance, run_id: str, tasks: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Read the facts of tasks in a run; of those that a retry did not run again, in the run it retries.

    Args:
        instance: Where the run is recorded.
        run_id: The run.
        tasks: The copies (names of steps) of each task that is asked for.

    Returns:
        By task: `state`, `exit_code` (None if it has none) and `tries`. A task with copies is failed
        if one failed, skipped if all were, and has the first exit code that is not 0.
    """
    wanted = {copy for copies in tasks.values() for copy in copies}
    found: dict[str, list[_Step]] = {}
    run = instance.get_run_by_id(run_id)
    while run is not None:
        found.update(_of_run(instance, run, wanted - found.keys()))
        run = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return {
        task: _together([step for copy in copies for step in found.get(copy, [])]) for task, copies in tasks.items()
    }


def _of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, wanted: Collection[str]) -> dict[str, list[_Step]]:
    snapshot_id = run.execution_plan_snapshot_id
    plan = instance.get_execution_plan_snapshot(snapshot_id) if snapshot_id and wanted else None
    if plan is None:
        return {}
    names = {_plain(step.key): (step.tags or {}).get(TASK_TAG, "") for step in plan.steps}
    steps: dict[str, _Step] = {}
    for event in _events(instance, run.run_id):
        if names.get(_plain(event.step_key or "")) in wanted:
            _note(steps.setdefault(event.step_key or "", _Step()), event)
    found: dict[str, list[_Step]] = {}
    for key, step in steps.items():
        found.setdefault(names[_plain(key)], []).append(step)
    return found


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[Any]:
    for entry in instance.all_logs(run_id, of_type=_KINDS):
        if entry.dagster_event is not None:
            yield entry.dagster_event


def _plain(key: str) -> str:
    """Key of a step without its copy: ``d__load.copy[x]`` is in the plan as ``d__load.copy[?]``."""
    return key.partition("[")[0]


def _note(step: _Step, event: Any) -> None:
    kind = event.event_type_value
    if kind in ("STEP_START", "STEP_RESTARTED"):
        step.tries += 1
        step.state, step.exit_code = "running", None
    elif kind == "STEP_OUTPUT":
        step.has_output = True
    elif kind == "STEP_SUCCESS":
        step.state = "done" if step.has_output else "skipped"
    elif kind == "STEP_FAILURE":
        step.state = "failed"
    elif kind == "STEP_SKIPPED":
        step.state = "skipped"
    else:
        code = event.engine_event_data.metadata.get(EXIT_CODE)
        step.exit_code = step.exit_code if code is None else int(code.value)


def _together(steps: list[_Step]) -> dict[str, Any]:
    states = {step.state for step in steps} or {"not run"}
    # The worst state of the copies; `skipped` only if there is nothing better.
    state = next(each for each in TASK_STATES if each in states)
    codes = [step.exit_code for step in steps if step.exit_code is not None]
    tries = max((step.tries for step in steps), default=0)
    return {"state": state, "exit_code": next(iter(codes), 0 if state == "done" else None), "tries": tries}
