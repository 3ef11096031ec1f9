"""What the instance looks like now: the queue, pools, daemons, ticks and the age of assets."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus

from tidemill_core.defs._dagster import (
    IN_PROGRESS_RUN_STATUSES,
    InstigatorState,
    InstigatorType,
    RunsFilter,
    TickStatus,
)
from tidemill_core.defs.metrics.events import is_hidden
from tidemill_core.defs.metrics.families import OTHER, Families

ACTIVE = (*IN_PROGRESS_RUN_STATUSES, DagsterRunStatus.QUEUED)
MAX_RUNS = 200
"""Active runs that are named by job; the queue's depth counts all."""
MAX_POOLS = 200
MAX_INSTIGATORS = 500
_TICK_PAGE = 100
_OVERLAP_S = 120.0
_ENDED_TICKS = [TickStatus.SKIPPED, TickStatus.SUCCESS, TickStatus.FAILURE]
_KINDS = {
    InstigatorType.SCHEDULE: "schedule",
    InstigatorType.SENSOR: "sensor",
    InstigatorType.AUTO_MATERIALIZE: "automation",
}


def queue(instance: dg.DagsterInstance, families: Families) -> None:
    """Count what runs and what waits; one query while fewer than `MAX_RUNS` are active."""
    active = instance.get_run_records(RunsFilter(statuses=list(ACTIVE)), limit=MAX_RUNS)
    waiting = [each for each in active if each.dagster_run.status is DagsterRunStatus.QUEUED]
    depth = len(waiting)
    if len(active) == MAX_RUNS:
        queued = RunsFilter(statuses=[DagsterRunStatus.QUEUED])
        depth = instance.get_runs_count(queued)
        waiting = list(instance.get_run_records(queued, limit=1, ascending=True))
    oldest = min((each.create_timestamp.timestamp() for each in waiting), default=None)
    families.queue_depth.set(depth)
    families.queue_oldest.set(0.0 if oldest is None else max(0.0, time.time() - oldest))
    counts = Counter(
        (each.dagster_run.job_name, each.dagster_run.status.value.lower())
        for each in active
        if not is_hidden(each.dagster_run.job_name)
    )
    families.runs_active.keep(counts)
    for series, count in counts.items():
        families.runs_active.at(*series).set(count)


def pools(instance: dg.DagsterInstance, families: Families) -> None:
    """Count the slots of pools."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    names = sorted(each.name for each in storage.get_pool_limits())[:MAX_POOLS]
    for name, info in _concurrency(storage, names).items():
        families.pool_slots.at(name).set(info.slot_count if info.limit is None else info.limit)
        families.pool_used.at(name).set(info.active_slot_count)
        families.pool_pending.at(name).set(info.pending_step_count)
    for family in (families.pool_slots, families.pool_used, families.pool_pending):
        family.keep((name,) for name in names)


def _concurrency(storage: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """Read the use of pools: in one query where this Dagster has it, else one for each."""
    if hasattr(storage, "get_concurrency_infos"):
        return dict(storage.get_concurrency_infos(names))
    return {name: storage.get_concurrency_info(name) for name in names}


def daemons(instance: dg.DagsterInstance, families: Families) -> None:
    """Tell how the daemons are; those that never ran have no heartbeat age."""
    now = time.time()
    for name, status in instance.get_daemon_statuses().items():
        families.daemon_healthy.at(name).set(float(bool(status.healthy)))
        if status.last_heartbeat is not None:
            families.daemon_age.at(name).set(max(0.0, now - status.last_heartbeat.timestamp))


class TickFollower:
    """Counts the ticks of schedules and sensors as they end.

    Args:
        instance: What is followed.
        families: Where it is counted.
        since: Begin with the ticks after this time (seconds since the epoch).
    """

    def __init__(self, instance: dg.DagsterInstance, families: Families, *, since: float) -> None:
        self.instance, self.families = instance, families
        self._since = since
        self._after: dict[str, float] = {}
        self._counted: dict[str, dict[int, float]] = {}

    def follow(self) -> None:
        """Read the new ticks of every schedule and sensor."""
        for state in self.instance.all_instigator_state()[:MAX_INSTIGATORS]:
            self._instigator(state)

    def _instigator(self, state: InstigatorState) -> None:
        """Count ticks not counted yet; a tick that is still open is met again in the overlap."""
        key = state.selector_id
        after, counted = self._after.get(key, self._since), self._counted.setdefault(key, {})
        for tick in self._ended_since(state, after):
            if tick.tick_id not in counted:
                counted[tick.tick_id] = tick.timestamp
                kind = _KINDS.get(state.instigator_type, OTHER)
                self.families.ticks.at(kind, state.instigator_name, tick.status.value.lower()).inc()
        self._after[key] = after = max(after, max(counted.values(), default=0.0) - _OVERLAP_S)
        self._counted[key] = {tick: moment for tick, moment in counted.items() if moment > after - 1}

    def _ended_since(self, state: InstigatorState, after: float) -> Iterator[Any]:
        """Read all ticks that ended after a moment, the newest first, a page at a time."""
        seen: set[int] = set()
        before: float | None = None
        while True:
            page = self.instance.get_ticks(
                state.instigator_origin_id,
                state.selector_id,
                before=before,
                after=after,
                limit=_TICK_PAGE,
                statuses=_ENDED_TICKS,
            )
            new = [tick for tick in page if tick.tick_id not in seen]
            yield from new
            if len(page) < _TICK_PAGE or not new:
                return
            seen.update(tick.tick_id for tick in new)
            # A little later than the oldest: others of the same moment may be on the next page.
            before = min(tick.timestamp for tick in page) + 1e-3


def last_materialized(instance: dg.DagsterInstance) -> dict[str, float]:
    """Read when each asset was last materialized; one query, for the start."""
    found = {}
    for record in instance.get_asset_records():
        last = record.asset_entry.last_materialization_record
        if last is not None:
            found[record.asset_entry.asset_key.to_user_string()] = last.timestamp
    return found


def ages(families: Families, materialized: dict[str, float]) -> None:
    """Tell how old each asset is now."""
    now = time.time()
    for name, moment in materialized.items():
        families.asset_age.at(name).set(max(0.0, now - moment))
