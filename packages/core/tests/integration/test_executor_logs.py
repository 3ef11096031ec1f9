"""What a step on a thread prints is kept under the step, and in the log of the process."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from tidemill_core.defs import threads_executor
from tidemill_core.defs._dagster import InMemoryJob, execute_run_iterator

LINES = 30


@dg.op
def left():
    _talk("left")


@dg.op
def right():
    _talk("right")


@dg.op
def silent():
    return None


@dg.job(executor_def=threads_executor)
def talking():
    left()
    right()
    silent()


def _talk(name: str) -> None:
    for number in range(LINES):
        print(f"{name} prints {number}")
        logging.getLogger("talking").warning("%s logs %d", name, number)


def test_each_step_keeps_what_it_prints_and_logs_and_nothing_of_the_other(tmp_path: Path) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("talking").addHandler(handler)
    logging.getLogger("talking").propagate = False  # another test may have given the root a handler
    try:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            run = instance.create_run_for_job(talking)
            events = list(execute_run_iterator(InMemoryJob(talking), run, instance))

            logs = {each.logs_captured_data.step_keys[0]: each.logs_captured_data for each in captured(events)}
            printed = {step: text_of(instance, run, data) for step, data in logs.items()}
    finally:
        logging.getLogger("talking").removeHandler(handler)
        logging.getLogger("talking").propagate = True

    for name in ("left", "right"):
        assert printed[name][0].splitlines() == [f"{name} prints {number}" for number in range(LINES)]
        assert logged(printed[name][1]) == [f"{name} logs {number}" for number in range(LINES)]
    # Dagster's console, which shows events here, writes to the process's stream and opens no log for a step.
    assert set(printed) == {"left", "right"}
    assert printed["left"][1].count("\n") == LINES


def logged(text: str) -> list[str]:
    return [line for line in text.splitlines() if " logs " in line]


def captured(events: list[Any]) -> list[Any]:
    return [each for each in events if each.event_type_value == "LOGS_CAPTURED" and each.logs_captured_data.step_keys]


def text_of(instance: dg.DagsterInstance, run: dg.DagsterRun, data: Any) -> list[str]:
    manager = instance.compute_log_manager
    key = manager.build_log_key_for_run(run.run_id, data.file_key)
    return [Path(manager.get_captured_local_path(key, end)).read_text() for end in ("out", "err")]
