"""Where to begin: new, behind, drained, emptied, created anew, or lost."""

from __future__ import annotations

import pytest
from tidemill_stream.errors import OffsetLost, RecordsDropped, TopicEmptied, TopicMissing, TopicRecreated
from tidemill_stream.kafka.recovery import claims_for, decide
from tidemill_stream.kafka.source import TopicLog
from tidemill_stream.progress import Partition, Progress

P0, P1 = Partition("flights", 0), Partition("flights", 1)


def log(*highs, identity="A", low=0, first=None, is_embedded=False):
    spans = {number: (low, high) for number, high in enumerate(highs)}
    return TopicLog(topic="flights", spans=spans, identity=identity, first=first or {}, is_embedded=is_embedded)


def held(offset, *, log_end=None, incarnation="id:A", flushes=(), windows=()):
    return Progress(
        offset=offset,
        log_end=offset if log_end is None else log_end,
        incarnation=incarnation,
        flushes=flushes,
        windows=windows,
    )


@pytest.fixture
def config(make_plan):
    def make(**source):
        return make_plan(source={"topics": "flights", **source}).config

    return make


def test_a_new_topic_is_read_from_its_beginning(config):
    start = decide(config(), [log(5, 0)], [{}])

    assert (start.ends, start.claims[P0].start, start.claims[P0].incarnation) == ({P0: 5}, 0, "id:A")


def test_latest_begins_at_the_end(config):
    first = decide(config(start="latest"), [log(5, 0)], [{}])

    # Nothing is to be read, and where the log ends is to be noted: else the next drain began later still.
    assert ({each: claim.start for each, claim in first.claims.items()}, first.ends) == ({P0: 5, P1: 0}, {P0: 5, P1: 0})
    assert claims_for(config(start="latest"), [log(5)], [{}], [P0])[P0].start == 5


def test_a_partition_that_is_added_later_begins_at_its_first_record_also_from_latest(config):
    stored = [{P0: held(5)}]

    drained = decide(config(start="latest"), [log(5, 7)], stored)
    served = claims_for(config(start="latest"), [log(5, 7)], stored, [P0, P1])

    assert (drained.claims[P1].start, drained.ends) == (0, {P1: 7})
    assert served[P1].start == 0


def test_drained_partitions_are_left_alone(config):
    start = decide(config(), [log(5, 7)], [{P0: held(5), P1: held(6)}])

    assert start.ends == {P1: 7}


def test_a_sink_that_lags_is_work(config):
    start = decide(config(), [log(5)], [{P0: held(5)}, {P0: held(3)}])

    assert start.ends == {P0: 5}


def test_a_sink_that_lacks_a_flush_is_work(config):
    start = decide(config(), [log(5)], [{P0: held(5, flushes=(5,))}, {P0: held(5)}])

    assert start.ends == {P0: 5}


def test_open_windows_are_work_when_flushing(config):
    stored = [{P0: held(5, windows=([0, [], [1]],))}]

    assert decide(config(), [log(5)], stored, flush=False).claims == {}
    assert decide(config(), [log(5)], stored, flush=True).ends == {P0: 5}


def test_a_missing_topic_that_was_never_read_is_an_error(config):
    with pytest.raises(TopicMissing):
        decide(config(), [log()], [{}])


def test_an_emptied_topic_after_a_full_drain_is_no_work(config):
    for empty in (log(), log(0, 0), log(0, 0, identity=None), log(0, 0, identity="B")):
        start = decide(config(), [empty], [{P0: held(5), P1: held(7)}])

        assert (start.claims, start.vanished) == ({}, ["flights"])


def test_an_emptied_topic_with_work_left_is_an_error_in_both_modes(config):
    for mode in ("fail", "restart"):
        with pytest.raises(TopicRecreated, match="only 5 of 9"):
            decide(config(on_recreated=mode), [log(0, 0, identity=None)], [{P0: held(5, log_end=9)}])


