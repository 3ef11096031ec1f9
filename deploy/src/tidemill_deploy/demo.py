"""Run the main job in this process and say what it made; the work behind `tidemill demo`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from tidemill_core.defs.dag.runs import Watcher, open_instance
from tidemill_core.defs.executor.run_engine import execute_events, quiet_logs, task_state
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
    state: Literal["done", "failed", "canceled"]
    """`canceled`: it was told to stop, which is not a failure."""
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
        run = instance.create_run_for_job(job_def=job)
        watcher.begin(run.run_id, JOB, [node.name for node in job.nodes_in_topological_order])
        with quiet_logs(instance):
            for event in execute_events(job, run, instance, (), loader=(__name__, main_job.__name__)):
                state = task_state(event)
                if state and event.step_key:
                    watcher.task(event.step_key, state)
        return _report(instance, run.run_id, time.monotonic() - began)


def main_job() -> dg.JobDefinition:
    """Build the job; worker processes of the `multiprocess` executor call it, too."""
    from tidemill_deploy.definitions import defs

    return defs.resolve_job_def(JOB)


def _report(instance: dg.DagsterInstance, run_id: str, seconds: float) -> Demo:
    made: list[Made] = []
    passed, failed, errors = 0, [], []
    for entry in instance.all_logs(run_id):
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
        elif event.is_step_failure and event.step_failure_data.error:
            errors.append(f"{event.step_key}: {_cause(event.step_failure_data.error)}")
    state = _state(instance, run_id)
    return Demo(
        run_id=run_id,
        state=state,
        seconds=seconds,
        made=made,
        checks_passed=passed,
        checks_failed=failed,
        # What a stop interrupted did not fail: it goes on when the job is run again.
        errors=[] if state == "canceled" else errors,
    )


def _state(instance: dg.DagsterInstance, run_id: str) -> Literal["done", "failed", "canceled"]:
    run = instance.get_run_by_id(run_id)
    if run is not None and run.status == dg.DagsterRunStatus.SUCCESS:
        return "done"
    if run is not None and run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
        return "canceled"
    return "failed"


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


def _cause(error: object) -> str:
    """Find the innermost message of a serialized error."""
    while getattr(error, "cause", None) is not None:
        error = error.cause  # type: ignore[attr-defined]
    return str(getattr(error, "message", error)).strip().splitlines()[0]
