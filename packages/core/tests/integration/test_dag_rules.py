"""Trigger rules and conditions on how earlier tasks ended, in real runs and against an oracle."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import DagSpec, LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.report import RunView
from tidemill_core.defs.dag.jobs import compile_dag
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag
from tidemill_core.errors import ConfigError

WORK = {
    "done": {"run": "true"},
    "failed": {"run": "exit 1"},
    "skipped": {"run": "true", "when": "false"},
}
RULES = [
    "all_success",
    "all_done",
    "one_failed",
    "one_success",
    "none_failed",
    "none_failed_min_one_success",
    "always",
]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def dag(*tasks: Mapping, name: str = "d", **rest) -> LoadedDag:
    return loaded_dag(DagSpec.model_validate({"name": name, "tasks": list(tasks), **rest}))


def start(found: LoadedDag, instance: dg.DagsterInstance, **request) -> RunView:
    return start_dag(found, RunRequest(**request), instance)


def states(run: RunView) -> dict[str, str]:
    return {task.name: task.state for task in run.tasks}


def expected(rule: str, ended: Sequence[str]) -> str:
    """The rules in the words of their documentation, written again from Airflow's; the oracle."""
    failed, done = ended.count("failed"), ended.count("done")
    table: Mapping[str, Callable[[], str]] = {
        "all_success": lambda: "skipped" if "skipped" in ended else "not run" if failed else "done",
        "all_done": lambda: "done",
        "always": lambda: "done",
        "one_failed": lambda: "done" if failed else "skipped",
        "one_success": lambda: "done" if done else "not run" if failed else "skipped",
        "none_failed": lambda: "not run" if failed else "done",
        "none_failed_min_one_success": lambda: "not run" if failed else "done" if done else "skipped",
    }
    return table[rule]()


@pytest.mark.parametrize("kind", ["asset", "op"])
@pytest.mark.parametrize("executor", ["threads", "in_process"])
def test_every_rule_meets_every_combination_of_two_ends(instance: dg.DagsterInstance, kind: str, executor: str) -> None:
    ends = list(itertools.combinations_with_replacement(WORK, 2))
    tasks: list[dict] = []
    wanted: dict[str, str] = {}
    for index, pair in enumerate(ends):
        names = [f"n{index}_{place}" for place in range(2)]
        tasks += [{"name": name, **WORK[end]} for name, end in zip(names, pair, strict=True)]
        for rule in RULES:
            tasks.append({"name": f"j{index}_{rule}", "run": "true", "needs": names, "trigger": rule})
            wanted[f"j{index}_{rule}"] = expected(rule, pair)

    run = start(dag(*tasks, kind=kind, name=f"rules_{kind}_{executor}", executor=executor), instance)

    found = states(run)
    assert wanted == {name: found[name] for name in wanted}


