"""The bounded drain against brokers: what it reads, when it stops, and what a changed topic does."""

from __future__ import annotations

import random

import pytest
from tidemill_core.lifecycle import Stopped, StopToken
from tidemill_stream import drain, ensure_topic, produce, sink_context, watermarks
from tidemill_stream.errors import (
    DeliveryFailed,
    PipelineBusy,
    PipelineInvalid,
    RecordsDropped,
    TopicMissing,
    TopicRecreated,
)
from tidemill_stream.progress import Claim, Partition
from tidemill_stream.running.status import status, verify
from tidemill_stream.sinks._base import open_sinks
from tidemill_stream.sinks.memory import memory_tables
from tidemill_stream.testing import FakeMessage, replay


def placed(records, partitions=4):
    """Records with their partition, as produced and as a log to replay."""
    sent, logs = [], {}
    for number, value in enumerate(records):
        partition = number % 3 if partitions > 1 else 0
        log = logs.setdefault(partition, [])
        log.append(FakeMessage(len(log), value, b"k"))
        sent.append((partition, b"k", value))
    return sent, logs


@pytest.fixture
def memory_plan(make_plan, request):
    return lambda servers, **source: make_plan(
        name=f"p{abs(hash(request.node.nodeid))}",
        source={"topics": "flights", "bootstrap_servers": servers, **source},
        sinks=[{"type": "memory"}],
        limits={"batch_records": 50},
    )


def test_drain_equals_a_replay_and_a_second_drain_does_nothing(own_mock_broker, memory_plan, make_records, as_set):
    servers, _ = own_mock_broker()
    sent, logs = placed(make_records(2_000))
    produce(servers, "flights", sent)
    plan = memory_plan(servers)

    first = drain(plan, servers, sink_context(plan))
    second = drain(plan, servers, sink_context(plan))

    truth = replay(plan, {Partition("flights", n): log for n, log in logs.items()}, flush=True)
    found = memory_tables(plan.config.name).outputs
    for name in ("rows", "windows", "dlq"):
        assert as_set(found[name]) == as_set(truth[name])
    assert (first.did_work, first.done.consumed, first.lag) == (True, 2_000, 0)
    assert (second.did_work, second.done.consumed, second.totals.consumed) == (False, 0, 2_000)


def test_the_version_of_the_outputs_changes_with_every_commit_and_only_then(own_mock_broker, memory_plan, make_records):
    servers, end = own_mock_broker()
    produce(servers, "flights", make_records(100))
    plan = memory_plan(servers, on_recreated="restart")

    versions = [drain(plan, servers, sink_context(plan)).version for _ in range(2)]
    produce(servers, "flights", make_records(10))
    versions.append(drain(plan, servers, sink_context(plan)).version)
    end()
    other, _ = own_mock_broker()
    produce(other, "flights", make_records(110))
    again = memory_plan(other, on_recreated="restart")
    versions.append(drain(again, other, sink_context(again)).version)

    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_drain_stops_at_the_end_that_was_there_when_it_began(own_mock_broker, memory_plan, make_records):
    servers, _ = own_mock_broker()
    produce(servers, "flights", make_records(500))
    plan = memory_plan(servers)

    result = drain(
        plan, servers, sink_context(plan), on_progress=lambda _: produce(servers, "flights", make_records(50))
    )

    assert result.done.consumed == 500
    assert drain(plan, servers, sink_context(plan)).done.consumed >= 50


def test_a_stopped_drain_keeps_what_it_did(own_mock_broker, memory_plan, make_records):
    servers, _ = own_mock_broker()
    produce(servers, "flights", make_records(500))
    plan, stop = memory_plan(servers), StopToken()

    with pytest.raises(Stopped):
        drain(plan, servers, sink_context(plan), stop=stop, on_progress=lambda _: stop.set("test"))
    done = status(plan, sink_context(plan)).totals.consumed
    rest = drain(plan, servers, sink_context(plan))

    assert 0 < done <= 500
    assert rest.totals.consumed == 500


