"""Metrics against a count by hand: random histories, written and read in random turns, on both storages."""

import itertools
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest
from dagster import DagsterEventType as Type
from dagster import EventLogEntry
from dagster._core.execution.plan.objects import StepFailureData, StepSuccessData
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tidemill_core.defs.home import PASSWORD_VARIABLE, prepare_home
from tidemill_core.defs.metrics import MetricsExporter, snapshot
from tidemill_core.settings import Settings

IDS = itertools.count()
ENDS = {"success": Type.RUN_SUCCESS, "failure": Type.RUN_FAILURE, "canceled": Type.RUN_CANCELED}
STEP_ENDS = {"success": Type.STEP_SUCCESS, "failure": Type.STEP_FAILURE, "skipped": Type.STEP_SKIPPED}


@dataclass(frozen=True)
class Step:
    """One step: how often it was tried again, how it ended (None: it has not), whether it made an output."""

    key: str
    retries: int
    end: str | None
    has_output: bool


@dataclass(frozen=True)
class Run:
    """One run; `ends` may be empty (it goes on) or have several (two parties say how it ended)."""

    job: str
    has_queued: bool
    has_started: bool
    steps: tuple[Step, ...]
    ends: tuple[str, ...]
    materializes: int
    id: str = ""

    def events(self) -> Iterator[tuple[Type, str | None]]:
        """What is written for the run, in order."""
        if self.has_queued:
            yield Type.RUN_ENQUEUED, None
            yield Type.RUN_STARTING, None
        if self.has_started:
            yield Type.RUN_START, None
        for step in self.steps:
            yield Type.STEP_START, step.key
            for _ in range(step.retries):
                yield Type.STEP_RESTARTED, step.key
            if step.has_output:
                yield Type.STEP_OUTPUT, step.key
            if step.end:
                yield STEP_ENDS[step.end], step.key
        for end in self.ends:
            yield ENDS[end], None


def data_of(kind: Type, step: str | None) -> object:
    """What Dagster insists that an event of this type carries."""
    if kind is Type.STEP_OUTPUT:
        return StepOutputData(step_output_handle=StepOutputHandle(str(step), "result"))
    if kind is Type.STEP_SUCCESS:
        return StepSuccessData(duration_ms=1.0)
    if kind is Type.STEP_FAILURE:
        return StepFailureData(error=None, user_failure_data=None)
    return None


STEPS = st.lists(
    st.builds(
        Step,
        key=st.sampled_from(["load", "load[a]", "load[b]", "nightly__check", "save"]),
        retries=st.integers(0, 2),
        end=st.sampled_from(["success", "failure", "skipped", None]),
        has_output=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda step: step.key,
).map(tuple)
RUNS = st.lists(
    st.builds(
        Run,
        job=st.sampled_from(["nightly", "hourly", "__ASSET_JOB"]),
        has_queued=st.booleans(),
        has_started=st.booleans(),
        steps=STEPS,
        ends=st.lists(st.sampled_from(list(ENDS)), max_size=2).map(tuple),
        materializes=st.integers(0, 2),
    ),
    min_size=1,
    max_size=5,
)


@dataclass
class World:
    """An instance to which runs are written event by event, those of several runs in turns."""

    instance: dg.DagsterInstance
    runs: list[Run]
    clock: float = field(default_factory=lambda: time.time() - 1000)

    def __post_init__(self) -> None:
        self.runs = [Run(**{**vars(run), "id": f"run-{next(IDS)}-{index}"}) for index, run in enumerate(self.runs)]
        self.left = {run.id: list(run.events()) for run in self.runs}

    def write(self, turn: int) -> bool:
        """Write the next event of some run; False if all is written."""
        open_runs = [run for run in self.runs if self.left[run.id]]
        if not open_runs:
            return False
        run = open_runs[turn % len(open_runs)]
        kind, step = self.left[run.id].pop(0)
        self.clock += 0.001
        event = dg.DagsterEvent(
            event_type_value=kind.value, job_name=run.job, step_key=step, event_specific_data=data_of(kind, step)
        )
        self.instance.event_log_storage.store_event(
            EventLogEntry(
                error_info=None,
                level=logging.INFO,
                user_message="",
                run_id=run.id,
                timestamp=self.clock,
                step_key=step,
                job_name=run.job,
                dagster_event=event,
            )
        )
        return True


def expected(runs: list[Run], *, steps_of_open_runs: bool) -> Counter[str]:
    """Count by hand."""
    found: Counter[str] = Counter()
    for run in runs:
        if run.job.startswith("__"):
            continue
        if run.ends:
            found[f'dagster_runs_total{{job="{run.job}",status="{run.ends[0]}"}}'] += 1
        if run.has_queued:
            found[f'dagster_queue_wait_seconds_count{{job="{run.job}"}}'] += 1
        if run.ends and run.has_started:
            found[f'dagster_run_duration_seconds_count{{job="{run.job}",status="{run.ends[0]}"}}'] += 1
        if not run.ends and not steps_of_open_runs:
            continue
        for step in run.steps:
            name = re.sub(r"\[.*\]", "", step.key)
            if step.retries:
                found[f'dagster_step_retries_total{{job="{run.job}",step="{name}"}}'] += step.retries
            if step.end:
                is_silent = step.end == "success" and not step.has_output and step.key.startswith(f"{run.job}__")
                status = "skipped" if is_silent else step.end
                found[f'dagster_steps_total{{job="{run.job}",status="{status}",step="{name}"}}'] += 1
                found[f'dagster_step_duration_seconds_count{{job="{run.job}",step="{name}"}}'] += 1
    return found


COUNTED = re.compile(
    r"^dagster_(runs|steps|step_retries)_total|^dagster_(run_duration|step_duration|queue_wait)_seconds_count"
)


def counted(exporter: MetricsExporter) -> Counter[str]:
    lines = exporter.scrape().decode().splitlines()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if COUNTED.match(line)}
    return Counter({name: int(value) for name, value in found.items() if value})


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def instance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    from tidemill_core.testing.postgres import fresh_database

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PASSWORD_VARIABLE, raising=False)
        home = tmp_path_factory.mktemp("home")
        if request.param == "sqlite":
            with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=home)))) as made:
                yield made
            return
        with fresh_database(request.getfixturevalue("postgres_admin_url")) as url:
            settings_ = Settings(home=home, dagster_postgres_url=SecretStr(url))
            with dg.DagsterInstance.from_config(str(prepare_home(settings_))) as made:
                yield made


