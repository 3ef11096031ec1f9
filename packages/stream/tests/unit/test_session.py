"""Two sinks in step: whatever fails and whenever, each ends with what a replay gives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill_core.errors import TransientError
from tidemill_stream.errors import Fenced, InvalidRecord, PipelineInvalid, StateTooLarge, TooManyInvalid
from tidemill_stream.progress import Claim, Counts, Partition, Progress
from tidemill_stream.running.session import Session
from tidemill_stream.sinks.memory import MemorySink, MemoryTables
from tidemill_stream.testing import fake_messages, replay

ONE = Partition("flights", 0)


class Crash(TransientError):
    """The process would have died here."""


class CrashingSink(MemorySink):
    """Dies before or after some of its commits."""

    def __init__(self, name, tables, plan):
        super().__init__(name, tables)
        self.plan = plan

    def commit(self, outputs):
        action = next(self.plan, "work")
        if action == "before":
            raise Crash
        written = super().commit(outputs)
        if action == "after":
            raise Crash
        return written


def drive(plan, messages, tables, actions, sizes, *, flush):
    """Run to the end as a drain would, claiming anew after every crash."""
    sizes = itertools.cycle(sizes)
    while True:
        session = Session(plan, [CrashingSink(name, each, actions) for name, each in tables.items()])
        try:
            position = session.claim({ONE: Claim(start=0)})[ONE]
            while position < len(messages):
                size = next(sizes)
                session.feed(ONE, messages[position : position + size])
                position += size
                if size % 2:
                    session.commit()
            if flush:
                session.flush()
            session.commit()
        except Crash:
            continue
        return session


@settings(max_examples=60)
@given(
    actions=st.lists(st.sampled_from(["work", "work", "before", "after"]), max_size=25),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    flush=st.booleans(),
    seed=st.integers(0, 5),
)
def test_both_sinks_end_with_what_a_replay_gives(actions, sizes, flush, seed, make_plan, make_records, as_set):
    plan = make_plan()
    messages = fake_messages(make_records(200, seed=seed))
    tables = {"a": MemoryTables(), "b": MemoryTables()}

    drive(plan, messages, tables, iter(actions), sizes, flush=flush)

    truth = replay(plan, {ONE: messages}, flush=flush)
    for each in tables.values():
        for name in ("rows", "windows", "dlq"):
            assert as_set(each.outputs[name]) == as_set(truth[name])
        progress = each.progress[ONE][0]
        assert progress.counts.consumed == 200
        assert progress.counts.consumed == counted(progress.counts)


def test_a_sink_that_was_added_catches_up_with_flushes_and_all(make_plan, make_records, as_set):
    plan, records = make_plan(), make_records(300)
    messages = fake_messages(records)
    old = MemoryTables()
    for end in (100, 200):  # two drains, each flushed: later records for flushed windows are late
        drive(plan, messages[:end], {"old": old}, iter(()), [37], flush=True)

    both = {"old": old, "new": MemoryTables()}
    drive(plan, messages, both, iter(()), [23], flush=True)

    assert len(old.progress[ONE][0].flushes) == 3
    for name in ("rows", "windows", "dlq"):
        assert as_set(both["new"].outputs[name]) == as_set(old.outputs[name])
    assert both["new"].progress[ONE][1] == old.progress[ONE][1]


def test_a_crash_between_two_commits_of_a_flush_flushes_the_other_sink_too(make_plan, make_records, as_set):
    plan, messages = make_plan(), fake_messages(make_records(100))
    tables = {"a": MemoryTables(), "b": MemoryTables()}

    drive(plan, messages, tables, iter(["work", "before"]), [1000], flush=True)

    truth = replay(plan, {ONE: messages}, flush=True)
    assert as_set(tables["b"].outputs["windows"]) == as_set(truth["windows"])
    assert tables["a"].progress[ONE][0].flushes == tables["b"].progress[ONE][0].flushes == (100,)


def test_an_overtaken_session_writes_nothing(make_plan, make_records):
    plan, messages, tables = make_plan(), fake_messages(make_records(50)), MemoryTables()
    zombie, owner = (Session(plan, [MemorySink("m", tables)]) for _ in range(2))
    zombie.claim({ONE: Claim(start=0)})
    zombie.feed(ONE, messages)
    owner.claim({ONE: Claim(start=0)})
    owner.feed(ONE, messages)
    owner.commit()
    rows = len(tables.outputs["rows"])

    with pytest.raises(Fenced):
        zombie.commit()

    assert len(tables.outputs["rows"]) == rows > 0


def test_without_the_fence_an_overtaken_session_writes_twice(make_plan, make_records):
    plan, messages, tables = make_plan(), fake_messages(make_records(50)), MemoryTables()
    zombie, owner = (Session(plan, [MemorySink("m", tables, is_fencing=False)]) for _ in range(2))
    for each in (zombie, owner):
        each.claim({ONE: Claim(start=0)})
        each.feed(ONE, messages)
    owner.commit()
    rows = len(tables.outputs["rows"])

    zombie.commit()

    assert len(tables.outputs["rows"]) == 2 * rows > 0


def test_messages_of_partitions_we_do_not_hold_and_old_ones_are_dropped(make_plan, make_records):
    plan, messages, tables = make_plan(), fake_messages(make_records(50)), MemoryTables()
    session = Session(plan, [MemorySink("m", tables)])
    session.claim({ONE: Claim(start=0)})

    session.feed(Partition("flights", 7), messages)
    session.feed(ONE, messages[:30])
    session.feed(ONE, messages[10:])
    session.commit()

    assert tables.progress[ONE][0].counts.consumed == 50


def test_gaps_in_the_offsets_are_no_loss(make_plan, make_records):
    plan, messages, tables = make_plan(), fake_messages(make_records(50)), MemoryTables()
    session = Session(plan, [MemorySink("m", tables)])
    session.claim({ONE: Claim(start=0)})

    session.feed(ONE, [message for message in messages if message.offset() % 3])
    session.advance(ONE, 60)
    session.commit()

    progress = tables.progress[ONE][0]
    assert (progress.offset, progress.counts.consumed) == (60, 33)


def counted(counts: Counts) -> int:
    """Records that came to an end of some kind; late ones are rows as well."""
    return counts.rows + counts.filtered + counts.invalid + counts.deleted


def test_filtered_and_invalid_messages_move_the_offset(make_plan):
    plan, tables = make_plan(), MemoryTables()
    session = Session(plan, [MemorySink("m", tables)])
    session.claim({ONE: Claim(start=0)})

    session.feed(ONE, fake_messages([b'{"origin":"JFK","at":"2013-01-01T00:00:00Z","delay":null}', b"bad", None]))
    session.commit()

    progress = tables.progress[ONE][0]
    counts = progress.counts
    assert (progress.offset, counts.filtered, counts.invalid, counts.deleted) == (3, 1, 1, 1)
    assert tables.outputs["rows"] == []


def test_too_many_invalid_records_stop_the_pipeline(make_plan):
    plan, tables = make_plan(limits={"invalid_ratio": 0.5, "invalid_after": 10}), MemoryTables()
    session = Session(plan, [MemorySink("m", tables)])
    session.claim({ONE: Claim(start=0)})

    with pytest.raises(TooManyInvalid):
        session.feed(ONE, fake_messages([b"bad"] * 20))

    assert tables.outputs["dlq"] == []


def test_on_invalid_fail_names_the_record(make_plan):
    session = Session(make_plan(schema={"inline": {"type": "object", "properties": {"a": {"type": "string"}}}, "on_invalid": "fail"},
                                where=None, window=None), [MemorySink("m", MemoryTables())])  # fmt: skip
    session.claim({ONE: Claim(start=0)})

    with pytest.raises(InvalidRecord, match=r"flights\[0\] offset 1"):
        session.feed(ONE, fake_messages([b"{}", b"[]"]))


def test_too_many_open_windows_stop_the_pipeline(make_plan, make_records):
    plan = make_plan(limits={"open_windows": 2}, window={"type": "tumbling", "size_s": 1, "grace_s": 10**6, "time": {"field": "at"}, "key": ["flight"], "aggs": {"n": {"op": "count"}}})  # fmt: skip
    session = Session(plan, [MemorySink("m", MemoryTables())])
    session.claim({ONE: Claim(start=0)})

    with pytest.raises(StateTooLarge):
        session.feed(ONE, fake_messages(make_records(50)))


def test_another_window_definition_refuses_the_open_windows(make_plan, make_records):
    tables = MemoryTables()
    session = Session(make_plan(), [MemorySink("m", tables)])
    session.claim({ONE: Claim(start=0)})
    session.feed(ONE, fake_messages(make_records(50)))
    session.commit()
    changed = make_plan(
        window={"type": "session", "gap_s": 60, "time": {"field": "at"}, "aggs": {"n": {"op": "count"}}}
    )

    with pytest.raises(PipelineInvalid, match="another window definition"):
        Session(changed, [MemorySink("m", tables)]).claim({ONE: Claim(start=0)})


def test_progress_survives_packing(make_plan, make_records):
    session = Session(make_plan(), [MemorySink("m", tables := MemoryTables())])
    session.claim({ONE: Claim(start=0, log_end=70)})
    session.feed(ONE, fake_messages(make_records(50)))
    session.commit()
    progress, packed = tables.progress[ONE]

    again = Progress(offset=progress.offset).unpack(packed)

    assert again.pack() == packed
    assert (again.counts, again.watermark_us) == (progress.counts, progress.watermark_us)
    assert not tables.progress[ONE][0].is_drained or progress.log_end == 50
