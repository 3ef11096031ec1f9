"""Run the main job in this process and say what it made; the work behind `tidemill demo`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from tidemill_core.dag.report import RunView, State, exit_code
from tidemill_core.defs.dag.overlap import Turn, take_turn
from tidemill_core.defs.dag.runs import Watcher, follow, open_instance, own_tags, say
from tidemill_core.embedded import runtime
from tidemill_core.settings import Settings

JOB = "nyc_flights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One asset of a run."""

    asset: str
    rows: int | None
    seconds: float | None
    where: str
    did_work: bool
    """False when everything was there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """How a run of the main job ended."""

    run_id: str
    state: State
    """`canceled`: it was told to stop, which is not a failure."""
    exit_code: int
    """Of the command: 0, 1, 75 if it may succeed later, 130 if it was stopped."""
    seconds: float
    made: Sequence[Made]
    checks_passed: int
    checks_failed: Sequence[str]
    errors: Sequence[str]

    @property
    def succeeded(self) -> bool:
        """Whether every step and check of the run passed."""
        return self.state == "done"

    @property
    def did_work(self) -> bool:
        """Whether anything was fetched, sent, loaded, computed or copied."""
        return any(each.did_work for each in self.made)


def run_demo(settings: Settings, watcher: Watcher) -> Demo:
    """Execute the job on the instance of the home; embedded servers live as long as this process.

    Args:
        settings: Which servers; decides what is started here.
        watcher: Told what each step does.
    """
    began = time.monotonic()
    runtime.hold(settings)
    with open_instance() as instance:
        job = main_job()
        with take_turn(instance, Turn(dag=JOB, overlap="wait"), say=say):
            run = instance.create_run_for_job(job_def=job, tags=own_tags(job))
            ended = follow(job, run, instance, watcher, reload=(), loader=(__name__, main_job.__name__))
        return _report(instance, ended, time.monotonic() - began)


def main_job() -> dg.JobDefinition:
    """Build the job; worker processes of the `multiprocess` executor call it, too."""
    from tidemill_deploy.definitions import defs

    return defs.resolve_job_def(JOB)


def _report(instance: dg.DagsterInstance, ended: RunView, seconds: float) -> Demo:
    made: list[Made] = []
    passed, failed = 0, []
    for entry in instance.all_logs(ended.id):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_materialization:
            made.append(_made(event.step_materialization_data.materialization))
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.passed:
                passed += 1
            else:
                failed.append(f"{check.asset_key.to_user_string()}: {check.check_name}")
    errors = [f"{task.name}: {task.error}" for task in ended.tasks if task.state == "failed"]
    return Demo(
        run_id=ended.id,
        state=ended.state,
        exit_code=exit_code(ended),
        seconds=seconds,
        made=made,
        checks_passed=passed,
        checks_failed=failed,
        errors=[*errors, *([ended.error] if ended.error else [])],
    )


def _made(materialization: dg.AssetMaterialization) -> Made:
    facts: dict[str, Any] = {name: getattr(value, "value", value) for name, value in materialization.metadata.items()}
    where = facts.get("dagster/table_name") or facts.get("uri") or facts.get("where") or facts.get("page") or ""
    return Made(
        asset=materialization.asset_key.to_user_string(),
        rows=facts.get("dagster/row_count"),
        seconds=facts.get("seconds"),
        where=str(where),
        did_work=bool(facts.get("did_work", True)),
    )
