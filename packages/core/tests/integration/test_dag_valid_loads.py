"""What validation accepts, Dagster loads: odd values from a generator, each file compiled when it is called valid."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.config import ConfigFaults
from tidemill_core.dag.cron import check_cron
from tidemill_core.dag.load import load_dags
from tidemill_core.defs import definitions_from_dags
from tidemill_core.defs.cron import is_valid_cron

ODD = [
    "a",
    "A",
    "a b",
    "",
    " ",
    "a/b",
    "/",
    "a//b",
    "a.b",
    "é",
    "my group!",
    "a" * 70,
    "${matrix.m}",
    "${params.p}",
    "-",
    "a-b",
    "a_b",
    "1",
]
WORDS = st.sampled_from(ODD)
JOBS = st.sampled_from(
    ["d", "import", "type", "config", "__x", "__ASSET_JOB", "d" * 100, "a__b", "None", "output", "D1"]
)
TAGS = st.dictionaries(
    st.sampled_from(["a", "a/b", "a/b/c", "a b", "", "dagster/priority", ".dagster/x", "dagster/concurrency_key", "é"]),
    st.sampled_from(["1", "-3", "high", "", "a b", "a" * 80, "${matrix.m}"]),
    max_size=2,
)
KEYS = WORDS | st.lists(WORDS, max_size=3)
DATES = ["2024-01-01", "2024-1-1", "01/02/2024", "2024-02-30", "2024-01-01-05:00", "", "2023-12-31"]
PARTITIONS = st.fixed_dictionaries(
    {"type": st.sampled_from(["daily", "weekly", "monthly", "hourly"]), "start": st.sampled_from(DATES)},
    optional={"end": st.sampled_from(DATES), "timezone": st.sampled_from(["UTC", "Europe/Paris", "Mars/Base"])},
) | st.fixed_dictionaries(
    {"type": st.just("static"), "keys": st.lists(st.sampled_from(["a", "b", "a...b", "c\n", ""]), max_size=3)}
)
NUMBERS = st.sampled_from([0, 1, -1, 1.5, 1e308, 10**12])
TASK_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "asset_key": KEYS,
    "deps": st.lists(KEYS | st.sampled_from(["d/a", "d/b", ["d", "a"]]), max_size=2),
    "group": WORDS,
    "pool": WORDS,
    "tags": TAGS,
    "kinds": st.lists(WORDS, max_size=4),
    "owners": st.lists(st.sampled_from(["a@b.io", "team:x", "team:", "nobody", "a@b", "", "x@y.z|"]), max_size=2),
    "matrix": st.sampled_from(
        [{"m": ["x", "y"]}, {"m": ["a b", "a_b"]}, {"m": []}, {"m": [1, 1]}, {"m": ["x/y", "z"]}]
    ),
    "timeout_s": NUMBERS,
    "retry": st.sampled_from([0, 3, 101, {"count": 2, "delay_s": 0}, {"count": 1, "delay_s": 1e12}]),
    "kind": st.sampled_from(["asset", "op"]),
    "trigger": st.sampled_from(["all_done", "one_failed", "always"]),
    "description": WORDS,
    "when": st.sampled_from(["true", "params.p == 'x'", "tasks.a.state == 'done'"]),
    "outputs": st.lists(st.sampled_from(["x", "y", "x y"]), max_size=2),
    "max_parallel": st.sampled_from([1, 0]),
}


def task(name: str, *, needs: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    optional = TASK_OPTIONS | {"needs": st.just(list(needs))}
    return st.fixed_dictionaries({"name": st.just(name), "run": st.just("true")}, optional=optional).map(
        # One odd thing at a time finds more than ten that hide each other.
        lambda value: dict(list(value.items())[:5])
    )


CRONS = st.sampled_from(
    ["@daily", "0 0 31 2 1", "0 0 * * mon#1", "0 22 * * fri-mon", "a", "", "0 0 31 4 *", "0 0 * * ?", "* * * * * *"]
)
DAGS = st.fixed_dictionaries(
    {"name": JOBS | st.just("d"), "tasks": st.tuples(task("a"), task("b", needs=("a",))).map(list)},
    optional={
        "kind": st.sampled_from(["asset", "op"]),
        "params": st.sampled_from([{"p": {"default": "x"}}, {"p": {"type": "list", "default": []}}, {"p": {"type": "date", "default": "2024-01-01"}}, {"p": {}}]),
        "partitions": PARTITIONS,
        "schedule": st.fixed_dictionaries({"cron": CRONS}),
        "tags": TAGS,
        "timeout_s": NUMBERS,
        "max_concurrent": st.sampled_from([1, 1000, 0]),
        "defaults": st.fixed_dictionaries({}, optional={"pool": WORDS, "tags": TAGS, "timeout_s": NUMBERS}),
        "tag_limits": st.lists(st.fixed_dictionaries({"key": WORDS, "limit": st.sampled_from([0, 1])}), max_size=1),
        "overlap": st.sampled_from(["wait", "skip", "allow"]),
    },
)  # fmt: skip
SEEN: Counter[str] = Counter()


def load_all(path: Path) -> None:
    """Do what a code location does with the files, and what a run does before its first step."""
    found = load_dags(path)
    definitions = definitions_from_dags(path)
    dg.Definitions.validate_loadable(definitions)
    for each in found:
        job = definitions.resolve_job_def(each.spec.name)
        assert job.name == each.spec.name


@settings(max_examples=800, suppress_health_check=list(HealthCheck))
@given(found=DAGS)
def test_what_is_called_valid_loads(tmp_path_factory: pytest.TempPathFactory, found: dict[str, Any]) -> None:
    file = tmp_path_factory.mktemp("dags") / "d.yaml"
    file.write_text(json.dumps(found))
    try:
        load_dags(file)
    except ConfigFaults as wrong:
        SEEN["refused"] += 1
        places = [fault.place.line for fault in wrong.faults]
    else:
        places = []
        load_all(file)
        SEEN["loaded"] += 1

    assert all(places)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(first=DAGS, second=DAGS)
def test_two_files_that_are_called_valid_load_together(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, Any], second: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "a.yaml").write_text(json.dumps(first))
    (folder / "b.yaml").write_text(json.dumps(second))
    try:
        load_dags(folder)
    except ConfigFaults:
        return

    load_all(folder)


def test_the_generator_makes_both_files_that_load_and_files_that_do_not() -> None:
    """The negative control of the tests above, which run before in this file."""
    if not SEEN:
        pytest.skip("the tests above were not run in this process")
    assert min(SEEN["loaded"], SEEN["refused"]) > 20, SEEN


FIELDS = st.sampled_from(
    ["*", "0", "5", "1-5", "5-1", "*/2", "*/0", "1,3", "l", "L", "?", "mon", "fri-mon", "mon#1", "mon#6", "L5", "60", "", "jan", "feb", "2", "30", "31", "a", "W", "1/2", "0/15", "-1", "7", "12", "13", "sun-sat"]
)  # fmt: skip
LINES = st.lists(FIELDS, min_size=4, max_size=6).map(" ".join) | st.sampled_from(
    ["@daily", "@hourly", "@weekly", "@monthly", "@yearly", "@annually", "@midnight", "@reboot", "@Daily", " @daily", "", "daily"]
)  # fmt: skip


@settings(max_examples=1500)
@given(LINES)
def test_a_cron_line_is_judged_as_the_scheduler_judges_it(line: str) -> None:
    try:
        check_cron(line)
        is_taken = True
    except ValueError:
        is_taken = False

    assert is_valid_cron(line) is is_taken