def test_an_ended_broker_after_a_full_drain_is_no_work(own_mock_broker, memory_plan, make_records):
    servers, end = own_mock_broker()
    produce(servers, "flights", make_records(300))
    plan = memory_plan(servers)
    drain(plan, servers, sink_context(plan))
    end()

    servers, _ = own_mock_broker()
    result = drain(plan, servers, sink_context(plan))

    assert (result.did_work, result.vanished, result.totals.consumed) == (False, ("flights",), 300)


def test_an_ended_broker_that_was_filled_again_is_refused_or_restarted(
    own_mock_broker, memory_plan, make_records, as_set
):
    servers, end = own_mock_broker()
    sent, logs = placed(make_records(300, seed=1))
    produce(servers, "flights", sent)
    plan = memory_plan(servers)
    drain(plan, servers, sink_context(plan))
    end()
    servers, _ = own_mock_broker()
    sent, logs = placed(make_records(400, seed=2))
    produce(servers, "flights", sent)

    with pytest.raises(TopicRecreated):
        drain(plan, servers, sink_context(plan))
    plan = memory_plan(servers, on_recreated="restart")
    result = drain(plan, servers, sink_context(plan))
    again = drain(plan, servers, sink_context(plan))

    truth = replay(plan, {Partition("flights", n): log for n, log in logs.items()}, flush=True)
    found = memory_tables(plan.config.name).outputs
    assert all(as_set(found[name]) == as_set(truth[name]) for name in ("rows", "windows", "dlq"))
    assert (result.restarted, result.totals.consumed, again.did_work) == (("flights",), 400, False)


def test_a_missing_topic_is_named(own_mock_broker, memory_plan):
    servers, _ = own_mock_broker()
    plan = memory_plan(servers)

    with pytest.raises(TopicMissing, match="flights"):
        drain(plan, servers, sink_context(plan))


def test_publishing_resumes_where_a_killed_publisher_stopped(own_mock_broker, make_records):
    servers, _ = own_mock_broker()
    sent, _ = placed(make_records(300))
    produce(servers, "flights", sent[:170])

    resumed = produce(servers, "flights", sent, resume=True)
    again = produce(servers, "flights", sent, resume=True)

    assert (resumed.sent, resumed.skipped, again.sent) == (130, 170, 0)
    assert sum(high for _, high in watermarks(servers, "flights").values()) == 300


TOO_MANY = 200_000


def too_many(records=TOO_MANY):
    """About 7.5 MB, compressed, for each of four partitions: more than the embedded broker holds."""
    noise = random.Random(1)
    return ((n % 4, b"k", b'{"n": %d, "x": "%s"}' % (n, noise.randbytes(150).hex().encode())) for n in range(records))


@pytest.mark.parametrize("resume", [True, False])
def test_publishing_more_than_the_embedded_broker_holds_is_an_error_also_the_next_time(own_mock_broker, resume):
    servers, _ = own_mock_broker()

    with pytest.raises(RecordsDropped, match="TIDEMILL_KAFKA_BOOTSTRAP"):
        produce(servers, "big", too_many(), resume=resume)
    with pytest.raises((RecordsDropped, DeliveryFailed)):
        produce(servers, "big", too_many(), resume=True)


def test_a_drain_never_passes_over_what_the_embedded_broker_dropped(own_mock_broker, make_plan):
    servers, _ = own_mock_broker()
    with pytest.raises(RecordsDropped):
        produce(servers, "flights", too_many())
    given = {"name": "dropped", "sinks": [{"type": "memory"}], "limits": {"invalid_ratio": 1}}
    plan = make_plan(source={"topics": "flights", "bootstrap_servers": servers}, **given)

    with pytest.raises(RecordsDropped, match="begins at offset"):
        drain(plan, servers, sink_context(plan))
    # The negative control: without the check the drain ends well, and lacks what was dropped.
    skipping = make_plan(source={"topics": "flights", "bootstrap_servers": servers, "on_lost": "skip"}, **given)
    result = drain(skipping, servers, sink_context(skipping))

    assert (0, True) == (result.lag, result.totals.consumed < TOO_MANY)


