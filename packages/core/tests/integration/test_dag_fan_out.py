"""Fan-out over an earlier task's output: copies, collected lists, limits, retries of single copies."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import DagSpec, LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.report import RunView
from tidemill_core.defs import definitions_from_dags
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import log_lines, start_dag


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def dag(*tasks: dict, name: str = "d", **rest) -> LoadedDag:
    return loaded_dag(DagSpec.model_validate({"name": name, "tasks": list(tasks), **rest}))


def start(found: LoadedDag, instance: dg.DagsterInstance, **request) -> RunView:
    return start_dag(found, RunRequest(**request), instance)


def states(run: RunView) -> dict[str, str]:
    return {task.name: task.state for task in run.tasks}


def listing(values: object) -> dict:
    return {
        "name": "list",
        "run": ["sh", "-c", f"echo '{json.dumps({'items': values})}' > $TIDEMILL_OUTPUTS"],
        "outputs": ["items"],
    }


EACH = {"name": "each", "matrix": {"item": "${outputs.list.items}"}, "needs": ["list"]}
DOUBLE = {
    **EACH,
    "run": ["sh", "-c", "echo twice=$1$1 >> $TIDEMILL_OUTPUTS", "-", "${matrix.item}"],
    "outputs": ["twice"],
}


def after(path: Path) -> dict:
    return {
        "name": "after",
        "run": ["sh", "-c", f'echo "$1" > {path}', "-", "${outputs.each.twice}"],
        "needs": ["each"],
    }


@pytest.mark.parametrize("kind", ["asset", "op"])
@pytest.mark.parametrize("executor", ["threads", "in_process"])
def test_copies_run_for_each_item_and_their_outputs_are_collected_in_order(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str, executor: str
) -> None:
    found = dag(
        listing(["b", "a", "c"]),
        DOUBLE,
        after(tmp_path / "out"),
        kind=kind,
        name=f"f_{kind}_{executor}",
        executor=executor,
    )

    run = start(found, instance)

    assert "done" == run.state, run
    assert {"each[b]": "done", "each[a]": "done", "each[c]": "done", "each": "done", "after": "done"}.items() <= states(
        run
    ).items()
    assert '["bb", "aa", "cc"]\n' == (tmp_path / "out").read_text()


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_copies_run_in_processes_of_their_own(tmp_path: Path, instance: dg.DagsterInstance, kind: str) -> None:
    spec = dag(listing(["b", "a"]), DOUBLE, after(tmp_path / "out"), kind=kind, executor="multiprocess").spec
    plain = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"name": "d"}
    (tmp_path / "d.json").write_text(json.dumps(plain))

    run = start(load_dags(tmp_path / "d.json")[0], instance)

    assert "done" == run.state, run
    assert '["bb", "aa"]\n' == (tmp_path / "out").read_text()


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_empty_list_is_a_success_without_copies_and_gives_empty_lists(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    run = start(dag(listing([]), DOUBLE, after(tmp_path / "out"), kind=kind, name=f"empty_{kind}"), instance)

    assert "done" == run.state, run
    assert ("done", "done") == (states(run)["each"], states(run)["after"])
    assert "[]\n" == (tmp_path / "out").read_text()


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_one_failed_copy_fails_the_task_and_alone_is_run_again(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    line = f"echo $1 >> {tmp_path}/ran; test $1 != b -o -f {tmp_path}/fixed && echo twice=$1$1 >> $TIDEMILL_OUTPUTS"
    each = {**DOUBLE, "run": ["sh", "-c", line, "-", "${matrix.item}"]}
    found = dag(listing(["a", "b", "c"]), each, after(tmp_path / "out"), kind=kind, name=f"one_{kind}")

    first = start(found, instance)
    (tmp_path / "fixed").touch()
    second = start(found, instance, retry_run=first.id)

    assert {
        "each[a]": "done",
        "each[b]": "failed",
        "each[c]": "done",
        "each": "not run",
        "after": "not run",
    }.items() <= states(first).items()
    assert {"each[b]": "done", "each": "done", "after": "done"} == states(second)
    assert ["a", "b", "b", "c"] == sorted((tmp_path / "ran").read_text().split())
    assert '["aa", "bb", "cc"]\n' == (tmp_path / "out").read_text()


def test_retry_of_a_retry_runs_what_failed_a_second_time(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    line = f"echo $1 >> {tmp_path}/ran; test -f {tmp_path}/$1.fixed && echo twice=$1$1 >> $TIDEMILL_OUTPUTS"
    each = {**DOUBLE, "run": ["sh", "-c", line, "-", "${matrix.item}"]}
    found = dag(listing(["a", "b", "c"]), each, after(tmp_path / "out"), name="second_failure")
    (tmp_path / "a.fixed").touch()

    first = start(found, instance)
    (tmp_path / "b.fixed").touch()
    second = start(found, instance, retry_run=first.id)
    (tmp_path / "c.fixed").touch()
    third = start(found, instance, retry_run=second.id)

    assert {"each[b]": "done", "each[c]": "failed"}.items() <= states(second).items()
    assert {"each[c]": "done", "each": "done", "after": "done"} == states(third)
    assert ["a", "b", "b", "c", "c", "c"] == sorted((tmp_path / "ran").read_text().split())
    assert '["aa", "bb", "cc"]\n' == (tmp_path / "out").read_text()


def test_copy_is_tried_again_by_the_rule_of_its_task(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    line = f"test -f {tmp_path}/$1.seen || {{ touch {tmp_path}/$1.seen; test $1 = a || exit 1; }}"
    retry = {"count": 1, "delay_s": 0, "jitter": "none"}

    run = start(
        dag(
            listing(["a", "b"]),
            {**EACH, "run": ["sh", "-c", line, "-", "${matrix.item}"], "retry": retry},
            name="tries",
        ),
        instance,
    )

    tries = {task.name: task.tries for task in run.tasks}
    assert (1, 2) == (tries["each[a]"], tries["each[b]"])


@pytest.mark.parametrize(
    ("values", "more", "error"),
    [
        ("text", {}, r"task 'each': \$\{outputs.list.items\} must be a list to fan out over, it is str"),
        ([1, {"a": 1}], {}, "item 1 of .* is dict"),
        ([None], {}, "item 0 of .* is NoneType"),
        ([1, 2, 3], {"max_copies": 2}, "would make 3 copies, max_copies is 2"),
    ],
)
def test_wrong_list_fails_and_names_task_and_output(
    instance: dg.DagsterInstance, values: object, more: dict, error: str
) -> None:
    run = start(dag(listing(values), {**EACH, "run": "true", "retry": 3, **more}, name="wrong"), instance)

    failed = [task for task in run.tasks if task.state == "failed"]
    assert ("failed", 1, 1) == (run.state, len(failed), failed[0].tries)
    with pytest.raises(AssertionError, match=error):
        raise AssertionError(failed[0].error)


def test_copies_at_once_are_limited(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = f"mkdir {tmp_path}/alone && sleep 0.05 && rmdir {tmp_path}/alone"

    limited = start(dag(listing([1, 2, 3]), {**EACH, "run": run, "max_parallel": 1}, name="one_at_a_time"), instance)

    assert "done" == limited.state, limited


def test_lists_of_the_file_and_of_outputs_multiply_and_names_stay_readable(instance: dg.DagsterInstance) -> None:
    each = {**EACH, "run": "true", "matrix": {"region": ["eu", "us"], "item": "${outputs.list.items}"}}

    run = start(dag(listing(["x/y.csv", "x y.csv", 3]), each, name="product"), instance)

    copies = {name for name in states(run) if name.startswith("each[")}
    assert {f"each[{region}_{item}]" for region in ("eu", "us") for item in ("x_y_csv", "x_y_csv_2", "3")} == copies


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_condition_that_is_false_skips_the_fan_out_and_what_needs_it(
    instance: dg.DagsterInstance, tmp_path: Path, kind: str
) -> None:
    run = start(
        dag(listing(["a"]), {**DOUBLE, "when": "false"}, after(tmp_path / "out"), kind=kind, name=f"off_{kind}"),
        instance,
    )

    assert ("done", "skipped", "skipped") == (run.state, states(run)["each"], states(run)["after"])


def test_fan_out_over_what_a_fan_out_collected(instance: dg.DagsterInstance) -> None:
    again = {"name": "again", "run": "true", "matrix": {"item": "${outputs.each.twice}"}, "needs": ["each"]}

    run = start(dag(listing(["a", "b"]), DOUBLE, again, name="chain"), instance)

    assert {"again[aa]": "done", "again[bb]": "done"}.items() <= states(run).items()


def test_asset_of_a_fan_out_is_one_materialization_with_the_collected_lists(instance: dg.DagsterInstance) -> None:
    spec = dag(
        listing(["a", "b"]), {**DOUBLE, "asset_key": "raw/files", "group": "raw", "owners": ["team:x"]}, name="asset"
    ).spec

    start(loaded_dag(spec), instance)

    event = instance.get_latest_materialization_event(dg.AssetKey(["raw", "files"]))
    assert (2, ["aa", "bb"]) == (
        event.asset_materialization.metadata["copies"].value,
        event.asset_materialization.metadata["tidemill/outputs"].value["twice"],
    )
    graph = definitions_from_dags(spec).resolve_asset_graph()
    node = graph.get(dg.AssetKey(["raw", "files"]))
    assert ("raw", {dg.AssetKey(["asset", "list"])}, ["team:x"]) == (node.group_name, node.parent_keys, node.owners)


COMMAND = "from tidemill_core.cli import main; main(sys.argv[1:])"
BY_DAGSTER_ALONE = """
from tidemill_core.defs._dagster import KnownExecutionState
from tidemill_core.defs.executor import run_engine
run_engine.steps_to_resume = lambda _target, instance, parent, _config: (
    KnownExecutionState.build_resume_retry_reexecution(instance, parent)
)
"""


def resumed(tmp_path: Path, patch: str = "") -> subprocess.CompletedProcess[str]:
    """Kill a run with -9 in the second of its three copies, and retry it."""
    stuck = f"mkdir {tmp_path}/first || test -f {tmp_path}/go || {{ touch {tmp_path}/stuck; exec sleep 300; }}"
    line = f"echo $1 >> {tmp_path}/ran; {stuck}; echo twice=$1$1 >> $TIDEMILL_OUTPUTS"
    each = {**DOUBLE, "run": ["sh", "-c", line, "-", "${matrix.item}"], "max_parallel": 1}
    spec = dag(listing(["a", "b", "c"]), each, after(tmp_path / "out")).spec
    plain = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"name": "d"}
    (tmp_path / "d.json").write_text(json.dumps(plain))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    env = {**kept, "TIDEMILL_HOME": str(tmp_path / "home")}
    asked = ["dag", "run", "d.json", "--json"]
    first = subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{COMMAND}", *asked], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not (tmp_path / "stuck").exists():
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    first.kill()
    first.wait()
    (tmp_path / "go").touch()
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{patch}\n{COMMAND}", *asked, "--retry-failed", "last"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_killed_run_goes_on_with_the_copies_that_are_left(tmp_path: Path) -> None:
    again = resumed(tmp_path)

    assert again.returncode == 0, again.stderr
    # One at a time, in any order: the first was done, the second killed, the third had not begun.
    ran = (tmp_path / "ran").read_text().split()
    assert (4, ["a", "b", "c"]) == (len(ran), sorted(set(ran)))
    assert 2 == ran.count(ran[1])
    assert '["aa", "bb", "cc"]\n' == (tmp_path / "out").read_text()
    left = {f"each[{item}]" for item in {"a", "b", "c"} - {ran[0]}}
    assert {*left, "each", "after"} == {task["name"] for task in json.loads(again.stdout)["tasks"]}


def test_copies_that_dagster_alone_forgets_fail_the_task_by_name(tmp_path: Path) -> None:
    """The negative control: a retry by Dagster's own plan, as from its UI, leaves out what had not begun."""
    again = resumed(tmp_path, BY_DAGSTER_ALONE)

    ran = (tmp_path / "ran").read_text().split()
    forgotten = [item for item in "abc" if item not in ran]
    tasks = {task["name"]: task for task in json.loads(again.stdout)["tasks"]}
    assert again.returncode == 1
    assert forgotten
    assert f"the copies {', '.join(forgotten)} have not run" in tasks["each"]["error"]


