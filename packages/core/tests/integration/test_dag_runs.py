"""DAGs as they run: outputs, conditions, retries, pools, hooks, components, selections, lost runs."""

import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.config import Config, ConfigFaults
from tidemill_core.dag import DagSpec, LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.report import RunView
from tidemill_core.defs import ConfigComponent, DagComponent, definitions_from_dags
from tidemill_core.defs.dag.request import RunRequest, find_run
from tidemill_core.defs.dag.runs import log_lines, start_dag
from tidemill_core.defs.dag.status import OWNER_TAG, is_lost, owner_tag, recent_runs, view
from tidemill_core.errors import ConfigError

EXAMPLES = Path(__file__).parents[4] / "examples/dags"


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


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("etl", {"orders": "50"}, {"extract": "done", "load": "done", "by_region__west": "done"}),
        ("nightly", {}, {"fetch": "done", "load__planes": "done", "tidy": "done"}),
        ("files", {}, {"count[": "done", "add_up": "done", "empty_day": "skipped", "close": "done"}),
        ("files", {"parts": "0"}, {"count": "done", "add_up": "done", "empty_day": "done", "close": "done"}),
        ("mixed", {}, {"count": "done", "primes": "done", "page": "skipped"}),
        ("mixed", {"publish": "yes"}, {"page": "done"}),
    ],
)
def test_example_runs(instance: dg.DagsterInstance, tmp_path: Path, name: str, params: dict, expected: dict) -> None:
    found = load_dags(EXAMPLES / f"{name}.yaml")[0]

    run = start(found, instance, params={"folder": str(tmp_path), **params})

    assert run.state == "done"
    found_states = states(run)
    found_states.update({name[: name.index("[") + 1]: state for name, state in found_states.items() if "[" in name})
    assert expected.items() <= found_states.items()