def test_an_embedded_topic_is_known_by_its_brokers_identity(tmp_path, monkeypatch, memory_plan, make_records):
    from tidemill_core.embedded.kafka import ensure_kafka, identity_of

    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TIDEMILL_KAFKA_BOOTSTRAP", raising=False)
    broker = ensure_kafka(tmp_path / "home")
    produce(broker.url, "flights", make_records(40))
    plan = memory_plan(broker.url)

    drain(plan, broker.url, sink_context(plan))

    (sink,) = open_sinks(sink_context(plan))
    found = {each.incarnation for each in sink.read(("flights",)).values()}
    assert {f"id:{broker.identity}"} == found
    assert identity_of(tmp_path / "home", "127.0.0.1:1") is None
    assert identity_of(tmp_path / "other", broker.url) is None


def test_json_columns_are_jsonb_in_postgres(own_mock_broker, make_plan, postgres_url):
    import psycopg

    servers, _ = own_mock_broker()
    produce(servers, "flights", [(b"k", b'{"a":{"b":[1,"x"]},"n":1.5}'), (b"k", b'{"a":null}')])
    plan = make_plan(
        source={"topics": "flights", "bootstrap_servers": servers},
        schema={},
        where=None,
        window=None,
        rows={"columns": {"a": "json", "n": "number"}},
        sinks=[{"type": "postgres", "url": postgres_url, "rows_table": "events.things", "dlq_table": "events.dead"}],
    )

    drain(plan, servers, sink_context(plan))

    with psycopg.connect(postgres_url) as connection:
        found = connection.execute("select a, n, pg_typeof(a)::text from events.things order by _offset").fetchall()
    assert found == [({"b": [1, "x"]}, 1.5, "jsonb"), (None, None, "jsonb")]


def test_a_table_that_lacks_columns_is_refused_before_anything_is_read(own_mock_broker, make_plan, postgres_url):
    import psycopg

    servers, _ = own_mock_broker()
    produce(servers, "flights", [b"{}"])
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create schema events; create table events.flights (origin text)")
    sinks = [{"type": "postgres", "url": postgres_url, "rows_table": "events.flights", "dlq_table": "events.dead"}]
    plan = make_plan(source={"topics": "flights", "bootstrap_servers": servers}, sinks=sinks)

    with pytest.raises(PipelineInvalid, match="_offset"):
        drain(plan, servers, sink_context(plan))


# --- real servers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def both_sinks(make_plan, kafka_bootstrap, kafka_topic, postgres_url, tmp_path):
    def make(**changes):
        source = {"topics": kafka_topic, "bootstrap_servers": kafka_bootstrap, **changes.pop("source", {})}
        sinks = [
            {"type": "postgres", "url": postgres_url, "rows_table": "events.flights", "windows_table": "events.hourly",
             "dlq_table": "events.dead"},
            {"type": "object_store", "url": tmp_path.as_uri(), "rows": "flights", "windows": "hourly", "dlq": "dead"},
        ]  # fmt: skip
        return make_plan(source=source, sinks=sinks, **changes)

    return make


def test_real_kafka_into_postgres_and_files(both_sinks, kafka_bootstrap, kafka_topic, make_records):
    plan = both_sinks(checkpoint={"rows": 700})
    sent, logs = placed(make_records(3_000))
    produce(kafka_bootstrap, kafka_topic, sent)

    result = drain(plan, kafka_bootstrap, sink_context(plan))

    truth = replay(plan, {Partition(kafka_topic, n): log for n, log in logs.items()}, flush=True)
    held = {(each.sink, each.output): each.rows for each in verify(plan, sink_context(plan))}
    assert {held[sink, "rows"] for sink, _ in held} == {len(truth["rows"])}
    assert {held[sink, "windows"] for sink, _ in held} == {len(truth["windows"])}
    assert result.totals.consumed == 3_000
    stored = status(plan, sink_context(plan))
    assert stored.is_drained
    (sink, _) = open_sinks(sink_context(plan))
    assert all(each.incarnation.startswith("id:") for each in sink.read([kafka_topic]).values())


def test_a_real_topic_created_anew_restarts(both_sinks, kafka_bootstrap, kafka_topic, make_records):
    from confluent_kafka.admin import AdminClient

    plan = both_sinks(source={"on_recreated": "restart"})
    produce(kafka_bootstrap, kafka_topic, make_records(300))
    drain(plan, kafka_bootstrap, sink_context(plan))
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.delete_topics([kafka_topic])[kafka_topic].result()
    _until(lambda: kafka_topic not in admin.list_topics(timeout=5).topics)
    ensure_topic(kafka_bootstrap, kafka_topic)
    produce(kafka_bootstrap, kafka_topic, make_records(200, seed=9))

    result = drain(plan, kafka_bootstrap, sink_context(plan))

    assert (result.restarted, result.totals.consumed) == ((kafka_topic,), 200)
    assert all(each.is_exact for each in verify(plan, sink_context(plan)))