def test_join_after_exclusive_branches_needs_one_word(instance: dg.DagsterInstance) -> None:
    def tasks(trigger: str) -> list[dict]:
        return [
            {"name": "full", "run": "true", "when": "params.full"},
            {"name": "part", "run": "true", "when": "not params.full"},
            {"name": "join", "run": "true", "needs": ["full", "part"], "trigger": trigger},
        ]

    params = {"full": {"type": "bool", "default": True}}
    joined = start(dag(*tasks("none_failed"), params=params, name="joined"), instance)
    plain = start(dag(*tasks("all_success"), params=params, name="plain"), instance)

    assert {"full": "done", "part": "skipped", "join": "done"} == states(joined)
    assert "skipped" == states(plain)["join"]


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_condition_reads_how_earlier_tasks_ended(instance: dg.DagsterInstance, kind: str) -> None:
    retry = {"count": 1, "delay_s": 0, "jitter": "none"}
    watch = {"run": "true", "needs": ["good", "bad", "busy", "off", "later"], "trigger": "all_done"}
    conditions = {
        "a": "tasks.good.state == 'done' and tasks.good.exit_code == 0 and tasks.good.tries == 1",
        "b": "tasks.bad.state == 'failed' and tasks.bad.exit_code == 4",
        "c": "tasks.busy.exit_code == 75 and tasks.busy.tries == 2",
        "d": "tasks.off.state == 'skipped' and tasks.off.tries == 1",
        "e": "tasks.later.state == 'not run' and tasks.later.tries == 0",
        "f": "tasks.bad.exit_code in [1, 2, 3]",
    }

    run = start(
        dag(
            {"name": "good", "run": "true"},
            {"name": "bad", "run": "exit 4"},
            {"name": "busy", "run": "exit 75", "retry": retry},
            {"name": "off", "run": "true", "when": "false"},
            {"name": "later", "run": "true", "needs": ["bad"]},
            *({"name": name, "when": text, **watch} for name, text in conditions.items()),
            kind=kind,
            name=f"facts_{kind}",
        ),
        instance,
    )

    found = states(run)
    assert dict.fromkeys("abcde", "done") | {"f": "skipped"} == {name: found[name] for name in conditions}


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_condition_reads_how_a_fan_out_ended_as_one_task(instance: dg.DagsterInstance, kind: str) -> None:
    listing = {"name": "list", "run": """echo '{"items": [0, 4]}' > $TIDEMILL_OUTPUTS""", "outputs": ["items"]}
    each = {"run": ["sh", "-c", "exit $1", "-", "${matrix.i}"], "needs": ["list"]}
    watch = {"run": "true", "needs": ["each", "fine", "fixed"], "trigger": "all_done"}
    conditions = {
        "a": "tasks.each.state == 'failed' and tasks.each.exit_code == 4 and tasks.each.tries == 1",
        "b": "tasks.fine.state == 'done' and tasks.fine.exit_code == 0",
        "c": "tasks.fixed.state == 'failed' and tasks.fixed.exit_code == 7",
    }

    run = start(
        dag(
            listing,
            {"name": "each", "matrix": {"i": "${outputs.list.items}"}, **each},
            {"name": "fine", "matrix": {"i": "${outputs.list.items}"}, **each, "run": "true"},
            {"name": "fixed", "matrix": {"i": [0, 7]}, **each},
            *({"name": name, "when": text, **watch} for name, text in conditions.items()),
            kind=kind,
            name=f"fan_facts_{kind}",
        ),
        instance,
    )

    found = states(run)
    assert dict.fromkeys("abc", "done") == {name: found[name] for name in conditions}


def test_condition_of_a_retried_run_reads_what_the_first_run_did(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    found = dag(
        {"name": "first", "run": "true"},
        {"name": "second", "run": f"test -f {tmp_path}/fixed", "needs": ["first"]},
        {"name": "third", "run": "true", "needs": ["second"], "when": "tasks.first.state == 'done'"},
        name="retried_facts",
    )
    failed = start(found, instance)
    (tmp_path / "fixed").touch()

    again = start(found, instance, retry_run=failed.id)

    assert {"second": "done", "third": "done"} == states(again)


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("{name: b, run: x, needs: [a], trigger: none_faild}", "none_failed"),
        ("{name: b, run: x, needs: [a], when: tasks.a.stat == 'done'}", "did you mean 'state'"),
        ("{name: b, run: x, needs: [a], when: tasks.aa.state == 'done'}", "did you mean 'a'"),
        ("{name: b, run: x, when: tasks.a.state == 'done'}", "add 'a' to needs"),
        ("{name: b, run: x, needs: [a], when: tasks.a.state == 'faild'}", "did you mean 'failed'"),
        ("{name: b, run: x, needs: [a], when: \"tasks.a.state in ['success']\"}", "no state of a task"),
        ("{name: b, run: 'echo ${tasks.a.state}', needs: [a]}", "only in `when`"),
    ],
)
def test_wrong_rules_and_facts_are_named_at_their_line(tmp_path: Path, task: str, fault: str) -> None:
    (tmp_path / "d.yaml").write_text(f"name: d\ntasks:\n  - {{name: a, run: x}}\n  - {task}\n")

    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path)

    assert {4} == {each.place.line for each in caught.value.faults}
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("task", "executor", "fault"),
    [
        ({"trigger": "all_done", "needs": ["list"]}, "celery", "trigger of b needs the threads executor"),
        ({"matrix": {"i": "${outputs.list.items}"}, "needs": ["list"], "max_parallel": 2}, "celery", "no max_parallel"),
    ],
)
def test_what_an_executor_cannot_do_is_refused(task: dict, executor: str, fault: str) -> None:
    found = dag({"name": "list", "run": "x", "outputs": ["items"]}, {"name": "b", "run": "x", **task})

    with pytest.raises(ConfigError, match=fault):
        compile_dag(found, executor=executor)