def test_retried_task_counts_its_tries(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = start(load_dags(EXAMPLES / "nightly.yaml")[0], instance, params={"folder": str(tmp_path)})

    assert {"fetch": 2, "tidy": 1}.items() <= {task.name: task.tries for task in run.tasks}.items()


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_outputs_reach_later_tasks_in_assets_and_ops(instance, tmp_path: Path, kind: str) -> None:
    run = start(
        dag(
            {"name": "a", "run": 'echo \'{"n": 3, "w": "x y"}\' > $TIDEMILL_OUTPUTS', "outputs": ["n", "w"]},
            {
                "name": "b",
                "run": ["sh", "-c", f'echo "$1" > {tmp_path}/out', "-", "${outputs.a.w} ${outputs.a.n}"],
                "needs": ["a"],
            },
            kind=kind,
            name=f"outputs_{kind}",
        ),
        instance,
    )

    assert run.state == "done"
    assert (tmp_path / "out").read_text() == "x y 3\n"


def test_declared_output_that_is_not_returned_fails_the_task_without_a_retry(instance) -> None:
    run = start(dag({"name": "a", "run": "true", "outputs": ["n"], "retry": 3}), instance)

    assert [("failed", 1)] == [(task.state, task.tries) for task in run.tasks]
    assert "declares n but did not return it" in run.tasks[0].error


def test_exit_code_75_is_temporary_and_others_are_not(instance: dg.DagsterInstance) -> None:
    retry = {"count": 1, "delay_s": 0, "jitter": "none"}

    temporary = start(dag({"name": "a", "run": "exit 75", "retry": retry}), instance)
    final = start(dag({"name": "a", "run": "echo last words; exit 3"}), instance)

    assert (True, 2) == (temporary.is_temporary, temporary.tasks[0].tries)
    assert (False, 1) == (final.is_temporary, final.tasks[0].tries)
    assert "last words" in final.tasks[0].error


def test_retry_rule_names_the_errors_it_is_for(instance: dg.DagsterInstance) -> None:
    def tries(command: str, *on: str | int) -> int:
        rule = {"count": 2, "delay_s": 0, "jitter": "none", "on": list(on)}
        return start(dag({"name": "a", "run": command, "retry": rule}), instance).tasks[0].tries

    assert 3 == tries("exit 4", 4)
    assert 1 == tries("exit 4", 5, "transient")
    assert 3 == tries("exit 4", "tidemill_core.dag.errors:CommandFailed")


def test_command_past_its_timeout_is_killed_with_all_it_started(instance, tmp_path: Path) -> None:
    run = start(
        dag(
            {
                "name": "a",
                "run": f"(sleep 60; touch {tmp_path}/late) & echo $! > {tmp_path}/pid; wait",
                "timeout_s": 0.5,
            }
        ),
        instance,
    )

    assert "took longer than its 0.5 s" in run.tasks[0].error
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_command_sees_its_environment_folder_and_run(instance, tmp_path: Path) -> None:
    run = start(
        dag(
            {
                "name": "a",
                "run": "echo $X $TIDEMILL_DAG $TIDEMILL_TASK $TIDEMILL_RUN_ID > out",
                "env": {"X": "${params.p}"},
                "cwd": str(tmp_path),
            },
            params={"p": {"default": "v"}},
            name="envs",
        ),
        instance,
    )

    assert (tmp_path / "out").read_text() == f"v envs a {run.id}\n"


def test_what_tasks_print_and_log_is_in_the_logs_by_task(instance, tmp_path: Path) -> None:
    (tmp_path / "talking_steps.py").write_text("def talk(context):\n    context.log.info('logged')\n")
    (tmp_path / "d.yaml").write_text(
        "name: d\ntasks: [{name: a, run: echo printed}, {name: b, call: 'talking_steps:talk'}]\n"
    )

    run = start(load_dags(tmp_path / "d.yaml")[0], instance)

    assert ["[a] printed"] == list(log_lines(instance, run.id, "a"))
    assert ["[b] info: logged"] == list(log_lines(instance, run.id, "b"))


def test_callable_gets_resources_context_and_params(instance, tmp_path: Path) -> None:
    (tmp_path / "asking_steps.py").write_text(
        "def ask(context, params, box, word, http=None):\n    return {'all': [params['n'], box, word]}\n"
    )
    task = {
        "name": "a",
        "call": "asking_steps:ask",
        "resources": ["box"],
        "arguments": {"word": "w"},
        "outputs": ["all"],
    }
    spec = DagSpec.model_validate({"name": "d", "params": {"n": {"type": "int", "default": 1}}, "tasks": [task]})
    (tmp_path / "d.json").write_text(
        json.dumps(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"name": "d"})
    )

    defs = definitions_from_dags(tmp_path / "d.json", resources={"box": "BOX", "http": "HTTP"}, params={"d": {"n": 5}})
    result = defs.resolve_job_def("d").execute_in_process(instance=instance)

    event = result.asset_materializations_for_node("d__a")[0]
    assert [5, "BOX", "w"] == event.metadata["tidemill/outputs"].value["all"]


def test_task_in_its_own_process_returns_and_fails_like_any_other(instance) -> None:
    good = {"name": "a", "call": "os:getpid", "executor": "multiprocess", "outputs": ["pid"]}
    bad = {"name": "b", "call": "os:remove", "arguments": {"path": "/no/such/file"}, "executor": "multiprocess"}
    late = {"name": "c", "call": "executor_no:x", "executor": "multiprocess"}

    run = start(dag(good, bad), instance)

    assert {"a": "done", "b": "failed"} == states(run)
    assert "FileNotFoundError" in run.tasks[1].error
    with pytest.raises(ConfigFaults, match="no module 'executor_no'"):
        dag(late)