def test_transaction_markers_at_the_end_are_no_lag(both_sinks, kafka_bootstrap, kafka_topic, make_records):
    from confluent_kafka import Producer

    plan = both_sinks()
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": f"t-{kafka_topic}"})
    producer.init_transactions()
    for ending in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for value in make_records(100):
            producer.produce(kafka_topic, value=value, partition=0)
        producer.flush()
        ending()

    result = drain(plan, kafka_bootstrap, sink_context(plan))
    again = drain(plan, kafka_bootstrap, sink_context(plan))

    assert (result.done.consumed, result.lag, again.did_work) == (100, 0, False)
    assert [each.end for each in result.partitions] == [202]


def test_a_drain_keeps_away_from_a_live_service(both_sinks, kafka_bootstrap, kafka_topic, make_records):
    plan = both_sinks()
    produce(kafka_bootstrap, kafka_topic, make_records(50))
    service = open_sinks(sink_context(plan, lease_s=30, owner="the service"))
    for sink in service:
        sink.prepare()
        sink.claim({Partition(kafka_topic, 0): Claim(start=0)})

    with pytest.raises(PipelineBusy, match="the service"):
        drain(plan, kafka_bootstrap, sink_context(plan))

    assert drain(plan, kafka_bootstrap, sink_context(plan), takeover=True).done.consumed == 50


def _until(condition, seconds=20):
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@pytest.mark.parametrize("sink", ["postgres", "object_store"])
def test_from_latest_the_first_drain_notes_where_it_began_and_the_next_reads_what_came(
    own_mock_broker, make_plan, make_records, postgres_url, tmp_path, sink
):
    servers, _ = own_mock_broker()
    before, _ = placed(make_records(30), partitions=1)
    after, _ = placed(make_records(20, seed=5), partitions=1)
    sinks = {
        "postgres": {
            "type": "postgres",
            "url": postgres_url,
            "rows_table": "events.flights",
            "dlq_table": "events.dead",
        },
        "object_store": {"type": "object_store", "url": f"file://{tmp_path}/lake", "rows": "flights", "dlq": "dead"},
    }
    plan = make_plan(
        source={"topics": "flights", "bootstrap_servers": servers, "start": "latest"},
        sinks=[sinks[sink]],
        window=None,
        flush_on_drain=False,
    )
    produce(servers, "flights", before)

    first = drain(plan, servers, sink_context(plan))
    again = drain(plan, servers, sink_context(plan))
    produce(servers, "flights", after)
    second = drain(plan, servers, sink_context(plan))

    assert (first.done.consumed, again.done.consumed, second.done.consumed) == (0, 0, 20)
    assert [(each.start, each.end) for each in second.partitions if each.end > 30] == [(30, 50)]


def test_status_asks_the_broker_and_says_when_it_does_not_answer(own_mock_broker, memory_plan, make_records):
    servers, end_broker = own_mock_broker()
    sent, _ = placed(make_records(100))
    produce(servers, "flights", sent[:60])
    plan = memory_plan(servers)
    drain(plan, servers, sink_context(plan))
    drained = status(plan, sink_context(plan), servers=servers)
    produce(servers, "flights", sent[60:])

    behind = status(plan, sink_context(plan), servers=servers)
    of_checkpoint = status(plan, sink_context(plan))
    end_broker()
    lost = status(plan, sink_context(plan), servers=servers)

    assert (drained.log_ends_of, drained.is_drained) == ("broker", True)
    assert (behind.log_ends_of, behind.is_drained, sum(each.lag for each in behind.partitions)) == ("broker", False, 40)
    assert (of_checkpoint.log_ends_of, of_checkpoint.is_drained) == ("checkpoint", True)
    assert lost.log_ends_of == "checkpoint"
    assert servers.split(",")[0] in str(lost.trouble)
