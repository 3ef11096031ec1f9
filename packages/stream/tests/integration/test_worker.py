"""The long-lived service on a real Kafka: joining, sharing, dying, being overtaken, stopping."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace

import psycopg
import pytest
from psycopg.rows import dict_row
from tidemill_core.lifecycle import StopToken
from tidemill_core.services.processes import wait_until
from tidemill_stream import Worker, drain, produce, sink_context
from tidemill_stream.errors import PipelineBusy
from tidemill_stream.progress import Claim, Partition
from tidemill_stream.running.status import status
from tidemill_stream.sinks._base import open_sinks
from tidemill_stream.testing import FakeMessage, replay

TABLES = {"rows_table": "events.flights", "windows_table": "events.hourly", "dlq_table": "events.dead"}
COMMAND = [sys.executable, "-c", "import sys; from tidemill_core.cli import main; main(sys.argv[1:])", "stream"]


@pytest.fixture
def service(make_plan, kafka_bootstrap, kafka_topic, postgres_url):
    """The changes that make the flights pipeline a service on a topic and a database of the test's own."""
    return {
        "name": kafka_topic,
        "source": {
            "topics": kafka_topic,
            "bootstrap_servers": kafka_bootstrap,
            "properties": {"session.timeout.ms": 6_000},
        },
        "sinks": [{"type": "postgres", "url": postgres_url, **TABLES}],
        "checkpoint": {"interval_s": 0.2, "rows": 500},
    }


@pytest.fixture
def running():
    """Run workers in threads; all are stopped at the end."""
    started = []

    def run(plan, servers, **more):
        context = replace(sink_context(plan, lease_s=30), **more)
        worker = Worker(plan, servers, context, stop=StopToken())
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker, thread

    yield run
    for worker, thread in started:
        worker.stop.set("the test ends")
        thread.join(30)


