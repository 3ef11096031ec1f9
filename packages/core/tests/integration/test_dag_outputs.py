"""Runs keep their own data: outputs are those of a run, with their type, and never of another run in silence."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import LoadedDag, load_dags
from tidemill_core.dag.report import RunView
from tidemill_core.defs.dag.jobs import compile_dag
from tidemill_core.defs.dag.outputs import FROM_TAG
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag
from tidemill_core.errors import ConfigError

PROGRAM = str(Path(sys.executable).with_name("tidemill"))
KINDS = pytest.mark.parametrize("kind", ["asset", "op"])
VALUES = {
    "day": date(2024, 2, 29),
    "at": datetime(2024, 2, 29, 12, tzinfo=UTC),
    "price": Decimal("1.10"),
    "raw": b"\x00\xff",
    "rows": [{"n": 1}, None],
}
SOURCE = """
import datetime
from decimal import Decimal

def make():
    return {VALUES!r}

def refuse():
    return {{"day": {{1, 2}}}}

def big():
    return {{"day": "x" * 300_000}}

def check(day, at, price, raw, rows):
    found = dict(day=day, at=at, price=price, raw=raw, rows=rows)
    assert found == {VALUES!r}, found
    assert [type(each) for each in found.values()] == [type(each) for each in {VALUES!r}.values()]

def days():
    return [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)]

def next_day(number):
    return datetime.date(2024, 1, number)

def check_days(days):
    assert days == [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)], days
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


@pytest.fixture(autouse=True)
def values_module(tmp_path: Path) -> None:
    (tmp_path / "typed_values.py").write_text(SOURCE.format(VALUES=VALUES))


def dag(folder: Path, text: str, *, name: str = "d") -> LoadedDag:
    (file := folder / f"{name}.yaml").write_text(text)
    return next(each for each in load_dags(file) if each.spec.name == name)


def start(found: LoadedDag, instance: dg.DagsterInstance, **request: Any) -> RunView:
    return start_dag(found, RunRequest(**request), instance)


def states(run: RunView) -> dict[str, str]:
    return {task.name: task.state for task in run.tasks}


def errors(run: RunView) -> str:
    return "\n".join(task.error for task in run.tasks)


TYPED = """
name: {name}
kind: {kind}
executor: {executor}
tasks:
  - {{name: make, call: "typed_values:make", outputs: [day, at, price, raw, rows]}}
  - name: check
    call: typed_values:check
    needs: [make]
    arguments: {{day: "${{outputs.make.day}}", at: "${{outputs.make.at}}", price: "${{outputs.make.price}}",
                raw: "${{outputs.make.raw}}", rows: "${{outputs.make.rows}}"}}
"""


@KINDS
@pytest.mark.parametrize("executor", ["threads", "in_process", "multiprocess"])
def test_outputs_arrive_with_their_type(instance: dg.DagsterInstance, tmp_path: Path, kind: str, executor: str) -> None:
    name = f"typed_{kind}_{executor}"
    found = dag(tmp_path, TYPED.format(name=name, kind=kind, executor=executor), name=name)

    run = start(found, instance)

    assert {"make": "done", "check": "done"} == states(run), errors(run)


