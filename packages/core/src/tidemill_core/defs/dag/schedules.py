"""Make Dagster's schedule of a DAG's: cron lines, partitions, missed ticks, and a run that goes on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import dagster as dg

from tidemill_core.dag.spec import DagSpec, ScheduleSpec
from tidemill_core.defs._dagster import schedule_execution_time_iterator
from tidemill_core.defs.dag.overlap import running

TICK_TAG = "tidemill/scheduled"
"""On a run: the time for which its schedule started it."""
CATCH_UP_RUNS = 100
"""Missed times that are made up for, the newest ones."""


def schedule_definition(
    spec: DagSpec, wanted: ScheduleSpec, job: Any, partitions: dg.PartitionsDefinition[str] | None
) -> dg.ScheduleDefinition:
    """Compile the schedule of a DAG."""

    def requests(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time
        others = running(context.instance, spec.name) if spec.overlap in ("skip", "refuse") else []
        if others:
            yield dg.SkipReason(f"run {others[0].run_id} goes on, and the overlap of {spec.name} is {spec.overlap}")
            return
        times = _missed(context.instance, spec, wanted, now) if wanted.catch_up else [now]
        if wanted.catch_up is False and _is_missed(wanted, now):
            yield dg.SkipReason("missed: a later time has come, too, and catch_up is off")
            return
        found = [request for time in times for request in _requests(time, partitions)]
        yield from found
        if not found:
            yield dg.SkipReason("no partition is complete yet")

    return dg.ScheduleDefinition(
        name=schedule_name(spec.name),
        job=job,
        cron_schedule=wanted.cron if isinstance(wanted.cron, str) else list(wanted.cron),
        execution_timezone=wanted.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if wanted.enabled else dg.DefaultScheduleStatus.STOPPED,
        execution_fn=requests,
    )


def schedule_name(dag: str) -> str:
    """Name of a DAG's schedule."""
    return f"{dag}_schedule"


def times_after(wanted: ScheduleSpec, start: datetime) -> Iterator[datetime]:
    """Yield the times of a schedule that come after `start`, without end."""
    cron = wanted.cron if isinstance(wanted.cron, str) else list(wanted.cron)
    for time in schedule_execution_time_iterator(start.timestamp(), cron, wanted.timezone):
        if time.timestamp() > start.timestamp():
            yield time


def _is_missed(wanted: ScheduleSpec, time: datetime) -> bool:
    return next(times_after(wanted, time)).timestamp() <= datetime.now(time.tzinfo).timestamp()


def _missed(instance: dg.DagsterInstance, spec: DagSpec, wanted: ScheduleSpec, now: datetime) -> Sequence[datetime]:
    """List the times since the last run that the schedule started; only `now` if it never did."""
    tags = {"dagster/schedule_name": schedule_name(spec.name)}
    last = [run.tags.get(TICK_TAG) for run in instance.get_runs(dg.RunsFilter(tags=tags), limit=1)]
    if not last or last[0] is None:
        return [now]
    found: list[datetime] = []
    for time in times_after(wanted, datetime.fromisoformat(last[0])):
        if time.timestamp() > now.timestamp():
            break
        found.append(time)
    return list(islice(found, max(0, len(found) - CATCH_UP_RUNS), None)) or [now]


def _requests(time: datetime, partitions: dg.PartitionsDefinition[str] | None) -> Iterator[dg.RunRequest]:
    """Ask for the runs of one time; the run key keeps a time from being served twice."""
    tick = time.isoformat()
    if partitions is None:
        yield dg.RunRequest(run_key=tick, tags={TICK_TAG: tick})
    elif isinstance(partitions, dg.StaticPartitionsDefinition):
        for key in partitions.get_partition_keys():
            yield dg.RunRequest(run_key=f"{tick} {key}", partition_key=key, tags={TICK_TAG: tick})
    else:
        with dg.partition_loading_context(effective_dt=time):
            last = partitions.get_last_partition_key()
        if last:
            yield dg.RunRequest(run_key=f"{tick} {last}", partition_key=last, tags={TICK_TAG: tick})