def until(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def consumed(plan):
    return status(plan, sink_context(plan)).totals.consumed


def incarnations(plan, topic):
    (sink,) = open_sinks(sink_context(plan))
    try:
        return {each.incarnation for each in sink.read([topic]).values()}
    finally:
        sink.close()


def publish(servers, topic, records, logs):
    sent = []
    for number, value in enumerate(records):
        log = logs.setdefault(Partition(topic, number % 4), [])
        log.append(FakeMessage(len(log), value))
        sent.append((number % 4, None, value))
    produce(servers, topic, sent)


def assert_exact(plan, url, logs, as_set):
    truth = replay(plan, logs)
    with psycopg.connect(url, row_factory=dict_row) as connection:
        for name, table in (("rows", "events.flights"), ("windows", "events.hourly"), ("dlq", "events.dead")):
            assert as_set(connection.execute(f"select * from {table}").fetchall()) == as_set(truth[name]), name


def test_service_follows_the_topic_and_stops_clean(
    service, running, make_plan, make_records, kafka_bootstrap, kafka_topic, postgres_url, as_set
):
    plan, logs = make_plan(**service), {}
    publish(kafka_bootstrap, kafka_topic, make_records(800, seed=1), logs)
    worker, thread = running(plan, kafka_bootstrap)
    until(lambda: consumed(plan) == 800)

    publish(kafka_bootstrap, kafka_topic, make_records(400, seed=2), logs)
    until(lambda: consumed(plan) == 1_200)

    assert (worker.ready(), worker.live()) == (None, None)
    assert sum(worker.status()["partitions"].values()) == 1_200
    with pytest.raises(PipelineBusy):
        drain(plan, kafka_bootstrap, sink_context(plan))
    worker.stop.set("enough")
    thread.join(20)
    assert not thread.is_alive()
    assert_exact(plan, postgres_url, logs, as_set)
    assert drain(plan, kafka_bootstrap, sink_context(plan)).done.consumed == 0  # the lease has ended


def test_an_overtaken_service_joins_again_and_loses_nothing(
    service, running, make_plan, make_records, kafka_bootstrap, kafka_topic, postgres_url, as_set
):
    plan, logs = make_plan(**service), {}
    publish(kafka_bootstrap, kafka_topic, make_records(300, seed=1), logs)
    running(plan, kafka_bootstrap)
    until(lambda: consumed(plan) == 300)
    (thief,) = open_sinks(sink_context(plan, owner="thief"))
    thief.claim({Partition(kafka_topic, number): Claim(start=0) for number in range(4)})

    publish(kafka_bootstrap, kafka_topic, make_records(300, seed=2), logs)

    until(lambda: consumed(plan) == 600)
    assert_exact(plan, postgres_url, logs, as_set)


@pytest.mark.parametrize("count", [200, 900], ids=["shorter", "longer"])
def test_a_service_survives_its_topic_being_created_anew(
    count, service, running, make_plan, make_records, kafka_bootstrap, kafka_topic, postgres_url, as_set, monkeypatch
):
    from confluent_kafka.admin import AdminClient

    monkeypatch.setattr("tidemill_stream.running.worker.IDENTITY_S", 1.0)
    service["source"]["on_recreated"] = "restart"
    plan, logs = make_plan(**service), {}
    publish(kafka_bootstrap, kafka_topic, make_records(300, seed=1), logs)
    running(plan, kafka_bootstrap)
    until(lambda: consumed(plan) == 300)
    before = incarnations(plan, kafka_topic)
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.delete_topics([kafka_topic])[kafka_topic].result()
    until(lambda: kafka_topic not in admin.list_topics(timeout=5).topics)

    logs = {}
    publish(kafka_bootstrap, kafka_topic, make_records(count, seed=2), logs)

    # a longer log is first read on from the old offset; the id then tells, and all of it is dropped
    until(lambda: incarnations(plan, kafka_topic).isdisjoint(before) and consumed(plan) == count, 90)
    assert_exact(plan, postgres_url, logs, as_set)


@pytest.mark.chaos
def test_a_killed_member_is_replaced_and_the_last_one_ends_on_sigterm(
    service, pipeline_file, make_plan, make_records, kafka_bootstrap, kafka_topic, postgres_url, as_set
):
    plan, logs = make_plan(**service), {}
    path = pipeline_file(**service)
    publish(kafka_bootstrap, kafka_topic, make_records(500, seed=1), logs)
    members = [
        subprocess.Popen([*COMMAND, "run", str(path), "--health-port", "0"], stderr=subprocess.PIPE) for _ in range(2)
    ]
    try:
        health = [_health_url(member) for member in members]
        until(lambda: all(_is_ready(url) for url in health))
        members[0].kill()
        publish(kafka_bootstrap, kafka_topic, make_records(2_000, seed=2), logs)

        until(lambda: consumed(plan) == 2_500, 60)
        metrics = urllib.request.urlopen(f"{health[1]}/metrics", timeout=5).read().decode()
        members[1].send_signal(signal.SIGTERM)
        code = members[1].wait(30)
    finally:
        for member in members:
            member.kill()
            member.wait()

    assert code == 0
    assert "tidemill_stream_records_consumed_total" in metrics
    assert_exact(plan, postgres_url, logs, as_set)


def _health_url(process):
    for line in process.stderr:
        if b"health on" in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return line.decode().split("health on ")[1].strip()
    raise AssertionError("the service ended")


def _is_ready(url):
    try:
        return urllib.request.urlopen(f"{url}/readyz", timeout=5).status == 200
    except OSError:
        return False


def test_the_brokers_own_group_protocol_serves_as_well(service, make_plan, running, make_records):
    properties = {"group.protocol": "consumer"}
    plan = make_plan(**{**service, "source": {**service["source"], "properties": properties}})
    servers = plan.config.source.bootstrap_servers
    first, _ = running(plan, servers)
    second, _ = running(plan, servers, owner="second")
    assert wait_until(lambda: first.ready() is None and second.ready() is None, 60)

    produce(servers, plan.config.name, [(number % 4, b"k", value) for number, value in enumerate(make_records(400))])

    assert wait_until(lambda: status(plan, sink_context(plan), servers=servers).totals.consumed == 400, 60)
    shares = [set(each.status()["partitions"]) for each in (first, second)]
    assert shares[0].isdisjoint(shares[1])
