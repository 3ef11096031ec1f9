"""Random graphs end as a brute-force interpreter says, on every executor of ours, and none idles."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from executor_graphs import LIVE, Graph, Node, State, dump, graphs, interpret, job_of, threads
from hypothesis import HealthCheck, Phase, example, given, settings
from tidemill_core.defs._dagster import InMemoryJob, execute_run_iterator
from tidemill_core.defs.executor.run_engine import retry_plan
from tidemill_core.defs.executor.scheduler import Scheduler
from tidemill_core.defs.executor.threads import executor_by_name
from tidemill_core.defs.home import PASSWORD_VARIABLE, prepare_home
from tidemill_core.settings import Settings
from tidemill_core.testing.postgres import fresh_database

GRAPHS = int(os.environ.get("TIDEMILL_TEST_GRAPHS", "240"))
"""Graphs on threads with SQLite; a third as many more run in process, and again from failure."""
ON_POSTGRES = 50
ON_MULTIPROCESS = 20
LONGEST_S = 240.0
"""No graph here takes a second; one that takes this long idles."""
HERE = Path(__file__).parent
_STATES: dict[str, State] = {"STEP_SUCCESS": "success", "STEP_FAILURE": "failed", "STEP_SKIPPED": "skipped"}
_SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "derandomize": "TIDEMILL_TEST_SEED" not in os.environ,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("graphs"))) as instance:
        instance.event_log_storage.set_concurrency_slots("narrow", 1)
        yield instance


@pytest.fixture(scope="module")
def postgres(postgres_admin_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with pytest.MonkeyPatch.context() as patch, fresh_database(postgres_admin_url) as url:
        patch.setenv("TIDEMILL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TIDEMILL_DAGSTER_POSTGRES_URL", url)
        patch.setenv(PASSWORD_VARIABLE, urlsplit(url).password or "")
        with dg.DagsterInstance.from_config(str(prepare_home(Settings.from_env()))) as instance:
            instance.event_log_storage.set_concurrency_slots("narrow", 1)
            yield instance


def drive(job: Any, made: dg.DagsterRun, instance: dg.DagsterInstance) -> tuple[str, dict[str, State]]:
    """Run a job to its end; fails if it idles."""
    ended: dict[str, State] = {}
    twice: list[str] = []
    LIVE.faults.clear()

    def work() -> None:
        for event in execute_run_iterator(job, made, instance):
            if event.event_type_value in _STATES and event.step_key:
                twice.extend([event.step_key] if event.step_key in ended else [])
                ended[event.step_key] = _STATES[event.event_type_value]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    assert not thread.is_alive(), f"the run idles; ended so far: {ended}"
    assert not twice, f"ended twice: {twice}"
    assert not LIVE.faults
    status = instance.get_run_by_id(made.run_id).status.value
    assert status == "SUCCESS" or "Steps failed" in (said := failure_of(instance, made.run_id)) or "report" in said, (
        said
    )
    return status, ended


def run(graph: Graph, job: dg.JobDefinition, instance: dg.DagsterInstance) -> tuple[str, dict[str, State]]:
    whole = job.get_subset(op_selection=list(graph.subset)) if graph.subset else job
    return drive(InMemoryJob(whole), instance.create_run_for_job(whole), instance)


def check(allowed: dict[str, set[State]], status: str, ended: dict[str, State]) -> None:
    found = {key: ended.get(key, "held") for key in allowed}
    wrong = {key: (state, sorted(allowed[key])) for key, state in found.items() if state not in allowed[key]}
    assert not wrong, f"step: (state, wanted) {wrong}"
    assert set(ended) <= set(allowed), "a step ran that is not in the plan"
    assert status == ("FAILURE" if "failed" in found.values() else "SUCCESS")


FAN = Node(name="fan", kind="fan", copies=3)
EACH = Node(name="each", kind="mapped", over="fan")
KNOWN_FAULTS = [
    Graph(nodes=(FAN, EACH, Node(name="total", kind="collect", over="each"))),
    Graph(
        nodes=(
            Node(name="optional", outcome="no_output"),
            Node(name="broken", outcome="fail"),
            Node(name="behind", needs=("broken",)),
            Node(name="both", needs=("optional", "behind")),
        )
    ),
    Graph(nodes=(replace(FAN, copies=0), Node(name="total", kind="collect", over="fan"))),
    Graph(nodes=(replace(FAN, outcome="fail"), Node(name="total", kind="collect", over="fan", rule="all_done"))),
    Graph(
        nodes=(
            replace(FAN, outcome="fail"),
            Node(name="total", kind="collect", over="fan", rule="one_failed", outcome="retry_ok"),
        )
    ),
]
"""What was wrong once: a fan-out that is all that is left; behind a skip and a held step; ..."""


@settings(max_examples=GRAPHS, **_SETTINGS)
@example(graph=KNOWN_FAULTS[0])
@example(graph=KNOWN_FAULTS[1])
@example(graph=KNOWN_FAULTS[2])
@example(graph=KNOWN_FAULTS[3])
@example(graph=KNOWN_FAULTS[4])
@given(graph=graphs())
def test_every_graph_ends_on_threads_as_the_interpreter_says(sqlite: dg.DagsterInstance, graph: Graph) -> None:
    status, ended = run(graph, job_of(graph, threads(graph)), sqlite)

    check(interpret(graph), status, ended)


@settings(max_examples=GRAPHS // 4, **_SETTINGS)
@example(graph=KNOWN_FAULTS[0])
@example(graph=KNOWN_FAULTS[1])
@given(graph=graphs(by_outputs=False))
def test_every_graph_ends_in_process_as_the_interpreter_says(sqlite: dg.DagsterInstance, graph: Graph) -> None:
    status, ended = run(graph, job_of(graph, executor_by_name("in_process")), sqlite)

    check(interpret(graph), status, ended)


@settings(max_examples=GRAPHS // 4, **_SETTINGS)
@given(graph=graphs(by_outputs=False, rules=False, subsets=False))
def test_run_again_from_failure_runs_what_did_not_succeed_and_nothing_else(
    sqlite: dg.DagsterInstance, graph: Graph
) -> None:
    job = job_of(graph, threads(graph))
    parent = sqlite.create_run_for_job(job)
    status, _ = drive(InMemoryJob(job), parent, sqlite)
    if status == "SUCCESS":
        return
    before = interpret(graph)

    status, ended = drive(InMemoryJob(job), retry_plan(job, sqlite, parent, {}, {}), sqlite)

    after = interpret(replace(graph, is_again=True))
    wanted = {key: states for key, states in after.items() if not before.get(key, set()) & {"success", "skipped"}}
    check(wanted, status, ended)


@settings(max_examples=ON_POSTGRES, **_SETTINGS)
@given(graph=graphs())
def test_every_graph_ends_on_postgres_storage_as_the_interpreter_says(
    postgres: dg.DagsterInstance, graph: Graph
) -> None:
    status, ended = run(graph, job_of(graph, threads(graph)), postgres)

    check(interpret(graph), status, ended)


def test_threads_end_twenty_graphs_as_multiprocess_does(tmp_path: Path) -> None:
    """All twenty in one run: each worker process of `multiprocess` costs seconds of CPU."""
    whole = merged(ON_MULTIPROCESS)
    states = {}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for executor in ("threads", "multiprocess"):
            job = dg.build_reconstructable_job(
                "executor_graphs",
                "make",
                reconstructable_args=(dump(whole), executor),
                reconstructor_working_directory=str(HERE),
            )
            made = instance.create_run_for_job(job.get_definition())
            states[executor] = drive(job, made, instance)

    assert states["multiprocess"] == states["threads"]


def merged(count: int) -> Graph:
    """Put small random graphs beside each other, without what only our executors know."""
    found: list[Graph] = []

    @settings(max_examples=count * 4, **{**_SETTINGS, "phases": [Phase.generate]})
    @given(graph=graphs(rules=False, by_outputs=False, subsets=False, most=4))
    def collect(graph: Graph) -> None:
        found.append(graph)

    collect()
    chosen = random.Random(7).sample([graph for graph in found if len(graph.nodes) > 1], count)
    nodes = []
    for number, graph in enumerate(chosen):
        for node in graph.nodes:
            # Dagster keeps the output of the try that failed.
            outcome = "no_output" if node.outcome == "retry_drop" else node.outcome
            over = f"g{number}{node.over}" if node.over else None
            needs = tuple(f"g{number}{each}" for each in node.needs)
            nodes.append(
                replace(node, name=f"g{number}{node.name}", needs=needs, over=over, outcome=outcome, pool=False)
            )
    return Graph(nodes=tuple(nodes), max_concurrent=8)


def test_interpreter_finds_a_step_that_is_never_settled(
    sqlite: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: what follows a failed fan-out is forgotten, as Dagster's own bookkeeping does."""
    graph = KNOWN_FAULTS[3]
    monkeypatch.setattr(Scheduler, "_end_fan_out", lambda _self, _key: None)

    status, ended = run(graph, job_of(graph, threads(graph)), sqlite)

    with pytest.raises(AssertionError, match="total"):
        check(interpret(graph), status, ended)