def test_types_outlive_a_fan_out_and_another_dag(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    text = """
name: inner
tasks:
  - {name: list, run: 'echo "{\\"numbers\\": [1, 2]}" > $TIDEMILL_OUTPUTS', outputs: [numbers]}
  - name: each
    call: typed_values:next_day
    needs: [list]
    matrix: {number: "${outputs.list.numbers}"}
    arguments: {number: "${matrix.number}"}
    outputs: [day]
  - {name: check, call: "typed_values:check_days", needs: [each], arguments: {days: "${outputs.each.day}"}}
  - {name: last, call: "typed_values:days", outputs: [days]}
---
name: outer
tasks:
  - {name: inner, dag: inner, outputs: [days]}
  - {name: check, call: "typed_values:check_days", needs: [inner], arguments: {days: "${outputs.inner.days}"}}
"""
    (tmp_path / "outer.yaml").write_text(text)
    found = next(each for each in load_dags(tmp_path / "outer.yaml") if each.spec.name == "outer")

    run = start(found, instance)

    assert {"inner": "done", "check": "done"} == states(run), errors(run)


@KINDS
@pytest.mark.parametrize(
    ("call", "message"), [("refuse", r"output 'day' is a builtins\.set"), ("big", "output 'day' takes 293 KiB")]
)
def test_what_cannot_be_kept_fails_the_task_by_name_and_is_not_tried_again(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str, call: str, message: str
) -> None:
    text = f"name: bad_{call}_{kind}\nkind: {kind}\ntasks:\n"
    text += f"  - {{name: make, call: 'typed_values:{call}', outputs: [day], retry: {{count: 3, delay_s: 0}}}}\n"

    run = start(dag(tmp_path, text, name=f"bad_{call}_{kind}"), instance)

    (task,) = run.tasks
    assert ("failed", 1) == (task.state, task.tries)
    with pytest.raises(AssertionError, match=f"task 'make': {message}"):
        raise AssertionError(task.error)


@KINDS
def test_a_run_in_the_middle_of_another_one_does_not_leave_it_its_outputs(tmp_path: Path, kind: str) -> None:
    text = f"""
name: pair
kind: {kind}
overlap: allow
params: {{word: {{default: outer}}}}
tasks:
  - {{name: pick, run: "echo word=${{params.word}} > $TIDEMILL_OUTPUTS", outputs: [word]}}
  - name: inner
    needs: [pick]
    when: params.word == 'outer'
    run: [{PROGRAM}, dag, run, pair.yaml, -p, word=inner]
  - {{name: load, needs: [inner, pick], trigger: none_failed, run: "echo ${{outputs.pick.word}} > ${{params.word}}.txt"}}
"""
    (tmp_path / "pair.yaml").write_text(text)
    env = {**os.environ, "TIDEMILL_HOME": str(tmp_path / "home")}
    env.pop("DAGSTER_HOME", None)

    command = [PROGRAM, "dag", "run", "pair.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    assert 0 == done.returncode, done.stderr
    assert "inner\n" == (tmp_path / "inner.txt").read_text()
    assert "outer\n" == (tmp_path / "outer.txt").read_text()


CHOSEN = """
name: {name}
kind: {kind}
partitions: {partitions}
params: {{n: {{type: int, default: 1}}}}
tasks:
  - {{name: a, run: "echo v=$(cat now) > $TIDEMILL_OUTPUTS", outputs: [v]}}
  - {{name: b, run: "echo ${{outputs.a.v}} > b.txt; test ! -e fail", needs: [a]}}
"""


def chosen(folder: Path, kind: str, name: str, partitions: str = "null") -> LoadedDag:
    return dag(folder, CHOSEN.format(name=name, kind=kind, partitions=partitions), name=name)


@KINDS
def test_only_reads_the_newest_finished_run_of_the_same_parameters_and_says_which(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = chosen(tmp_path, kind, f"only_{kind}")
    (tmp_path / "now").write_text("one")
    first = start(found, instance)
    (tmp_path / "now").write_text("two")
    start(found, instance, params={"n": 2})

    again = start(found, instance, only=["b"])

    assert "one\n" == (tmp_path / "b.txt").read_text()
    assert f"those of run {first.id}" in capsys.readouterr().err
    run = instance.get_run_by_id(again.id)
    assert run is not None
    assert first.id == run.tags[FROM_TAG]
    with pytest.raises(ConfigError, match=r"no finished run of DAG .* with the same parameters"):
        start(found, instance, only=["b"], params={"n": 3})


@KINDS
def test_only_reads_the_run_of_its_partition(instance: dg.DagsterInstance, tmp_path: Path, kind: str) -> None:
    found = chosen(tmp_path, kind, f"parts_{kind}", "{type: static, keys: [x, y, z]}")
    for key in ("x", "y"):
        (tmp_path / "now").write_text(key)
        start(found, instance, partition=key)

    start(found, instance, only=["b"], partition="x")

    assert "x\n" == (tmp_path / "b.txt").read_text()
    with pytest.raises(ConfigError, match="partition 'z'"):
        start(found, instance, only=["b"], partition="z")


@KINDS
def test_outputs_from_names_the_run_and_wrong_ones_are_refused(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    found = chosen(tmp_path, kind, f"named_{kind}")
    (tmp_path / "now").write_text("one")
    first = start(found, instance, params={"n": 7})
    (tmp_path / "now").write_text("two")
    start(found, instance)
    other = start(
        dag(tmp_path, f"name: other_{kind}\ntasks: [{{name: a, run: 'true'}}]", name=f"other_{kind}"), instance
    )

    start(found, instance, only=["b"], outputs_from=first.id)

    assert "one\n" == (tmp_path / "b.txt").read_text()
    with pytest.raises(ConfigError, match="is one of"):
        start(found, instance, only=["b"], outputs_from=other.id)
    with pytest.raises(ConfigError, match="no such run"):
        start(found, instance, only=["b"], outputs_from="0000")
    with pytest.raises(ConfigError, match="has no meaning here"):
        start(found, instance, only=["a"], outputs_from=first.id)


@KINDS
def test_a_retry_reads_its_parent_although_a_newer_run_has_other_outputs(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    found = chosen(tmp_path, kind, f"retry_{kind}")
    (tmp_path / "now").write_text("one")
    (tmp_path / "fail").touch()
    failed = start(found, instance)
    (tmp_path / "fail").unlink()
    (tmp_path / "now").write_text("two")
    start(found, instance)

    retried = start(found, instance, retry_run=failed.id)

    assert "done" == retried.state
    assert "one\n" == (tmp_path / "b.txt").read_text()


@KINDS
def test_a_copy_run_alone_is_read_beside_the_older_ones(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    text = f"""
name: copies_{kind}
kind: {kind}
tasks:
  - {{name: a, matrix: {{m: [x, y]}}, run: "echo v=${{matrix.m}}$(cat now) > $TIDEMILL_OUTPUTS", outputs: [v]}}
  - {{name: b, run: "echo ${{outputs.a.v}} > b.txt", needs: [a]}}
"""
    found = dag(tmp_path, text, name=f"copies_{kind}")
    (tmp_path / "now").write_text("1")
    start(found, instance)
    (tmp_path / "now").write_text("2")

    start(found, instance, only=["a__y", "b"])

    assert '["x1", "y2"]\n' == (tmp_path / "b.txt").read_text()


@KINDS
def test_a_selection_in_the_ui_reads_one_finished_run_alike_or_fails(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    name = f"ui_{kind}"
    found = chosen(tmp_path, kind, name)
    job = compile_dag(found).definitions.resolve_job_def(name)
    alone: Mapping[str, Any] = (
        {"op_selection": [f"{name}__b"]} if kind == "op" else {"asset_selection": [dg.AssetKey([name, "b"])]}
    )

    failed = job.execute_in_process(instance=instance, raise_on_error=False, **alone)
    (tmp_path / "now").write_text("one")
    first = start(found, instance)
    (tmp_path / "now").write_text("two")
    start(found, instance, params={"n": 2})
    done = job.execute_in_process(instance=instance, **alone)

    assert not failed.success
    assert done.success
    assert "one\n" == (tmp_path / "b.txt").read_text()
    run = instance.get_run_by_id(done.run_id)
    assert run is not None
    assert first.id == run.tags[FROM_TAG]


@KINDS
def test_outputs_of_a_skipped_task_are_not_those_of_an_older_run(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    text = f"""
name: skipped_{kind}
kind: {kind}
params: {{is_on: {{type: bool, default: true}}}}
tasks:
  - {{name: a, run: "echo v=old > $TIDEMILL_OUTPUTS", outputs: [v], when: params.is_on}}
  - {{name: b, run: "echo ${{outputs.a.v}} > b.txt", needs: [a], trigger: none_failed}}
"""
    found = dag(tmp_path, text, name=f"skipped_{kind}")
    start(found, instance)
    (tmp_path / "b.txt").unlink()

    run = start(found, instance, params={"is_on": "false"})

    assert {"a": "skipped", "b": "failed"} == states(run)
    assert "was skipped" in errors(run)
    assert not (tmp_path / "b.txt").exists()


def test_parameters_are_variables_of_commands_and_words_of_shell_lines(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    text = """
name: words
params: {who: {default: you}, days: {type: list, default: []}, is_on: {type: bool, default: true}}
tasks:
  - name: a
    run: |
      printf '%s|' ${params.who} ${params.days} > words.txt
      printf '%s|' "$TIDEMILL_PARAM_WHO" "$TIDEMILL_PARAM_DAYS" "$TIDEMILL_PARAM_IS_ON" >> words.txt
"""
    found = dag(tmp_path, text, name="words")

    run = start(found, instance, params={"who": "a'b; touch never", "days": "mon,tue"})

    assert "done" == run.state, errors(run)
    listed = '["mon", "tue"]'
    assert f"a'b; touch never|{listed}|a'b; touch never|{listed}|true|" == (tmp_path / "words.txt").read_text()
    assert not (tmp_path / "never").exists()


def test_a_value_inside_quotes_that_needs_quoting_is_refused_before_a_run_exists(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    text = "name: quotes\nparams: {x: {default: fine}}\ntasks:\n  - name: a\n    run: sh -c 'echo ${params.x} > out'\n"
    found = dag(tmp_path, text, name="quotes")
    count = instance.get_runs_count()

    with pytest.raises(ConfigFaults, match=r"quotes\.yaml:5:10.*single quotes.*TIDEMILL_PARAM_X"):
        start(found, instance, params={"x": "$(touch never)"})

    assert count == instance.get_runs_count()
    assert "done" == start(found, instance, params={"x": "plain"}).state
    assert "plain\n" == (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "params: {x: {default: a b}}\ntasks:\n  - {name: a, run: \"echo '${params.x}'\"}",
            r":4:\d+.*'a b' needs quoting",
        ),
        ("tasks:\n  - {name: a, matrix: {m: [a, 'b c']}, run: \"echo '${matrix.m}'\"}", r":3:\d+.*'b c' needs quoting"),
        ("params: {x: {default: a}, X: {default: b}}\ntasks:\n  - {name: a, run: 'true'}", r":2:\d+.*TIDEMILL_PARAM_X"),
    ],
)
def test_values_known_from_the_file_are_refused_by_validation(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigFaults, match=message):
        dag(tmp_path, f"name: d\n{text}\n")


def test_an_output_inside_quotes_that_needs_quoting_fails_the_task_with_its_place(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    text = """
name: late
tasks:
  - {name: a, run: "echo 'v=a b' > $TIDEMILL_OUTPUTS", outputs: [v]}
  - name: b
    needs: [a]
    run: echo "${outputs.a.v}" > b.txt
"""
    run = start(dag(tmp_path, text, name="late"), instance)

    assert {"a": "done", "b": "failed"} == states(run)
    assert "late.yaml:7:" in errors(run)
    assert "double quotes" in errors(run)