def test_an_emptied_topic_with_sinks_apart_is_an_error(config):
    with pytest.raises(TopicRecreated):
        decide(config(), [log(0)], [{P0: held(5)}, {P0: held(3, log_end=5)}])


def test_a_topic_created_anew_is_refused_or_restarted_whole(config):
    stored = [{P0: held(5), P1: held(0, incarnation="")}]

    with pytest.raises(TopicRecreated, match="id:B"):
        decide(config(), [log(8, 9, identity="B")], stored)
    start = decide(config(on_recreated="restart"), [log(8, 9, identity="B")], stored)

    assert start.restarted == ["flights"]
    assert all(start.claims[each].restart for each in (P0, P1))
    assert start.ends == {P0: 8, P1: 9}


def test_without_topic_ids_the_first_record_tells(config):
    stored = [{P0: held(5, incarnation="first:x")}]

    same = decide(config(), [log(8, identity=None, first={0: "first:x"})], stored)
    with pytest.raises(TopicRecreated):
        decide(config(), [log(8, identity=None, first={0: "first:y"})], stored)

    assert same.ends == {P0: 8}


def test_a_log_that_ends_before_the_checkpoint_was_created_anew(config):
    with pytest.raises(TopicRecreated, match="ends at offset 3"):
        decide(config(), [log(3, identity=None)], [{P0: held(5, incarnation="")}])


def test_a_restart_drops_partitions_that_are_gone(config):
    start = decide(config(on_recreated="restart"), [log(8, identity="B")], [{P0: held(5), P1: held(7)}])

    assert (start.claims[P1].restart, start.ends[P1]) == (True, 0)


def test_lost_records_are_an_error_or_skipped(config):
    stored = [{P0: held(5)}]

    with pytest.raises(OffsetLost, match="15 records"):
        decide(config(), [log(30, low=20)], stored)
    start = decide(config(on_lost="skip"), [log(30, low=20)], stored)

    assert (start.ends, start.reads) == ({P0: 30}, {P0: 20})


@pytest.mark.parametrize(
    ("on_recreated", "stored"),
    [
        ("fail", [{}]),
        ("fail", [{P0: held(30)}, {}]),
        ("restart", [{P0: held(30, incarnation="id:older")}]),
    ],
    ids=["new", "new sink", "created anew"],
)
def test_an_embedded_log_that_does_not_begin_at_0_is_refused(config, stored, on_recreated):
    with pytest.raises(RecordsDropped, match=r"first 20 records.*TIDEMILL_KAFKA_BOOTSTRAP.*real-servers"):
        decide(config(on_recreated=on_recreated), [log(30, low=20, is_embedded=True)], stored)


def test_what_an_embedded_log_dropped_after_it_was_read_is_no_loss(config):
    start = decide(config(), [log(40, low=20, is_embedded=True)], [{P0: held(30)}])

    assert start.ends == {P0: 40}


def test_a_real_log_may_begin_later_by_its_retention_and_an_embedded_one_if_the_file_says_so(config):
    real = decide(config(), [log(30, low=20)], [{}])
    skipped = decide(config(on_lost="skip"), [log(30, low=20, is_embedded=True)], [{}])
    latest = decide(config(start="latest"), [log(30, low=20, is_embedded=True)], [{}])

    assert (real.reads, skipped.reads) == ({P0: 20}, {P0: 20})
    assert (latest.claims[P0].start, latest.ends) == (30, {P0: 30})


def test_a_service_claims_what_it_was_assigned(config):
    claims = claims_for(config(), [log(5, 7)], [{P0: held(5)}], [P0, P1])

    assert (set(claims), claims[P1].log_end) == ({P0, P1}, 7)


def test_a_service_waits_for_an_emptied_topic(config):
    with pytest.raises(TopicEmptied):
        claims_for(config(), [log(0)], [{P0: held(5)}], [P0])