def test_only_and_from_choose_tasks(instance: dg.DagsterInstance) -> None:
    found = dag(
        {"name": "a", "run": "true"},
        {"name": "b", "run": "true", "needs": ["a"]},
        {"name": "c", "run": "true", "needs": ["b"]},
        {"name": "x", "run": "true"},
    )

    assert {"b": "done"} == states(start(found, instance, only=["b"]))
    assert {"b": "done", "c": "done"} == states(start(found, instance, start=["b"]))
    with pytest.raises(ConfigError, match="has no task 'bb'; did you mean 'b'"):
        start(found, instance, only=["bb"])


@pytest.mark.parametrize("kind", ["asset", "op"])
def test_retry_failed_runs_only_what_did_not_succeed(instance, tmp_path: Path, kind: str) -> None:
    found = dag(
        {"name": "a", "run": f"echo a >> {tmp_path}/ran"},
        {"name": "b", "run": f"test -f {tmp_path}/fixed", "needs": ["a"]},
        {"name": "c", "run": "true", "needs": ["b"]},
        kind=kind,
        name=f"again_{kind}",
    )
    first = start(found, instance)
    (tmp_path / "fixed").touch()

    second = start(found, instance, retry_run=first.id)

    assert {"a": "done", "b": "failed", "c": "not run"} == states(first)
    assert {"b": "done", "c": "done"} == states(second)
    assert (tmp_path / "ran").read_text() == "a\n"
    assert instance.get_run_by_id(second.id).parent_run_id == first.id


def test_successful_run_cannot_be_retried(instance: dg.DagsterInstance) -> None:
    found = dag({"name": "a", "run": "true"})
    first = start(found, instance)

    with pytest.raises(Exception, match="only a failed one can be retried"):
        start(found, instance, retry_run=first.id)


def test_run_is_found_by_the_beginning_of_its_id(instance: dg.DagsterInstance) -> None:
    run = start(dag({"name": "a", "run": "true"}), instance)

    assert find_run(instance, run.id[:13]).run_id == run.id
    assert find_run(instance, "last").run_id == run.id
    with pytest.raises(ConfigError, match="no such run"):
        find_run(instance, "zzz")


def test_run_whose_process_is_gone_is_lost(instance: dg.DagsterInstance) -> None:
    job = definitions_from_dags(
        DagSpec.model_validate({"name": "l", "tasks": [{"name": "a", "run": "true"}]})
    ).resolve_job_def("l")
    mine, gone, elsewhere = (
        instance.create_run_for_job(
            job, tags={OWNER_TAG: tag, "tidemill/heartbeat": "0"}, status=dg.DagsterRunStatus.STARTED
        )
        for tag in (owner_tag(), owner_tag().rsplit(":", 1)[0] + ":1", "other-host:1:1")
    )

    assert [False, True, True] == [is_lost(run) for run in (mine, gone, elsewhere)]
    assert view(instance, gone.run_id).state == "lost"


def test_hooks_run_once_per_run_and_per_task_and_never_fail_a_run(instance, tmp_path: Path) -> None:
    posted: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    task_hooks = {
        "on_success": [{"type": "command", "run": f'echo "$TIDEMILL_TASK $TIDEMILL_STATUS" > {tmp_path}/task'}],
        "on_failure": [{"type": "log"}],
    }
    run_hooks = {
        "on_success": [
            {"type": "command", "run": "exit 9"},
            {"type": "webhook", "url": f"http://127.0.0.1:{server.server_port}/"},
        ]
    }

    run = start(dag({"name": "a", "run": "true", "hooks": task_hooks}, hooks=run_hooks, name="hooked"), instance)
    server.shutdown()
    server.server_close()

    assert run.state == "done"
    assert (tmp_path / "task").read_text() == "a success\n"
    assert [("hooked", run.id, "success")] == [(each["dag"], each["run_id"], each["status"]) for each in posted]


