"""`threads` records what `in_process` and `multiprocess` record, in the same partial order."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pytest
from tidemill_core.defs.home import PASSWORD_VARIABLE, prepare_home
from tidemill_core.settings import Settings

HERE = Path(__file__).parent
EXECUTORS = ("in_process", "threads", "multiprocess")
STEP_EVENTS = {
    "STEP_START",
    "STEP_INPUT",
    "STEP_OUTPUT",
    "STEP_SUCCESS",
    "STEP_FAILURE",
    "STEP_SKIPPED",
    "STEP_UP_FOR_RETRY",
    "STEP_RESTARTED",
    "HANDLED_OUTPUT",
    "LOADED_INPUT",
}
EDGES = [
    ("first", "left"),
    ("first", "right"),
    ("left", "both"),
    ("right", "both"),
    ("first", "broken"),
    ("choose", "on_yes"),
    ("fan_out", "each[a]"),
    ("fan_out", "each[b]"),
    ("each[a]", "collect"),
    ("each[b]", "collect"),
]


def job_of(graph: str, executor: str):
    return dg.build_reconstructable_job(
        "executor_jobs", "make", reconstructable_args=(graph, executor), reconstructor_working_directory=str(HERE)
    )


def events_of(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, str]]:
    entries = instance.all_logs(run_id)
    return [
        (entry.step_key, entry.dagster_event.event_type_value)
        for entry in entries
        if entry.dagster_event and entry.dagster_event.event_type_value in STEP_EVENTS
    ]


def by_step(events: list[tuple[str, str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for step, kind in events:
        found[step].append(kind)
    return dict(found)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    found = {}
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as instance:
        instance.event_log_storage.set_concurrency_slots("narrow", 1)
        for executor in EXECUTORS:
            result = dg.execute_job(job_of("everything", executor), instance)
            status = instance.get_run_by_id(result.run_id).status.value
            found[executor] = status, events_of(instance, result.run_id)
    return found


@pytest.mark.parametrize("executor", EXECUTORS)
def test_run_fails_because_one_step_does(recorded, executor) -> None:
    status, events = recorded[executor]

    assert status == "FAILURE"
    assert [step for step, kind in events if kind == "STEP_FAILURE"] == ["broken"]


@pytest.mark.parametrize("executor", ["threads", "multiprocess"])
def test_every_step_records_the_same_events_as_in_process(recorded, executor) -> None:
    expected, found = by_step(recorded["in_process"][1]), by_step(recorded[executor][1])

    assert expected == found


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_step_starts_before_what_it_needs_has_succeeded(recorded, executor) -> None:
    events = recorded[executor][1]

    for before, after in EDGES:
        assert events.index((before, "STEP_SUCCESS")) < events.index((after, "STEP_START")), (before, after)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_retried_skipped_and_abandoned_steps_end_alike(recorded, executor) -> None:
    found = by_step(recorded[executor][1])

    assert found["second_try"][:2] == ["STEP_START", "STEP_UP_FOR_RETRY"]
    assert found["second_try"][-1] == "STEP_SUCCESS"
    assert found["on_no"] == ["STEP_SKIPPED"]
    assert "after_broken" not in found


@pytest.mark.parametrize("executor", EXECUTORS)
def test_steps_of_a_pool_with_one_slot_never_overlap(recorded, executor) -> None:
    events = [
        each
        for each in recorded[executor][1]
        if each[0].startswith("narrow") and each[1] in ("STEP_START", "STEP_SUCCESS")
    ]

    assert [kind for _, kind in events] == ["STEP_START", "STEP_SUCCESS"] * 2
    assert events[0][0] == events[1][0]


RUN_ENDLESS = """
import sys, dagster as dg
from dagster._core.execution.api import execute_run_iterator
from test_executor_equality import job_of
if __name__ == "__main__":
    executor, folder = sys.argv[1:]
    with dg.DagsterInstance.get() as instance:
        job = job_of("endless", executor)
        config = {"ops": {"wait_for_ever": {"config": {"folder": folder}}}}
        run = instance.create_run_for_job(job.get_definition(), run_config=config)
        for event in execute_run_iterator(job, run, instance):
            if event.event_type_value == "ENGINE_EVENT" and "termination" in (event.message or ""):
                instance.report_run_canceling(run)
            if event.is_step_failure:
                instance.report_run_canceling(run)
"""


def wait_for(path: Path, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("executor", ["threads", "multiprocess"])
def test_interrupt_fails_the_running_step_and_cancels_the_run(tmp_path: Path, executor: str) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(HERE)}
    process = subprocess.Popen([sys.executable, "-c", RUN_ENDLESS, executor, str(tmp_path)], env=environment)
    wait_for(tmp_path / "started")

    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.get_runs()[0]
        assert run.status == dg.DagsterRunStatus.CANCELED
        assert [kind for _, kind in events_of(instance, run.run_id)] == ["STEP_START", "STEP_FAILURE"]


@pytest.fixture
def postgres_instance(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_DAGSTER_POSTGRES_URL", postgres_url)
    monkeypatch.setenv(PASSWORD_VARIABLE, urlsplit(postgres_url).password or "")
    with dg.DagsterInstance.from_config(str(prepare_home(Settings.from_env()))) as instance:
        yield instance


def test_threads_record_the_same_on_postgres_storage(recorded, postgres_instance: dg.DagsterInstance) -> None:
    postgres_instance.event_log_storage.set_concurrency_slots("narrow", 1)

    result = dg.execute_job(job_of("everything", "threads"), postgres_instance)

    assert by_step(events_of(postgres_instance, result.run_id)) == by_step(recorded["in_process"][1])
