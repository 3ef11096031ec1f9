"""What the threads executor does beyond Dagster's own: limits, timeouts, triggers, speed of claims."""

import threading
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.defs import threads_executor


class Recorder:
    """Notes who runs when, and how many at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.log: list[tuple[str, str]] = []
        self.running: set[str] = set()
        self.most: dict[str, int] = {}

    def enter(self, name: str, kind: str = "all") -> None:
        with self.lock:
            self.log.append(("start", name))
            self.running.add(name)
            count = len([each for each in self.running if kind in ("all", each.split("_")[0])])
            self.most[kind] = max(self.most.get(kind, 0), count)

    def leave(self, name: str) -> None:
        with self.lock:
            self.running.discard(name)
            self.log.append(("end", name))

    def starts(self) -> list[str]:
        return [name for what, name in self.log if what == "start"]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def make_op(name: str, work, needs: int = 0, **options) -> dg.OpDefinition:
    def compute(context, _inputs):
        yield dg.Output(work(context), "result")

    return dg.OpDefinition(
        compute,
        name,
        ins={f"after_{index}": dg.In(dg.Nothing) for index in range(needs)},
        outs={"result": dg.Out(dg.Nothing)},
        **options,
    )


def job_of(ops: dict[str, dg.OpDefinition], needs: dict[str, list[str]] | None = None, **config) -> dg.JobDefinition:
    needs = needs or {}
    graph = dg.GraphDefinition(
        name="job",
        node_defs=list(ops.values()),
        dependencies={
            name: {f"after_{index}": dg.DependencyDefinition(need) for index, need in enumerate(needs.get(name, ()))}
            for name in ops
        },
    )
    return graph.to_job(executor_def=threads_executor.configured(config) if config else threads_executor)


def run(job: dg.JobDefinition, instance: dg.DagsterInstance) -> tuple[str, list[dg.DagsterEvent]]:
    made = instance.create_run_for_job(job)
    events = list(execute_run_iterator(InMemoryJob(job), made, instance))
    return instance.get_run_by_id(made.run_id).status.value, events


def error_of(events: list[dg.DagsterEvent], step: str) -> str:
    failure = next(each for each in events if each.is_step_failure and each.step_key == step)
    error, text = failure.step_failure_data.error, ""
    while error is not None:
        text += error.message
        error = error.cause
    return text


def test_no_more_steps_run_at_once_than_allowed(instance: dg.DagsterInstance) -> None:
    seen = Recorder()
    ops = {f"s_{index}": make_op(f"s_{index}", busy(seen, f"s_{index}")) for index in range(8)}

    status, _ = run(job_of(ops, max_concurrent=3), instance)

    assert status == "SUCCESS"
    assert seen.most["all"] == 3


def busy(seen: Recorder, name: str, kind: str = "all", seconds: float = 0.05):
    def work(_context) -> None:
        seen.enter(name, kind)
        time.sleep(seconds)
        seen.leave(name)

    return work


def test_tag_limits_hold_for_the_steps_that_carry_the_tag(instance: dg.DagsterInstance) -> None:
    seen = Recorder()
    ops = {
        f"db_{index}": make_op(f"db_{index}", busy(seen, f"db_{index}", "db"), tags={"kind": "db"})
        for index in range(4)
    }
    ops |= {f"free_{index}": make_op(f"free_{index}", busy(seen, f"free_{index}", "free")) for index in range(4)}
    limits = [{"key": "kind", "value": "db", "limit": 1}]

    run(job_of(ops, max_concurrent=8, tag_concurrency_limits=limits), instance)

    assert seen.most["db"] == 1
    assert seen.most["free"] > 1


def test_ready_steps_start_in_order_of_priority(instance: dg.DagsterInstance) -> None:
    seen = Recorder()
    ops = {
        f"p{priority}": make_op(
            f"p{priority}", busy(seen, f"p{priority}", seconds=0), tags={"dagster/priority": str(priority)}
        )
        for priority in (-1, 3, 1, 2)
        if priority >= 0
    }

    run(job_of(ops, max_concurrent=1), instance)

    assert seen.starts() == ["p3", "p2", "p1"]


def test_step_past_its_timeout_fails_and_the_rest_goes_on(instance: dg.DagsterInstance) -> None:
    def forever(_context) -> None:
        while True:
            time.sleep(0.01)

    ops = {
        "slow": make_op("slow", forever, tags={"tidemill/timeout_s": "0.3"}),
        "after": make_op("after", lambda _: None, needs=1),
        "other": make_op("other", lambda _: None),
    }

    status, events = run(job_of(ops, {"after": ["slow"]}), instance)

    assert status == "FAILURE"
    assert "took longer than its 0.3 s" in error_of(events, "slow")
    assert {each.step_key for each in events if each.is_step_success} == {"other"}


def test_step_within_its_timeout_succeeds(instance: dg.DagsterInstance) -> None:
    ops = {"quick": make_op("quick", lambda _: time.sleep(0.05), tags={"tidemill/timeout_s": "30"})}

    status, _ = run(job_of(ops), instance)

    assert status == "SUCCESS"


def test_thread_that_cannot_be_stopped_is_left_behind_and_what_it_logs_is_dropped(instance: dg.DagsterInstance) -> None:
    release = threading.Event()
    gone = threading.Event()

    def deaf(context) -> None:
        lock = threading.Lock()
        lock.acquire()
        threading.Thread(target=lambda: (release.wait(), lock.release())).start()
        try:
            lock.acquire()  # waits in C: no Python instruction runs, so nothing can be raised
        finally:
            context.log.info("late words")
            gone.set()

    ops = {"deaf": make_op("deaf", deaf, tags={"tidemill/timeout_s": "0.1"})}
    job = job_of(ops, stop_grace_s=0.2)

    status, events = run(job, instance)
    release.set()
    gone.wait(30)

    run_id = instance.get_runs(limit=1)[0].run_id
    assert status == "FAILURE"
    assert "left behind" in error_of(events, "deaf")
    assert not [each for each in instance.all_logs(run_id) if "late words" in (each.user_message or "")]


def test_timed_out_step_is_tried_again_under_its_policy(instance: dg.DagsterInstance) -> None:
    def slow_once(context) -> None:
        while context.retry_number == 0:
            time.sleep(0.01)

    policy = dg.RetryPolicy(max_retries=1)
    ops = {"step": make_op("step", slow_once, tags={"tidemill/timeout_s": "0.3"}, retry_policy=policy)}

    status, events = run(job_of(ops), instance)

    assert status == "SUCCESS"
    assert [each for each in events if each.event_type_value == "STEP_UP_FOR_RETRY"]


@pytest.mark.parametrize(
    ("rule", "upstream_fails", "expected"),
    [
        ("all_done", True, "STEP_SUCCESS"),
        ("all_done", False, "STEP_SUCCESS"),
        ("one_failed", True, "STEP_SUCCESS"),
        ("one_failed", False, "STEP_SKIPPED"),
        (None, True, None),
    ],
)
def test_trigger_rule_decides_what_follows_a_failure(instance, rule, upstream_fails, expected) -> None:
    def upstream(_context) -> None:
        if upstream_fails:
            raise ValueError("no")

    tags = {"tidemill/trigger": rule} if rule else {}
    ops = {"up": make_op("up", upstream), "down": make_op("down", lambda _: None, needs=1, tags=tags)}

    status, events = run(job_of(ops, {"down": ["up"]}), instance)

    ended = [
        each.event_type_value for each in events if each.step_key == "down" and each.event_type_value != "STEP_START"
    ]
    assert (ended[-1] if ended else None) == expected
    assert status == ("FAILURE" if upstream_fails else "SUCCESS")


def test_steps_behind_a_narrow_pool_follow_each_other_without_long_waits() -> None:
    seen = Recorder()
    ops = {f"s_{index}": make_op(f"s_{index}", busy(seen, f"s_{index}", seconds=0.1), pool="one") for index in range(5)}
    with dg.instance_for_test() as instance:
        instance.event_log_storage.set_concurrency_slots("one", 1)

        status, events = run(job_of(ops, max_concurrent=5), instance)

    blocked = [each for each in events if "Step blocked by limit" in (each.message or "")]
    assert status == "SUCCESS"
    assert seen.most["all"] == 1
    assert blocked


def test_hooks_of_steps_run() -> None:
    fired: list[str] = []

    @dg.success_hook
    def cheer(context):
        fired.append(context.op.name)

    job = job_of({"step": make_op("step", lambda _: None)}).with_hooks({cheer})
    with dg.DagsterInstance.ephemeral() as instance:
        _, events = run(job, instance)

    assert fired == ["step"]
    assert [each for each in events if each.event_type_value == "HOOK_COMPLETED"]


def test_failing_resource_fails_the_run_before_any_step() -> None:
    @dg.resource
    def bad(_context):
        raise ValueError("no resource")

    graph = dg.GraphDefinition(name="job", node_defs=[make_op("step", lambda _: None, required_resource_keys={"bad"})])
    job = graph.to_job(executor_def=threads_executor, resource_defs={"bad": bad})
    with dg.DagsterInstance.ephemeral() as instance:
        status, events = run(job, instance)

    assert status == "FAILURE"
    assert not [each for each in events if each.event_type_value == "STEP_START"]


@st.composite
def graphs(draw) -> dict[str, list[str]]:
    count = draw(st.integers(1, 9))
    names = [f"n{index}" for index in range(count)]
    return {
        name: sorted(draw(st.sets(st.sampled_from(names[:index]), max_size=3))) if index else []
        for index, name in enumerate(names)
    }


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(needs=graphs(), threads=st.integers(1, 6))
def test_every_edge_of_a_random_dag_is_respected(
    instance: dg.DagsterInstance, needs: dict[str, list[str]], threads: int
) -> None:
    seen = Recorder()
    ops = {name: make_op(name, busy(seen, name, seconds=0.001), needs=len(wanted)) for name, wanted in needs.items()}

    status, _ = run(job_of(ops, needs, max_concurrent=threads), instance)

    assert status == "SUCCESS"
    assert sorted(seen.starts()) == sorted(needs)
    for name, wanted in needs.items():
        for need in wanted:
            assert seen.log.index(("end", need)) < seen.log.index(("start", name))


def test_kept_connections_record_the_same_and_are_given_back() -> None:
    with dg.instance_for_test() as instance:
        ops = {"a": make_op("a", lambda _: None), "b": make_op("b", lambda _: None, needs=1)}
        _, events = run(job_of(ops, {"b": ["a"]}), instance)

        stored = [
            entry.dagster_event.event_type_value
            for entry in instance.all_logs(instance.get_runs()[0].run_id)
            if entry.dagster_event
        ]

        assert sorted(stored) == sorted(each.event_type_value for each in events)
        assert "_connect" not in vars(instance.event_log_storage)
        assert "connect" not in vars(instance.run_storage)


def test_steps_that_time_out_while_they_log_end_exactly_once_and_nothing_hangs() -> None:
    def chatty(context) -> None:
        end = time.monotonic() + (0.12 if int(context.op.name[1:]) % 2 else 0.01)
        while time.monotonic() < end:
            context.log.info("beat")

    ops = {f"s{index}": make_op(f"s{index}", chatty, tags={"tidemill/timeout_s": "0.06"}) for index in range(30)}
    with dg.instance_for_test() as instance:
        run(job_of(ops, max_concurrent=6), instance)

        ends = [
            entry.step_key
            for entry in instance.all_logs(instance.get_runs()[0].run_id)
            if entry.dagster_event and entry.dagster_event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE")
        ]

    assert sorted(ends) == sorted(ops)