def test_hooks_of_a_fan_out_speak_once_of_success_and_of_each_failed_copy(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    hooks = {
        "on_success": [{"type": "command", "run": f"echo done >> {tmp_path}/told"}],
        "on_failure": [{"type": "command", "run": f"echo failed >> {tmp_path}/told"}],
    }
    line = f"test $1 = a -o -f {tmp_path}/fixed"
    each = {**EACH, "run": ["sh", "-c", line, "-", "${matrix.item}"], "hooks": hooks}
    found = dag(listing(["a", "b", "c"]), each, name="hooked")

    first = start(found, instance)
    told = (tmp_path / "told").read_text().split()
    (tmp_path / "fixed").touch()
    start(found, instance, retry_run=first.id)

    assert ["failed", "failed"] == told
    assert ["failed", "failed", "done"] == (tmp_path / "told").read_text().split()


def test_fan_out_runs_in_each_partition(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    line = f"echo $1 $TIDEMILL_PARTITION $TIDEMILL_TASK >> {tmp_path}/ran"
    each = {**EACH, "run": ["sh", "-c", line, "-", "${matrix.item}"]}
    found = dag(listing([1]), each, name="parted", partitions={"type": "static", "keys": ["x", "y"]})

    runs = [start(found, instance, partition=key) for key in ("x", "y")]

    assert ["done", "done"] == [run.state for run in runs]
    assert ["1 x each[1]", "1 y each[1]"] == (tmp_path / "ran").read_text().splitlines()


def test_what_copies_print_is_in_the_logs_under_their_names(instance: dg.DagsterInstance) -> None:
    run = start(dag(listing(["a", "b"]), {**EACH, "run": ["echo", "${matrix.item}"]}, name="printing"), instance)

    assert ["[each[b]] b"] == list(log_lines(instance, run.id, "each[b]"))


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        ("matrix: {f: '${outputs.list.item}'}, needs: [list]", "did you mean 'items'"),
        ("matrix: {f: '${outputs.lst.items}'}, needs: [list]", "did you mean 'list'"),
        ("matrix: {f: '${outputs.list.items}'}", "add 'list' to needs"),
        ("matrix: {f: '${params.p}'}, needs: [list]", "f"),
        ("matrix: {f: '${outputs.list.items}'}, needs: [list], asset_key: 'x/${matrix.f}'", "share one asset_key"),
        ("matrix: {f: '${outputs.list.items}'}, needs: [list], when: matrix.f == 'x'", "share one when"),
        ("matrix: {f: '${outputs.list.items}'}, needs: [list], max_copies: 0", "greater than 0"),
        ("matrix: {f: '${outputs.list.items}'}, needs: [list], max_paralel: 2", "did you mean 'max_parallel'"),
    ],
)
def test_wrong_fan_out_is_named_at_its_line(tmp_path: Path, task: str, fault: str) -> None:
    first = "{name: list, run: x, outputs: [items]}"
    (tmp_path / "d.yaml").write_text(f"name: d\ntasks:\n  - {first}\n  - {{name: b, run: x, {task}}}\n")

    with pytest.raises(ConfigFaults) as caught:
        load_dags(tmp_path)

    assert {4} == {each.place.line for each in caught.value.faults}
    assert fault in str(caught.value)
