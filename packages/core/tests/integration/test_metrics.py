"""The metrics exporter counts real runs once, on SQLite and on PostgreSQL storage."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Type
from dagster._core.test_utils import create_run_for_test
from pydantic import SecretStr
from tidemill_core.defs.home import PASSWORD_VARIABLE, prepare_home
from tidemill_core.defs.metrics import MetricsExporter, asgi_app, wsgi_app
from tidemill_core.settings import Settings

on_both = pytest.mark.parametrize("instance", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    is_postgres = getattr(request, "param", "sqlite") == "postgres"
    url = request.getfixturevalue("postgres_url") if is_postgres else None
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    settings = Settings(home=tmp_path, dagster_postgres_url=SecretStr(url) if url else None)
    home = prepare_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def exporter(instance: dg.DagsterInstance) -> MetricsExporter:
    return MetricsExporter(instance, settle_s=0)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def flaky(context: dg.OpExecutionContext) -> int:
    if context.retry_number == 0:
        raise RuntimeError("once")
    return 1


@dg.op(out=dg.DynamicOut())
def fan() -> Iterator[dg.DynamicOutput[int]]:
    for number in range(3):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op
def work(number: int) -> int:
    return number


@dg.job
def good() -> None:
    flaky()
    fan().map(work)


@dg.op
def boom() -> None:
    raise RuntimeError("always")


@dg.job
def bad() -> None:
    boom()


@dg.asset(key=["raw", "weather"])
def weather() -> None: ...


@dg.asset_check(asset=weather)
def has_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


def values(exporter: MetricsExporter) -> dict[str, float]:
    lines = exporter.scrape().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def report(instance: dg.DagsterInstance, run_id: str, kind: Type, job: str) -> None:
    instance.report_dagster_event(dg.DagsterEvent(event_type_value=kind.value, job_name=job), run_id)


@on_both
def test_runs_are_counted_by_job_and_status(instance: dg.DagsterInstance, exporter: MetricsExporter) -> None:
    good.execute_in_process(instance=instance)
    good.execute_in_process(instance=instance)
    bad.execute_in_process(instance=instance, raise_on_error=False)

    is_caught_up = exporter.refresh(60)

    seen = values(exporter)
    assert not [name for name in seen if "errors_total" in name]
    assert is_caught_up
    assert seen['dagster_runs_total{job="good",status="success"}'] == 2
    assert seen['dagster_runs_total{job="bad",status="failure"}'] == 1
    assert seen['dagster_run_duration_seconds_count{job="good",status="success"}'] == 2
    assert seen["dagster_exporter_caught_up"] == 1


def test_steps_are_counted_without_the_keys_of_dynamic_outputs(
    instance: dg.DagsterInstance, exporter: MetricsExporter
) -> None:
    good.execute_in_process(instance=instance)
    bad.execute_in_process(instance=instance, raise_on_error=False)

    exporter.refresh(60)

    seen = values(exporter)
    assert seen['dagster_steps_total{job="good",status="success",step="work"}'] == 3
    assert seen['dagster_step_duration_seconds_count{job="good",step="work"}'] == 3
    assert seen['dagster_step_retries_total{job="good",step="flaky"}'] == 1
    assert seen['dagster_steps_total{job="bad",status="failure",step="boom"}'] == 1
    assert not [name for name in seen if "work[" in name]


@on_both
def test_a_run_with_several_ends_is_counted_once_by_the_first(
    instance: dg.DagsterInstance, exporter: MetricsExporter
) -> None:
    done = bad.execute_in_process(instance=instance, raise_on_error=False)
    report(instance, done.run_id, Type.RUN_FAILURE, "bad")
    exporter.refresh(60)
    report(instance, done.run_id, Type.RUN_CANCELED, "bad")
    exporter.refresh(60)
    first = values(exporter)
    time.sleep(0.05)
    later = MetricsExporter(instance, settle_s=0, history_s=0)
    later._events._since = time.time()
    report(instance, done.run_id, Type.RUN_FAILURE, "bad")
    other = bad.execute_in_process(instance=instance, raise_on_error=False)

    later.refresh(60)

    runs = {name: count for name, count in first.items() if name.startswith("dagster_runs_total")}
    assert runs == {'dagster_runs_total{job="bad",status="failure"}': 1}
    assert first['dagster_run_duration_seconds_count{job="bad",status="failure"}'] == 1
    # One that begins to look between two ends of a run counts only the run that it saw ending.
    assert values(later)['dagster_runs_total{job="bad",status="failure"}'] == 1, other.run_id


@on_both
def test_nothing_is_counted_twice(instance: dg.DagsterInstance, exporter: MetricsExporter) -> None:
    good.execute_in_process(instance=instance)
    dg.materialize([weather, has_rows], instance=instance)
    exporter.refresh(60)
    before = values(exporter)

    exporter.refresh(60)
    again = values(exporter)
    good.execute_in_process(instance=instance)
    exporter.refresh(60)
    after = values(exporter)

    counted = [name for name in before if re.search(r"_total|_count", name)]
    assert {name: again[name] for name in counted} == {name: before[name] for name in counted}
    assert after['dagster_runs_total{job="good",status="success"}'] == 2


@on_both
def test_assets_and_checks_are_counted_and_the_hidden_job_is_not(
    instance: dg.DagsterInstance, exporter: MetricsExporter
) -> None:
    job = dg.Definitions(assets=[weather], asset_checks=[has_rows]).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance)
    instance.report_runless_asset_event(dg.AssetMaterialization(["raw", "planes"]))

    exporter.refresh(60)

    seen = values(exporter)
    assert seen['dagster_materializations_total{asset="raw/weather"}'] == 1
    assert seen['dagster_materializations_total{asset="raw/planes"}'] == 1
    assert 0 <= seen['dagster_asset_age_seconds{asset="raw/weather"}'] < 120
    assert seen['dagster_check_results_total{asset="raw/weather",check="has_rows",result="warn"}'] == 1
    assert seen['dagster_check_passed{asset="raw/weather",check="has_rows"}'] == 0
    assert not [name for name in seen if "__" in name]


def test_the_age_of_an_asset_is_known_from_before_the_history(instance: dg.DagsterInstance) -> None:
    dg.materialize([weather], instance=instance)
    exporter = MetricsExporter(instance, history_s=-60)

    exporter.refresh(60)

    seen = values(exporter)
    assert 'dagster_asset_age_seconds{asset="raw/weather"}' in seen
    assert 'dagster_materializations_total{asset="raw/weather"}' not in seen


@on_both
def test_the_queue_is_measured_while_runs_wait_and_when_they_start(
    instance: dg.DagsterInstance, exporter: MetricsExporter
) -> None:
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repo"), "nightly")
    run = create_run_for_test(instance, job_name="nightly", remote_job_origin=origin)
    report(instance, run.run_id, Type.RUN_ENQUEUED, "nightly")
    exporter.refresh(60)
    waiting = values(exporter)

    report(instance, run.run_id, Type.RUN_STARTING, "nightly")
    exporter.refresh(60)
    started = values(exporter)

    assert waiting["dagster_queue_depth"] == 1
    assert waiting['dagster_runs_active{job="nightly",status="queued"}'] == 1
    assert started["dagster_queue_depth"] == 0
    assert started['dagster_runs_active{job="nightly",status="starting"}'] == 1
    assert 'dagster_runs_active{job="nightly",status="queued"}' not in started
    assert started['dagster_queue_wait_seconds_count{job="nightly"}'] == 1


def test_pools_show_their_limit_and_use(instance: dg.DagsterInstance, exporter: MetricsExporter) -> None:
    instance.event_log_storage.set_concurrency_slots("postgres", 4)
    run = create_run_for_test(instance, job_name="nightly")
    instance.event_log_storage.claim_concurrency_slot("postgres", run.run_id, "load")

    exporter.refresh(60)

    seen = values(exporter)
    assert seen['dagster_pool_slots{pool="postgres"}'] == 4
    assert seen['dagster_pool_slots_used{pool="postgres"}'] == 1


@on_both
def test_ticks_and_daemons_are_shown(instance: dg.DagsterInstance, exporter: MetricsExporter) -> None:
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        ScheduleInstigatorData,
        TickData,
        TickStatus,
    )
    from dagster._daemon.types import DaemonHeartbeat
    from dagster._utils.error import SerializableErrorInfo

    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repo"), "hourly")
    schedule = ScheduleInstigatorData("0 * * * *")
    state = InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, schedule)
    instance.add_instigator_state(state)

    def tick(status: TickStatus) -> None:
        data = TickData(
            instigator_origin_id=origin.get_id(),
            instigator_name="hourly",
            instigator_type=InstigatorType.SCHEDULE,
            status=status,
            timestamp=time.time(),
            selector_id=state.selector_id,
            run_ids=[],
            error=SerializableErrorInfo("boom", [], None) if status is TickStatus.FAILURE else None,
        )
        instance.create_tick(data)

    tick(TickStatus.SUCCESS)
    tick(TickStatus.FAILURE)
    tick(TickStatus.STARTED)
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "id"))

    exporter.refresh(60)
    exporter.refresh(60)
    tick(TickStatus.FAILURE)
    exporter.refresh(60)

    seen = values(exporter)
    assert seen['dagster_ticks_total{kind="schedule",name="hourly",status="success"}'] == 1
    assert seen['dagster_ticks_total{kind="schedule",name="hourly",status="failure"}'] == 2
    assert seen['dagster_daemon_healthy{daemon="SENSOR"}'] == 1
    assert seen['dagster_daemon_heartbeat_age_seconds{daemon="SENSOR"}'] < 120


def test_series_beyond_the_bound_share_one(instance: dg.DagsterInstance) -> None:
    exporter = MetricsExporter(instance, settle_s=0, max_series=3)
    for number in range(5):
        instance.report_runless_asset_event(dg.AssetMaterialization(f"a{number}"))

    exporter.refresh(60)

    counted = {name: n for name, n in values(exporter).items() if name.startswith("dagster_materializations_total")}
    assert len(counted) == 4
    assert counted['dagster_materializations_total{asset="other"}'] == 2


def test_a_long_history_is_read_a_bounded_part_at_a_time(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill_core.defs.metrics.events.PAGE", 4)
    for number in range(10):
        instance.report_runless_asset_event(dg.AssetMaterialization(f"a{number % 3}"))
    exporter = MetricsExporter(instance, settle_s=0)

    def counted() -> float:
        return sum(n for name, n in values(exporter).items() if name.startswith("dagster_materializations_total"))

    exporter.scrape_budget_s = 0
    totals = [counted(), counted(), counted(), counted()]

    assert totals == [4, 8, 10, 10]


def test_history_begins_where_it_is_told(instance: dg.DagsterInstance) -> None:
    for number in range(7):
        instance.report_runless_asset_event(dg.AssetMaterialization(f"old{number}"))
    time.sleep(0.05)
    now = time.time()
    instance.report_runless_asset_event(dg.AssetMaterialization("new"))
    exporter = MetricsExporter(instance, settle_s=0, history_s=0)
    exporter._events._since = now

    exporter.refresh(60)

    counted = [name for name in values(exporter) if name.startswith("dagster_materializations_total")]
    assert counted == ['dagster_materializations_total{asset="new"}']


def test_a_part_that_fails_is_counted_and_the_others_go_on(
    instance: dg.DagsterInstance, exporter: MetricsExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise RuntimeError("database is locked")

    monkeypatch.setattr(type(instance), "get_run_records", locked)
    instance.report_runless_asset_event(dg.AssetMaterialization("a"))

    exporter.refresh(60)

    seen = values(exporter)
    assert seen['dagster_exporter_errors_total{part="queue"}'] >= 1
    assert seen['dagster_materializations_total{asset="a"}'] == 1


def test_the_apps_answer_with_the_metrics(exporter: MetricsExporter) -> None:
    import asyncio

    status: list[str] = []
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    body = b"".join(wsgi_app(exporter)({}, lambda code, _headers: status.append(code)))
    asyncio.run(asgi_app(exporter)({"type": "http"}, None, send))

    assert status == ["200 OK"]
    assert b"dagster_queue_depth 0.0" in body
    assert b"dagster_queue_depth 0.0" in sent[1]["body"]  # type: ignore[operator]


def test_a_running_exporter_follows_by_itself(instance: dg.DagsterInstance, wait_for: Callable[..., None]) -> None:
    exporter = MetricsExporter(instance, settle_s=0, interval_s=0.05).start()
    instance.report_runless_asset_event(dg.AssetMaterialization("a"))

    wait_for(lambda: values(exporter).get('dagster_materializations_total{asset="a"}') == 1)

    exporter.stop()


@pytest.fixture
def wait_for() -> Callable[..., None]:
    from tidemill_core.services.processes import wait_until

    def wait(condition: Callable[[], bool]) -> None:
        assert wait_until(condition, 30)

    return wait


def test_the_server_answers_until_it_is_told_to_stop(
    instance: dg.DagsterInstance, wait_for: Callable[..., None]
) -> None:
    import threading

    import httpx
    from tidemill_core.defs.metrics import serve
    from tidemill_core.lifecycle import StopToken

    urls: list[str] = []
    stop = StopToken()
    thread = threading.Thread(target=serve, args=("127.0.0.1", 0, stop), kwargs={"announce": urls.append})
    thread.start()
    wait_for(lambda: bool(urls))

    answers = {path: httpx.get(urls[0] + path) for path in ("/metrics", "/livez", "/else")}
    stop.set("test over")
    thread.join(60)

    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/metrics": 200,
        "/livez": 200,
        "/else": 404,
    }
    assert "dagster_queue_depth" in answers["/metrics"].text
    assert not thread.is_alive()


@pytest.mark.parametrize("instance", ["postgres"], indirect=True)
def test_an_event_committed_late_is_counted_by_who_waits_and_missed_by_who_does_not(
    instance: dg.DagsterInstance, postgres_url: str
) -> None:
    import psycopg

    hasty, patient = MetricsExporter(instance, settle_s=0), MetricsExporter(instance, settle_s=3600)
    instance.report_runless_asset_event(dg.AssetMaterialization("late"))

    with psycopg.connect(postgres_url) as slow_writer:
        slow_writer.execute(
            """INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key)
               SELECT run_id, event, dagster_event_type, timestamp, asset_key FROM event_logs"""
        )
        instance.report_runless_asset_event(dg.AssetMaterialization("early"))
        for each in (hasty, patient):
            each.refresh(60)
        slow_writer.commit()
    patient._events.settle_s = 0
    for each in (hasty, patient):
        each.refresh(60)

    name = 'dagster_materializations_total{asset="late"}'
    assert values(patient)[name] == 2
    assert values(hasty)[name] == 1  # what waiting is for
    assert values(hasty)['dagster_materializations_total{asset="early"}'] == 1


def test_runs_that_end_while_the_exporter_reads_are_all_counted(
    instance: dg.DagsterInstance, wait_for: Callable[..., None]
) -> None:
    exporter = MetricsExporter(instance, settle_s=0.2, interval_s=0.02).start()

    for _ in range(3):
        good.execute_in_process(instance=instance)
    wait_for(lambda: values(exporter).get('dagster_steps_total{job="good",status="success",step="work"}') == 9)
    exporter.stop()

    seen = values(exporter)
    assert seen['dagster_runs_total{job="good",status="success"}'] == 3
    assert not [name for name in seen if "errors_total" in name]


def test_the_scrape_benchmark_runs_at_a_tiny_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_admin_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harness = pytest.importorskip("benchmarks.harness", reason="the package is tested without its repository")
    from benchmarks.core import metrics_scrape

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")

    metrics_scrape.main(runs=20, scrapes=2)

    assert "20 runs of 3 steps" in capsys.readouterr().out
