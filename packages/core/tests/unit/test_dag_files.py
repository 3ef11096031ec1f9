"""DAG files: what is read, and every fault of every document at its line."""

import json
import re
from pathlib import Path

import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import DagSpec, load_dags, loaded_dag
from tidemill_core.dag.drawing import html, mermaid
from tidemill_core.dag.expand import steps
from tidemill_core.dag.schema import json_schema
from tidemill_core.errors import ConfigError

GOOD = """
name: good
params: {n: {type: int, default: 1}}
tasks:
  - {name: a, run: "true", outputs: [x]}
  - {name: b, call: "json:dumps", needs: [a], arguments: {obj: "${outputs.a.x}"}}
"""


def faults_of(tmp_path: Path, text: str, name: str = "dag.yaml") -> list[str]:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigFaults) as caught:
        load_dags(file)
    return [f"{fault.place.line}: {fault.message}" for fault in caught.value.faults]


def dag_of(*tasks: str, head: str = "") -> str:
    return f"name: d\n{head}tasks:\n" + "".join(f"  - {task}\n" for task in tasks)


def test_good_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)

    dags = load_dags(file)

    assert ["good"] == [dag.spec.name for dag in dags]
    assert ["a", "b"] == [task.name for task in dags[0].spec.tasks]


def test_json_holds_the_same_schema(tmp_path: Path) -> None:
    (tmp_path / "dag.json").write_text(json.dumps({"name": "j", "tasks": [{"name": "a", "run": ["echo", "hi"]}]}))

    assert ("echo", "hi") == load_dags(tmp_path / "dag.json")[0].spec.tasks[0].run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (dag_of("{name: a, runn: x}"), "3: unknown key; did you mean 'run'?"),
        (
            dag_of("{name: a, run: x}", "{name: b, run: x, needs: [aa]}"),
            "4: needs unknown task 'aa'; did you mean 'a'?",
        ),
        (
            dag_of("{name: a, run: x, needs: [b]}", "{name: b, run: x, needs: [c]}", "{name: c, run: x, needs: [a]}"),
            "circle: a -> b -> c -> a",
        ),
        (dag_of("{name: a, run: x, needs: [a]}"), "circle: a -> a"),
        (dag_of("{name: a, run: x}", "{name: a, run: y}"), "4: task 'a' is there already"),
        (dag_of("{name: a}"), "3: task 'a' must have exactly one of run, call, use, dag; found none"),
        (dag_of("{name: a, run: x, call: 'json:dumps'}"), "found run and call"),
        (dag_of("{name: a, run: x, arguments: {b: 1}}"), "goes only with call"),
        (dag_of("{name: a, run: x}", head="schedule: {cron: '0 25 * * *'}\n"), "2: bad cron hour '25': 0..23"),
        (dag_of("{name: a, run: x}", head="schedule: {cron: '0 0 30 2 *'}\n"), "would never run"),
        (dag_of("{name: a, run: x}", head="schedule: {cron: '@daily', timezone: Mars/Base}\n"), "unknown time zone"),
        (dag_of("{name: a, call: 'json:dmps'}"), "module 'json' has no 'dmps'; did you mean 'dumps'?"),
        (dag_of("{name: a, call: 'no_such_module:f'}"), "there is no module 'no_such_module'"),
        (dag_of("{name: a, call: 'json:dumps', arguments: {objj: 1}}"), "the callable needs obj"),
        (dag_of("{name: a, use: tidemill_core.NoSuchComponent}"), "has no component type 'NoSuchComponent'"),
        (
            dag_of("{name: a, run: x}", head="params: {n: {type: int, default: many}}\n"),
            "2: the default 'many' is not of type int",
        ),
        (dag_of("{name: a, run: 'echo ${params.m}'}", head="params: {n: {default: x}}\n"), "unknown parameter 'm'"),
        (dag_of("{name: a, run: 'echo ${parms.m}'}"), "'parms' is not known; did you mean 'params'?"),
        (dag_of("{name: a, run: x, outputs: [r]}", "{name: b, run: 'echo ${outputs.a.r}'}"), "add 'a' to needs"),
        (dag_of("{name: a, run: x}", "{name: b, run: 'echo ${outputs.a.r}', needs: [a]}"), "declares no output 'r'"),
        (dag_of("{name: a, run: x, when: 'import os'}"), "bad condition"),
        (dag_of("{name: a, run: x, when: 'f(params.n)'}"), "not allowed"),
        (dag_of("{name: a, run: x, trigger: all_done}"), "no meaning without needs"),
        (
            dag_of(
                "{name: a, run: x}",
                "{name: b, run: x, needs: [a], trigger: one_failed}",
                head="executor: multiprocess\n",
            ),
            "needs the threads executor",
        ),
        (dag_of("{name: a, run: x, matrix: {m: []}}"), "the list is empty"),
        (dag_of("{name: a, run: x, matrix: {m: ['a b', 'a-b']}}"), "two copies would have the name 'a__a_b'"),
        (dag_of("{name: a, run: x, matrix: {m: [1, 2]}, asset_key: raw/x}"), "put ${matrix.name} into the key"),
        (
            dag_of("{name: a, run: x, asset_key: r/x}", "{name: b, run: x, asset_key: [r, x]}"),
            "is made by task 'a' already",
        ),
        (
            dag_of("{name: a, run: x}", "{name: b, run: x, asset_key: d/a}"),
            "4: asset 'd/a' is made by task 'a' already",
        ),
        (
            dag_of("{name: a, run: x, matrix: {m: [x, y]}}", "{name: b, run: x, asset_key: d/a__y}"),
            "'d/a__y' is made by",
        ),
        (dag_of("{name: a, run: x, deps: [d/a]}"), "reads an asset that it makes itself"),
        (
            dag_of("{name: a, run: x, deps: [d/b]}", "{name: b, run: x, needs: [a]}"),
            "circle, by needs and deps: a -> b -> a",
        ),
        (
            dag_of("{name: a, run: x}", head="partitions: {type: daily, start: '01/02/2024'}\n"),
            "2: '01/02/2024' is no time",
        ),
        (
            dag_of("{name: a, run: x}", head="partitions: {type: daily, start: '2024-02-01', end: '2024-01-01'}\n"),
            "must be after the start",
        ),
        (dag_of("{name: a, run: x}", head="partitions: {type: static, keys: [a, a]}\n"), "'a' is there twice"),
        (dag_of("{name: a, run: x, pool: a b}"), "3: 'a b' is no pool"),
        (dag_of("{name: a, run: x, group: 'my group!'}"), "3: 'my group!' is no group"),
        (dag_of("{name: a, run: x, owners: [nobody]}"), "3: 'nobody' is no owner"),
        (dag_of("{name: a, run: x, tags: {dagster/priority: high}}"), "'high' is no whole number"),
        (
            dag_of("{name: a, run: x, pool: '${params.n}'}", head="params: {n: {default: x}}\n"),
            "only ${matrix.name} is",
        ),
        (dag_of("{name: a, run: x, matrix: {m: [a, b c]}, pool: 'p${matrix.m}'}"), "for a__b_c: 'pb c' is no pool"),
        (dag_of("{name: a, run: x, timeout_s: .inf}"), "finite number"),
        ("name: import\ntasks: [{name: a, run: x}]\n", "1: 'import' is a word that Dagster or Python keeps"),
        ("# nothing here\n", "the file is empty"),
        (dag_of("{name: a, run: x, retry: -1}"), "greater than or equal to 0"),
        (dag_of("{name: 'a b', run: x}"), "3: String should match pattern"),
        (
            dag_of("{name: a, use: tidemill_core.DagComponent, with: {name: '${run.id}'}}"),
            "known only when the task runs",
        ),
        (
            dag_of("{name: a, use: tidemill_core.DagComponent}", head="kind: op\n"),
            "cannot be a task of a DAG of kind op",
        ),
        ("name: d\ntasks: []\n", "2: a DAG needs at least one task"),
        ("- 1\n", "a DAG is a mapping"),
    ],
)
def test_fault_is_named_at_its_line(tmp_path: Path, text: str, expected: str) -> None:
    found = faults_of(tmp_path, text)

    assert any(expected in each for each in found), found


