"""The manifest: one winner per entry, orphans told from commits, large states kept apart."""

from __future__ import annotations

import pytest
from tidemill_core.storage import open_store
from tidemill_stream.errors import Fenced
from tidemill_stream.progress import Claim, Partition, Progress
from tidemill_stream.running.session import Session
from tidemill_stream.sinks._base import open_sinks, sink_context
from tidemill_stream.sinks.manifest import Manifest, data_key, entry_of, read_manifest, sweep
from tidemill_stream.testing import fake_messages

ONE = Partition("flights", 0)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path.as_uri())


@pytest.fixture
def session(make_plan, store):
    plan = make_plan(sinks=[{"type": "object_store", "url": store.url, "rows": "flights", "dlq": "dead"}])

    def make():
        return Session(plan, open_sinks(sink_context(plan, open_store=lambda _: store)))

    return make


def entry(progress, token):
    return entry_of(progress, ONE, kind="commit", token=token, owner="me", pipeline="p", epoch=progress.epoch)


def test_an_entry_is_created_once(store):
    manifest, progress = Manifest(store, "_manifest", "p"), Progress(offset=3, epoch=1)

    assert manifest.append(ONE, 1, entry(progress, "a"), progress.pack())
    assert not manifest.append(ONE, 1, entry(progress, "b"), progress.pack())
    assert manifest.append(ONE, 1, entry(progress, "a"), progress.pack())  # a repeated request of ours

    assert manifest.head(ONE).entry.token == "a"


def test_a_large_state_stands_in_an_object_of_its_own(store):
    manifest = Manifest(store, "_manifest", "p")
    progress = Progress(offset=3, epoch=1, windows=tuple([n, ["key" * 10], [n]] for n in range(20_000)))

    manifest.append(ONE, 1, entry(progress, "a"), progress.pack())

    head = manifest.head(ONE)
    assert head.entry.state is None
    assert head.progress.pack() == progress.pack()
    assert manifest.partitions(["flights"]) == [ONE]


def test_sweeping_deletes_what_an_abandoned_commit_left_and_nothing_else(store, session, make_records):
    dead = session()
    dead.claim({ONE: Claim(start=0)})
    orphan = data_key("flights", ONE, (0, 7), 1)
    store.put(orphan, b"written, never committed")
    current = session()
    current.claim({ONE: Claim(start=0)})
    current.feed(ONE, fake_messages(make_records(30)))
    current.commit()
    under_way = data_key("flights", ONE, (30, 40), 2)
    store.put(under_way, b"being committed by the owner")
    store.put("flights/README.txt", b"somebody else's")

    deleted = sweep(store, "flights", ["flights", "dead"])

    assert deleted == [orphan]
    kept = {info.key for info in store.list("flights/")}
    assert {under_way, "flights/README.txt"} <= kept
    assert {each.key for each in read_manifest(store, "flights") if each.output == "rows"} <= kept


def test_a_restart_makes_old_files_waste(store, session, make_records):
    first = session()
    first.claim({ONE: Claim(start=0)})
    first.feed(ONE, fake_messages(make_records(30)))
    first.commit()
    old = {each.key for each in read_manifest(store, "flights")}

    session().claim({ONE: Claim(start=0, restart=True)})

    assert read_manifest(store, "flights") == []
    assert set(sweep(store, "flights", ["flights", "dead"])) == old


def test_a_loser_deletes_its_own_files(store, session, make_records):
    loser = session()
    loser.claim({ONE: Claim(start=0)})
    loser.feed(ONE, fake_messages(make_records(30)))
    session().claim({ONE: Claim(start=0)})

    with pytest.raises(Fenced):
        loser.commit()

    assert list(store.list("flights/")) == []
