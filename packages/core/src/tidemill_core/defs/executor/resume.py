"""Which steps a retry still has to run: Dagster's answer, and the copies of a fan-out that it forgets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from tidemill_core.defs._dagster import KnownExecutionState, create_execution_plan

_ENDED = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_SKIPPED}


def steps_to_resume(
    target: Any, instance: dg.DagsterInstance, parent: dg.DagsterRun, config: Mapping[str, Any]
) -> tuple[Sequence[str], KnownExecutionState]:
    """List the steps that did not succeed in a run, and what is known of those that did.

    Dagster (1.13.27) takes a fan-out for begun as a whole once one copy has started: copies that
    were still waiting when the process died would never run.
    """
    keys, known = KnownExecutionState.build_resume_retry_reexecution(instance, parent)
    if not known.dynamic_mappings:
        return keys, known
    plan = create_execution_plan(target, config, known_state=known)
    copies = [step.key for step in plan.get_steps_to_execute_in_topo_order() if "[" in step.key]
    ended = set(_ended(instance, parent))
    return [*keys, *(key for key in copies if key not in ended and key not in keys)], known


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun | None) -> Iterator[str]:
    """Yield the steps that succeeded or were skipped in a run, or in one that it retries."""
    while run is not None:
        for entry in instance.all_logs(run.run_id, of_type=_ENDED):
            if entry.step_key:
                yield entry.step_key
        run = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