def test_faults_of_every_document_are_named_together(tmp_path: Path) -> None:
    broken = "name: d{n}\ntasks:\n  - {{name: a, runn: x}}\n  - {{name: b, run: x, needs: [zz]}}\n"
    text = "---\n".join(broken.format(n=n) for n in range(3))

    found = faults_of(tmp_path, text)

    assert [3, 3, 4, 8, 8, 9, 13, 13, 14] == [int(each.partition(":")[0]) for each in found]


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_typo_in_any_one_document_is_found(tmp_path: Path, wrong: int) -> None:
    documents = [f"name: d{n}\ntasks:\n  - {{name: a, {'rnu' if n == wrong else 'run'}: x}}\n" for n in range(3)]

    found = faults_of(tmp_path, "---\n".join(documents))

    assert any(each.startswith(f"{wrong * 4 + 3}: unknown key") for each in found)


def test_faults_of_every_file_of_a_folder_are_named_together(tmp_path: Path) -> None:
    for name in ("one.yaml", "sub/two.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dag_of("{name: a}"))
    (tmp_path / "_part.yaml").write_text("not: a dag")

    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path)

    assert {"one.yaml", "two.yaml"} == {Path(fault.place.file).name for fault in caught.value.faults}


def test_two_dags_of_one_name_are_refused(tmp_path: Path) -> None:
    found = faults_of(tmp_path, dag_of("{name: a, run: x}") + "---\n" + dag_of("{name: a, run: x}"))

    assert len(found) == 1
    assert "DAG 'd' is there already" in found[0]