def test_run_that_would_leave_steps_out_fails_and_names_them(
    sqlite: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = KNOWN_FAULTS[0]
    monkeypatch.setattr(Scheduler, "_resolve", lambda _self: None)

    status, _ = run(graph, job_of(graph, threads(graph)), sqlite)

    assert status == "FAILURE"
    assert "each[?], total" in failure_of(sqlite, sqlite.get_run_records(limit=1)[0].dagster_run.run_id)


@pytest.mark.parametrize("executor", ["threads", "in_process"])
def test_run_in_which_nothing_can_start_fails_within_a_second_and_names_the_steps(
    sqlite: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    graph = Graph(nodes=(Node(name="first"), Node(name="second", needs=("first",))))
    chosen = threads(graph) if executor == "threads" else executor_by_name(executor)
    monkeypatch.setattr(Scheduler, "_by_dagster", lambda _self, key: "wait" if key == "second" else "run")

    status, ended = run(graph, job_of(graph, chosen), sqlite)

    record = sqlite.get_run_records(limit=1)[0]
    assert (status, ended) == ("FAILURE", {"first": "success"})
    assert "no step can start, and some have not run: second" in failure_of(
        sqlite, sqlite.get_run_records(limit=1)[0].dagster_run.run_id
    )
    assert record.end_time - record.start_time < 6.0


def failure_of(instance: dg.DagsterInstance, run_id: str) -> str:
    entries = [each for each in instance.all_logs(run_id) if each.dagster_event]
    found = [each.dagster_event for each in entries if each.dagster_event.event_type_value == "PIPELINE_FAILURE"]
    return found[0].message + str(found[0].event_specific_data)
