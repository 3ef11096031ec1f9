"""Schedules of DAG files: several cron lines, missed ticks, and a run that still goes on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import DagSpec, LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.spec import ScheduleSpec
from tidemill_core.defs import definitions_from_dags
from tidemill_core.defs.dag.schedules import TICK_TAG, times_after

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def hourly(*, catch_up: bool | None = None, **rest: object) -> LoadedDag:
    schedule = {"cron": "0 * * * *", "catch_up": catch_up}
    return loaded_dag(
        DagSpec.model_validate({"name": "d", "tasks": [{"name": "a", "run": "true"}], "schedule": schedule, **rest})
    )


def tick(found: LoadedDag, instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """Evaluate the schedule and list the times, and partitions, of the runs that it asks for."""
    defs = definitions_from_dags(found)
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=now, repository_def=defs.get_repository_def()
    )
    requests = defs.resolve_schedule_def("d_schedule").evaluate_tick(context).run_requests or []
    return [request.partition_key or request.tags[TICK_TAG] for request in requests]


def has_run(found: LoadedDag, instance: dg.DagsterInstance, at: datetime, **options: object) -> None:
    job = definitions_from_dags(found).resolve_job_def("d")
    tags = {"dagster/schedule_name": "d_schedule", TICK_TAG: at.isoformat()}
    instance.create_run_for_job(job, tags=tags, **options)


def test_several_cron_lines_fire_at_each_time_that_one_of_them_names() -> None:
    wanted = ScheduleSpec(cron=("0 6 * * *", "30 18 * * *"))

    times = times_after(wanted, NOON)

    found = [next(times) for _ in range(3)]
    assert [
        NOON.replace(hour=18, minute=30),
        NOON.replace(day=11, hour=6),
        NOON.replace(day=11, hour=18, minute=30),
    ] == found


@pytest.mark.parametrize(
    ("lines", "fault"),
    [("['0 6 * * *', '0 6 * *']", "4 found"), ("['0 6 * * *', '0 6 * * *']", "twice"), ("[]", "at least 1")],
)
def test_wrong_cron_line_among_several_is_named_at_its_place(tmp_path: Path, lines: str, fault: str) -> None:
    (tmp_path / "d.yaml").write_text(f"name: d\nschedule:\n  cron: {lines}\ntasks: [{{name: a, run: 'true'}}]\n")

    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path)

    assert [3] == [each.place.line for each in caught.value.faults]
    assert fault in str(caught.value)


@pytest.mark.parametrize(("catch_up", "hours"), [(True, [10, 11, 12]), (None, [12])])
def test_missed_times_are_made_up_for_when_the_file_says_so(
    instance: dg.DagsterInstance, catch_up: bool | None, hours: list[int]
) -> None:
    found = hourly(catch_up=catch_up)
    has_run(found, instance, NOON.replace(hour=9))

    times = tick(found, instance, NOON)

    assert [NOON.replace(hour=hour).isoformat() for hour in hours] == times


def test_catch_up_keeps_to_the_newest_hundred(instance: dg.DagsterInstance) -> None:
    found = hourly(catch_up=True)
    has_run(found, instance, NOON - timedelta(hours=500))

    times = tick(found, instance, NOON)

    assert (100, NOON.isoformat()) == (len(times), times[-1])


def test_catch_up_makes_up_for_each_partition(instance: dg.DagsterInstance) -> None:
    found = hourly(catch_up=True, partitions={"type": "hourly", "start": "2026-01-01-00:00"})
    has_run(found, instance, NOON.replace(hour=10))

    keys = tick(found, instance, NOON)

    assert ["2026-01-10-10:00", "2026-01-10-11:00"] == keys


def test_time_that_is_not_the_newest_is_left_out_when_catch_up_is_off(instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    assert [] == tick(hourly(catch_up=False), instance, now - timedelta(hours=3))
    assert [now.isoformat()] == tick(hourly(catch_up=False), instance, now)


@pytest.mark.parametrize(("overlap", "runs"), [("skip", 0), ("refuse", 0), ("wait", 1), ("allow", 1)])
def test_schedule_starts_nothing_beside_a_run_that_goes_on(
    instance: dg.DagsterInstance, overlap: str, runs: int
) -> None:
    found = hourly(overlap=overlap)
    has_run(found, instance, NOON - timedelta(hours=1), status=dg.DagsterRunStatus.STARTED)

    assert runs == len(tick(found, instance, NOON))