def test_folder_without_dag_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no DAG file"):
        load_dags(tmp_path)


def test_included_tasks_and_params_come_first(tmp_path: Path) -> None:
    (tmp_path / "_common.yaml").write_text("params: {n: {default: x}}\ntasks: [{name: setup, run: 'true'}]\n")
    (tmp_path / "dag.yaml").write_text(
        dag_of("{name: a, run: 'echo ${params.n}', needs: [setup]}", head="include: [_common.yaml]\n")
    )

    spec = load_dags(tmp_path)[0].spec

    assert ["setup", "a"] == [task.name for task in spec.tasks]
    assert ["n"] == list(spec.params)


def test_fault_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "_common.yaml").write_text("\ntasks: [{name: setup, rnu: 'true'}]\n")
    (tmp_path / "dag.yaml").write_text(dag_of("{name: a, run: x}", head="include: [_common.yaml]\n"))

    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path)

    assert {("_common.yaml", 2)} == {(Path(each.place.file).name, each.place.line) for each in caught.value.faults}


def test_missing_include_is_named(tmp_path: Path) -> None:
    found = faults_of(tmp_path, dag_of("{name: a, run: x}", head="include: [nowhere.yaml]\n"))

    assert any("nowhere.yaml is wrong" in each for each in found)


def test_callable_beside_the_file_is_found_and_its_arguments_are_checked(tmp_path: Path) -> None:
    (tmp_path / "my_steps_module.py").write_text("raise RuntimeError('imported')\ndef f(a: int, *, b: str = ''): ...\n")
    bad = dag_of(
        "{name: x, call: 'my_steps_module:f', arguments: {a: text, c: 1}}", "{name: y, call: 'my_steps_module:f'}"
    )

    found = faults_of(tmp_path, bad)

    assert any("the callable wants int, this is str" in each for each in found)
    assert any("the callable takes no 'c'" in each for each in found)
    assert any("the callable needs a" in each for each in found)


