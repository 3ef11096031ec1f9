"""Every sink keeps the contract: all or nothing, fenced by epoch, restartable, and readable while it grows."""

from __future__ import annotations

import io
from dataclasses import replace

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.rows import dict_row
from tidemill_core.storage import open_store
from tidemill_stream.errors import Fenced
from tidemill_stream.progress import Claim, Partition
from tidemill_stream.running.session import Session
from tidemill_stream.sinks._base import SINKS, sink_context
from tidemill_stream.sinks.manifest import read_manifest
from tidemill_stream.sinks.memory import memory_tables
from tidemill_stream.testing import fake_messages, replay

ONE, TWO = Partition("flights", 0), Partition("flights", 1)
TABLES = {"rows_table": "events.flights", "windows_table": "events.hourly", "dlq_table": "events.dead"}
PREFIXES = {"rows": "flights", "windows": "hourly", "dlq": "dead"}


class Bench:
    """One sink under test: opens it anew, and reads what a user of its outputs reads."""

    def __init__(self, plan, context, tables):
        self.plan, self.context, self.tables = plan, context, tables

    def open(self, **changes):
        sink = SINKS.get(self.plan.config.sinks[0].type)(self.plan.config.sinks[0], replace(self.context, **changes))
        sink.prepare()
        return sink

    def session(self, **changes):
        return Session(self.plan, [self.open(**changes)])


@pytest.fixture(params=["memory", "postgres", "file", "s3"])
def bench(request, make_plan, tmp_path):
    if request.param == "memory":
        plan = make_plan(name=f"m{tmp_path.name}", sinks=[{"type": "memory"}])
        return Bench(plan, sink_context(plan), lambda: memory_tables(plan.config.name).outputs)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        plan = make_plan(sinks=[{"type": "postgres", "url": url, **TABLES}])
        return Bench(plan, sink_context(plan), lambda: _postgres(url))
    url, options = (tmp_path.as_uri(), None) if request.param == "file" else request.getfixturevalue("s3_bucket")
    plan = make_plan(sinks=[{"type": "object_store", "url": url, **PREFIXES}])
    store = open_store(url, options)
    return Bench(plan, sink_context(plan, open_store=lambda _: store), lambda: _objects(store))


def _postgres(url):
    names = {"rows": "events.flights", "windows": "events.hourly", "dlq": "events.dead"}
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return {name: connection.execute(f"select * from {table}").fetchall() for name, table in names.items()}


def _objects(store):
    tables = {"rows": [], "windows": [], "dlq": []}
    for each in read_manifest(store, "flights"):
        tables[each.output] += pq.read_table(io.BytesIO(store.get(each.key))).to_pylist()
    return tables


def same(found, truth, as_set):
    return all(as_set(found[name]) == as_set(truth[name]) for name in ("rows", "windows", "dlq"))


def test_outputs_equal_a_replay_over_several_commits_and_claims(bench, make_records, as_set):
    logs = {ONE: fake_messages(make_records(150, seed=1)), TWO: fake_messages(make_records(90, seed=2))}

    for end in (40, 95, 150):
        session = bench.session()
        offsets = session.claim({each: Claim(start=0, incarnation="id:A", log_end=150) for each in logs})
        for partition, messages in logs.items():
            session.feed(partition, messages[offsets[partition] : end])
        session.commit()
    session.flush()
    session.commit()

    assert same(bench.tables(), replay(bench.plan, logs, flush=True), as_set)
    progress = bench.open().read(["flights"])
    assert {each: (p.offset, p.epoch, p.incarnation) for each, p in progress.items()} == {
        ONE: (150, 3, "id:A"),
        TWO: (90, 3, "id:A"),
    }
    assert progress[TWO].log_end == 150


def test_an_overtaken_owner_is_refused_and_changes_nothing(bench, make_records, as_set):
    messages = fake_messages(make_records(60))
    zombie = bench.session()
    zombie.claim({ONE: Claim(start=0), TWO: Claim(start=0)})
    zombie.feed(ONE, messages)
    owner = bench.session()
    owner.claim({ONE: Claim(start=0)})

    with pytest.raises(Fenced):
        zombie.commit()
    owner.feed(ONE, messages)
    owner.commit()

    assert same(bench.tables(), replay(bench.plan, {ONE: messages}), as_set)


def test_an_owner_overtaken_after_a_commit_is_refused(bench, make_records, as_set):
    messages = fake_messages(make_records(60))
    zombie = bench.session()
    zombie.claim({ONE: Claim(start=0)})
    zombie.feed(ONE, messages[:20])
    zombie.commit()
    owner = bench.session()
    assert owner.claim({ONE: Claim(start=0)}) == {ONE: 20}
    owner.feed(ONE, messages[20:])
    owner.commit()
    zombie.feed(ONE, messages[20:40])

    with pytest.raises(Fenced):
        zombie.commit()

    assert same(bench.tables(), replay(bench.plan, {ONE: messages}), as_set)


def test_renewal_tells_the_overtaken(bench):
    first, second = bench.open(), bench.open()
    first.claim({ONE: Claim(start=0)})
    first.renew([ONE])
    second.claim({ONE: Claim(start=0)})

    with pytest.raises(Fenced):
        first.renew([ONE])


def test_a_restart_drops_only_the_partition_it_names(bench, make_records, as_set):
    old, other = fake_messages(make_records(60, seed=3)), fake_messages(make_records(60, seed=4))
    session = bench.session()
    session.claim({ONE: Claim(start=0, incarnation="id:A"), TWO: Claim(start=0, incarnation="id:A")})
    session.feed(ONE, old)
    session.feed(TWO, other)
    session.commit()
    new = fake_messages(make_records(30, seed=5))

    session = bench.session()
    offsets = session.claim({ONE: Claim(start=0, incarnation="id:B", restart=True)})
    session.feed(ONE, new)
    session.commit()

    assert offsets == {ONE: 0}
    assert same(bench.tables(), replay(bench.plan, {ONE: new, TWO: other}), as_set)
    assert bench.open().read(["flights"])[ONE].incarnation == "id:B"


def test_reading_claims_nothing(bench, make_records):
    session = bench.session()
    session.claim({ONE: Claim(start=0)})

    bench.open().read(["flights"])
    session.feed(ONE, fake_messages(make_records(10)))

    assert session.commit()


def test_nothing_is_stored_of_other_topics(bench):
    bench.open().claim({ONE: Claim(start=0)})

    assert bench.open().read(["others"]) == {}
    assert set(bench.open().read(["flights"])) == {ONE}