def is_sqlite(instance: dg.DagsterInstance) -> bool:
    return "Sqlite" in type(instance.event_log_storage).__name__


FEW = settings(
    deadline=None,
    max_examples=8,
    phases=[Phase.generate],  # an example takes a second: it is not made smaller
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FEW
@given(runs=RUNS, turns=st.lists(st.integers(0, 9), min_size=1, max_size=80), looks=st.sets(st.integers(0, 60)))
def test_each_thing_is_counted_once_whenever_it_is_looked_at(
    instance: dg.DagsterInstance, runs: list[Run], turns: list[int], looks: set[int]
) -> None:
    instance.event_log_storage.wipe()
    world, exporter = World(instance, runs), MetricsExporter(instance, settle_s=0)

    for number, turn in enumerate(itertools.cycle(turns)):
        if number in looks:
            assert exporter.refresh(60)
        if not world.write(turn):
            break
    assert exporter.refresh(60)
    first = counted(exporter)
    assert exporter.refresh(60)

    assert expected(world.runs, steps_of_open_runs=not is_sqlite(instance)) == first
    assert first == counted(exporter)


@FEW
@given(runs=RUNS, turns=st.lists(st.integers(0, 9), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_an_exporter_that_was_restarted_counts_each_end_of_its_history_once(
    instance: dg.DagsterInstance, runs: list[Run], turns: list[int], cut: int
) -> None:
    """What the first one has seen, the second sees again: its history goes back behind its start."""
    instance.event_log_storage.wipe()
    world = World(instance, runs)
    for number, turn in enumerate(itertools.cycle(turns)):
        if number == cut:
            assert MetricsExporter(instance, settle_s=0).refresh(60)
        if not world.write(turn):
            break

    second = MetricsExporter(instance, settle_s=0)
    assert second.refresh(60)

    assert expected(world.runs, steps_of_open_runs=not is_sqlite(instance)) == counted(second)


def test_the_count_by_hand_finds_an_end_that_is_counted_twice(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    from tidemill_core.defs.metrics.events import EventFollower

    instance.event_log_storage.wipe()
    run = Run("nightly", has_queued=False, has_started=True, steps=(), ends=("failure", "canceled"), materializes=0)
    world, exporter = World(instance, [run]), MetricsExporter(instance, settle_s=0)
    while world.write(0):
        pass
    monkeypatch.setattr(EventFollower, "_has_ended_before", lambda _self, _event: False)

    exporter.refresh(60)

    assert expected(world.runs, steps_of_open_runs=True) != counted(exporter)


@dataclass(frozen=True)
class Tick:
    """A tick as the follower reads it."""

    tick_id: int
    timestamp: float
    status: snapshot.TickStatus


class Ticks:
    """Stands for an instance with one schedule; answers as `get_ticks` does: the newest first, bounds exclusive."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []

    def all_instigator_state(self) -> list:
        from types import SimpleNamespace

        return [
            SimpleNamespace(
                selector_id="s",
                instigator_origin_id="o",
                instigator_name="hourly",
                instigator_type=snapshot.InstigatorType.SCHEDULE,
            )
        ]

    def get_ticks(self, _origin, _selector, before=None, after=None, limit=None, statuses=None) -> list[Tick]:
        found = [
            tick
            for tick in self.ticks
            if (before is None or tick.timestamp < before)
            and (after is None or tick.timestamp > after)
            and tick.status in statuses
        ]
        return sorted(found, key=lambda tick: -tick.timestamp)[:limit]


@given(
    bursts=st.lists(st.integers(0, 350), min_size=1, max_size=4),
    per_moment=st.integers(1, 60),
    failing=st.sets(st.integers(0, 400)),
)
def test_every_tick_is_counted_once_however_many_came_at_once(
    bursts: list[int], per_moment: int, failing: set[int]
) -> None:
    from tidemill_core.defs.metrics.families import Families

    families, ticks = Families(100), Ticks()
    follower = snapshot.TickFollower(ticks, families, since=0.0)
    numbers = itertools.count(1)

    for burst in bursts:
        for _ in range(burst):
            number = next(numbers)
            status = snapshot.TickStatus.FAILURE if number in failing else snapshot.TickStatus.SUCCESS
            ticks.ticks.append(Tick(number, float(1 + number // per_moment), status))
        follower.follow()

    total = sum(bursts)
    wrong = len([number for number in failing if 1 <= number <= total])
    found = {
        sample.labels["status"]: int(sample.value)
        for sample in next(iter(families.ticks.family.collect())).samples
        if sample.name.endswith("_total")
    }
    assert {"success": total - wrong, "failure": wrong} == {"success": 0, "failure": 0, **found}