def test_a_misspelt_callable_is_found_whatever_texts_and_local_names_its_module_has(tmp_path: Path) -> None:
    (tmp_path / "wordy.py").write_text(
        "NAMES = {'laod': 'text'}\n\ndef load():\n    laod = 1\n    return laod\n\nclass Loader:\n    def laod(self): ...\n"
    )
    (tmp_path / "lazy_words.py").write_text("NAMES = ['load']\n\ndef __getattr__(name):\n    return print\n")
    (tmp_path / "d.yaml").write_text(dag_of("{name: a, call: 'wordy:laod'}"))
    (tmp_path / "e.yaml").write_text(dag_of("{name: a, call: 'lazy_words:anything'}"))

    with pytest.raises(ConfigFaults, match="module 'wordy' has no 'laod'; did you mean 'load'"):
        load_dags(tmp_path / "d.yaml")
    assert load_dags(tmp_path / "e.yaml")


def test_an_asset_or_a_step_of_two_dags_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\ntasks: [{name: b__c, run: x}, {name: d, run: x, asset_key: raw/x}]\n")
    (tmp_path / "b.yaml").write_text("name: a__b\ntasks: [{name: c, run: x}, {name: e, run: x, asset_key: raw/x}]\n")

    with pytest.raises(ConfigFaults) as refused:
        load_dags(tmp_path)

    told = str(refused.value)
    assert "b.yaml:2" in told
    assert "asset 'raw/x' is made by DAG 'a' already" in told
    assert "its step 'a__b__c' is also one of DAG 'a'" in told


def test_dag_made_in_python_is_checked_alike() -> None:
    spec = DagSpec.model_validate({"name": "p", "tasks": [{"name": "a", "run": "x", "needs": ["b"]}]})

    with pytest.raises(ConfigFaults, match="needs unknown task 'b'"):
        loaded_dag(spec)


def test_matrix_makes_a_step_per_combination_with_its_values_filled_in() -> None:
    task = {
        "name": "t",
        "run": "get ${matrix.a} ${matrix.b}",
        "matrix": {"a": ["x", "y"], "b": [1, 2]},
        "when": "matrix.b > 1",
    }
    spec = DagSpec.model_validate({"name": "m", "tasks": [task, {"name": "end", "run": "x", "needs": ["t"]}]})

    found = steps(spec)

    assert ["t__x_1", "t__x_2", "t__y_1", "t__y_2", "end"] == [step.name for step in found]
    assert ["get x 1", "get x 2", "get y 1", "get y 2", "x"] == [step.task.run for step in found]
    assert "2 > 1" == found[1].task.when
    assert found[4].needs == ("t__x_1", "t__x_2", "t__y_1", "t__y_2")


def test_defaults_fill_what_a_task_leaves_open() -> None:
    spec = DagSpec.model_validate(
        {
            "name": "d",
            "defaults": {"retry": 2, "pool": "p", "tags": {"a": "1", "b": "1"}, "env": {"X": "1"}},
            "tasks": [{"name": "a", "run": "x", "tags": {"b": "2"}, "retry": 0}, {"name": "b", "run": "x"}],
        }
    )

    first, second = steps(spec)

    assert ("p", {"a": "1", "b": "2"}, 0) == (first.task.pool, first.task.tags, first.retry.count)
    assert second.retry.count == 2


def test_drawings_name_every_step_and_edge() -> None:
    tasks = [{"name": "a", "run": "x"}, {"name": "b", "run": "y < 1", "needs": ["a"]}]
    every = steps(DagSpec.model_validate({"name": "d", "tasks": tasks}))

    text, page = mermaid(every), html("d", "about <it>", every)

    assert "t0 --> t1" in text
    assert "y &lt; 1" in page
    assert "about &lt;it&gt;" in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org/2000/svg)", page)


def test_published_json_schema_is_the_schema() -> None:
    published = Path(__file__).parents[4] / "docs/reference/dag.schema.json"

    assert json.loads(published.read_text()) == json_schema()