def test_partition_reaches_the_task(instance, tmp_path: Path) -> None:
    found = dag(
        {"name": "a", "run": f"echo ${{partition.key}} > {tmp_path}/out"},
        partitions={"type": "daily", "start": "2013-01-01"},
        name="daily",
    )

    run = start(found, instance, partition="2013-02-03")

    assert run.state == "done"
    assert (tmp_path / "out").read_text() == "2013-02-03\n"


class PairConfig(Config):
    table: str


class PairComponent(ConfigComponent):
    """Two assets, the second read from the first, and a blocking check."""

    config_type = PairConfig

    def build(self, config: PairConfig, context) -> dg.Definitions:
        @dg.asset(key=["raw", config.table])
        def raw() -> dg.MaterializeResult:
            return dg.MaterializeResult()

        @dg.asset(key=["mart", config.table], deps=[["raw", config.table]])
        def mart() -> dg.MaterializeResult:
            return dg.MaterializeResult()

        @dg.asset_check(asset=["mart", config.table], blocking=True)
        def sound() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=config.table != "bad")

        return dg.Definitions(assets=[raw, mart], asset_checks=[sound])


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    import sys

    (tmp_path / "pair_package.py").write_text("class PairComponent: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("pair_package")
    module.PairComponent = PairComponent
    yield "pair_package.PairComponent"
    sys.modules.pop("pair_package", None)


@pytest.mark.parametrize(("table", "expected"), [("good", "done"), ("bad", "not run")])
def test_component_task_stands_between_its_needs_and_what_needs_it(
    instance, pair: str, table: str, expected: str
) -> None:
    found = dag(
        {"name": "before", "run": "true"},
        {
            "name": "pair",
            "use": pair,
            "with": {"table": "${params.t}"},
            "needs": ["before"],
            "pool": "p",
            "retry": 1,
            "tags": {"x": "y"},
        },
        {"name": "after", "run": "true", "needs": ["pair"]},
        params={"t": {"default": "good"}},
        name=f"parts_{table}",
    )

    run = start(found, instance, params={"t": table}, executor="in_process")

    order = [entry.step_key for entry in instance.all_logs(run.id, of_type=dg.DagsterEventType.STEP_START)]
    steps = [
        f"parts_{table}__before",
        f"raw__{table}",
        f"mart__{table}",
        f"mart__{table}_sound",
        f"parts_{table}__after",
    ]
    assert order == steps[: len(order)]
    assert states(run)["after"] == expected
    job = definitions_from_dags(found, params={found.spec.name: {"t": table}}).resolve_job_def(found.spec.name)
    raw = job.graph.node_named(f"raw__{table}").definition
    assert ("p", 1, "y") == (raw.pool, raw.retry_policy.max_retries, raw.tags["x"])


def test_component_with_wrong_attributes_names_the_task(pair: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        definitions_from_dags(dag({"name": "pair", "use": pair, "with": {"tabel": "x"}}))


def test_dag_inside_a_defs_yaml_is_checked_at_its_lines(tmp_path: Path) -> None:
    with dg.components.testing.create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=DagComponent, defs_path="flow")
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            assert "hello" in {job.name for job in defs.jobs}
        text = "type: tidemill_core.defs.DagComponent\nattributes:\n  name: d\n  tasks:\n    - {name: a, run: x}\n    - name: b\n      run: x\n      needs: [c]\n"
        (path / "defs.yaml").write_text(text)
        with pytest.raises(Exception, match="flow") as caught, sandbox.load_component_and_build_defs(defs_path=path):
            pass
        assert re.search(
            r"defs\.yaml:8:\d+: tasks\[1\]\.needs\[0\]: needs unknown task 'c'", str(caught.value.__cause__)
        )


def test_schedule_sensor_and_partitions_become_dagsters(tmp_path: Path) -> None:
    (tmp_path / "my_sensors.py").write_text(
        "import dagster as dg\n@dg.sensor(name='watching', target='*')\ndef watch(context): ...\n"
    )
    (tmp_path / "d.yaml").write_text(
        "name: d\nschedule: {cron: '@daily', timezone: Europe/Berlin, enabled: true}\nsensors: ['my_sensors:watch']\n"
        "partitions: {type: static, keys: [x, y]}\ntags: {team: a}\nmax_concurrent: 3\ntasks: [{name: a, run: 'true'}]\n"
    )

    defs = definitions_from_dags(tmp_path)

    schedule = defs.resolve_schedule_def("d_schedule")
    with dg.DagsterInstance.ephemeral() as made:
        now = datetime(2013, 1, 1, tzinfo=UTC)
        repository = defs.get_repository_def()
        context = dg.build_schedule_context(made, scheduled_execution_time=now, repository_def=repository)
        tick = schedule.evaluate_tick(context)
    job = defs.resolve_job_def("d")
    assert ("Europe/Berlin", "@daily") == (schedule.execution_timezone, schedule.cron_schedule)
    assert ["x", "y"] == [request.partition_key for request in tick.run_requests]
    assert defs.resolve_sensor_def("watching")
    assert ("threads", "a") == (job.executor_def.name, job.tags["team"])


def test_wrong_attributes_of_a_component_are_named_at_their_line_in_the_dag_file(pair: str, tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(
        f"name: d\ntasks:\n  - name: a\n    use: {pair}\n    with: {{tabel: x}}\n  - {{name: b, run: 'true'}}\n"
    )

    with pytest.raises(ConfigFaults) as caught:
        definitions_from_dags(tmp_path)

    assert {5} == {fault.place.line for fault in caught.value.faults}
    assert "did you mean 'table'" in str(caught.value)


def test_running_task_is_seen_running_by_others(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    found = dag({"name": "a", "run": f"until test -f {tmp_path}/go; do sleep 0.05; done"}, name="seen")
    thread = threading.Thread(target=lambda: start(found, instance))
    thread.start()

    seen: set[str] = set()
    end = time.monotonic() + 60
    while "running" not in seen and time.monotonic() < end:
        runs = [run for run in recent_runs(instance, dag="seen") if run.state == "running"]
        seen.update(task.state for run in runs for task in view(instance, run.id).tasks)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    thread.join(60)

    assert "running" in seen
    assert [run.state for run in recent_runs(instance, dag="seen")] == ["done"]


def test_thousand_tasks_become_one_job(tmp_path: Path) -> None:
    lines = [
        f"  - {{name: t{index}, run: 'true'{f', needs: [t{index - 10}]' if index >= 10 else ''}}}"
        for index in range(1000)
    ]
    (tmp_path / "big.yaml").write_text("name: big\ntasks:\n" + "\n".join(lines) + "\n")

    job = definitions_from_dags(tmp_path).resolve_job_def("big")

    assert len(job.graph.nodes) == 1000


def test_resources_come_from_the_code_location_that_is_named(instance, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_location.py").write_text("import dagster as dg\ndefs = dg.Definitions(resources={'box': 'BOX'})\n")
    (tmp_path / "boxed_steps.py").write_text("def look(box):\n    assert box == 'BOX'\n")
    (tmp_path / "d.yaml").write_text("name: d\ntasks: [{name: a, call: 'boxed_steps:look', resources: [box]}]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_dags(tmp_path / "d.yaml")[0]

    assert start(found, instance, module="my_location").state == "done"
    with pytest.raises(ConfigError, match="no Dagster Definitions"):
        start(found, instance, module="boxed_steps")


def test_tag_limits_reach_the_executor(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    command = f"mkdir {tmp_path}/alone && sleep 0.1 && rmdir {tmp_path}/alone"
    tasks = [{"name": f"t{index}", "run": command, "tags": {"db": str(index)}} for index in range(3)]

    limited = start(dag(*tasks, tag_limits=[{"key": "db", "limit": 1}], name="limited"), instance)
    free = start(dag(*tasks, name="free"), instance)

    assert (limited.state, free.state) == ("done", "failed")
