"""One partition's records: columns, times, lateness, and both decoding paths."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_stream.errors import AggregateOverflow
from tidemill_stream.processor import Processor
from tidemill_stream.progress import Partition, Progress
from tidemill_stream.records.event_time import time_parser, to_datetime
from tidemill_stream.testing import FakeMessage, fake_messages, replay

ONE = Partition("flights", 0)
TYPES = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "at": {"type": "string"},
    "tags": {"type": "array"},
    "more": {"type": "object", "properties": {"deep": {"type": "string"}}},
}
COLUMNS = {"text": "string", "whole": "integer", "number": "number", "flag": "boolean", "at": "timestamp", "tags": "json",
           "deep": {"field": "more.deep", "type": "string"}}  # fmt: skip


@pytest.fixture(scope="session")
def columns_plan(make_plan):
    return lambda **changes: make_plan(
        schema={"inline": {"type": "object", "properties": TYPES}},
        rows={"columns": COLUMNS},
        where=None,
        window=None,
        **changes,
    )


def test_values_of_every_type_arrive_in_their_columns(columns_plan):
    record = {"text": "Zoë\n\t", "whole": 2**62, "number": 2**53 + 1, "flag": False, "at": "2024-02-29T12:00:00.5+02:00",
              "tags": [1, {"a": None}], "more": {"deep": "x", "other": 1}, "unknown": 5}  # fmt: skip

    full, empty = replay(columns_plan(), {ONE: fake_messages([orjson.dumps(record), b"{}"])})["rows"]

    assert full == {
        "text": "Zoë\n\t", "whole": 2**62, "number": float(2**53 + 1), "flag": False,
        "at": datetime(2024, 2, 29, 10, 0, 0, 500_000, tzinfo=UTC), "tags": '[1,{"a":null}]', "deep": "x",
        "_topic": "flights", "_partition": 0, "_offset": 0,
    }  # fmt: skip
    assert all(empty[name] is None for name in COLUMNS)


def test_a_json_object_column_keeps_what_the_schema_does_not_name(make_plan):
    plan = make_plan(
        schema={"inline": {"type": "object", "properties": TYPES}},
        rows={"columns": {"more": "json"}},
        where=None,
        window=None,
    )

    (row,) = replay(plan, {ONE: fake_messages([b'{"more":{"deep":"x","other":null}}'])})["rows"]

    assert row["more"] == '{"deep":"x","other":null}'


def test_a_value_that_fits_no_column_is_set_aside_alone(columns_plan):
    values = [
        b'{"text":"a"}',
        b'{"at":"yesterday"}',
        b'{"text":"\\u0000"}',
        b'{"tags":["\\u0000"]}',
        b'{"whole":9223372036854775808}',
    ]

    tables = replay(columns_plan(), {ONE: fake_messages(values)})

    assert [row["_offset"] for row in tables["rows"]] == [0]
    assert [letter["reason"] for letter in tables["dlq"]] == ["unfit"] * 4


def test_a_record_far_in_the_future_does_not_close_windows(make_plan):
    window = {
        "type": "tumbling",
        "size_s": 60,
        "time": {"field": "at"},
        "aggs": {"n": {"op": "count"}},
        "max_future_s": 3600,
    }
    now = datetime(2024, 1, 1, tzinfo=UTC)
    messages = [
        FakeMessage(
            offset, orjson.dumps({"origin": "JFK", "at": at.isoformat()}), timestamp_ms=int(now.timestamp() * 1000)
        )
        for offset, at in enumerate([now, now.replace(year=2030), now])
    ]

    tables = replay(make_plan(window=window, where=None), {ONE: messages}, flush=True)

    assert [(window["n"]) for window in tables["windows"]] == [2]
    assert [letter["reason"] for letter in tables["dlq"]] == ["future"]


def test_a_late_record_keeps_its_row_and_is_told(make_plan):
    values = [orjson.dumps({"origin": "JFK", "delay": 1, "at": f"2024-01-01T{hour:02}:00:00Z"}) for hour in (0, 5, 0)]

    tables = replay(make_plan(), {ONE: fake_messages(values)}, flush=True)

    assert len(tables["rows"]) == 3
    assert [window["departures"] for window in tables["windows"]] == [1, 1]
    assert [(letter["offset"], letter["reason"]) for letter in tables["dlq"]] == [(2, "late")]


def test_dead_letters_hold_the_message_whole(make_plan):
    message = FakeMessage(3, b"\xff", b"key\x00", 1_700_000_000_000, [("trace", b"\xfe"), ("none", None)])

    (letter,) = replay(make_plan(), {ONE: [message]})["dlq"]

    assert (letter["value"], letter["key"], letter["offset"], letter["reason"]) == (b"\xff", b"key\x00", 3, "malformed")
    assert letter["headers"] == '[["trace","\\\\xfe"],["none",null]]'
    assert letter["timestamp"] == datetime.fromtimestamp(1_700_000_000, UTC)


def test_the_second_look_gives_the_same_rows(make_plan, make_records, as_set):
    fast = make_plan()
    slow = make_plan(schema={"inline": {**fast.config.schema_.inline, "allOf": [True]}})
    messages = {ONE: fake_messages(make_records(300))}
    assert (fast.decoder.fast is None, slow.decoder.fast is None) == (False, True)

    one, other = replay(fast, messages, flush=True), replay(slow, messages, flush=True)

    for name in ("rows", "windows", "dlq"):
        assert as_set(one[name], without=("timestamp", "schema_hash")) == as_set(
            other[name], without=("timestamp", "schema_hash")
        )


@given(cuts=st.sets(st.integers(0, 300), max_size=12))
def test_rows_windows_and_letters_do_not_depend_on_batches(cuts, make_plan, make_records, as_set):
    plan, messages = make_plan(), fake_messages(make_records(300))
    tables = {"rows": [], "windows": [], "dlq": []}
    progress, edges = Progress(offset=0), sorted({0, *cuts, 300})

    for start, end in pairwise(edges):
        processor = Processor(plan, ONE, progress)
        processor.feed(messages[start:end])
        if end == 300:
            processor.flush()
        output = processor.take()
        progress = Progress(offset=output.progress.offset).unpack(output.progress.pack())
        for batch in output.rows:
            tables["rows"] += batch.to_pylist()
        for name, batch in (("windows", output.windows), ("dlq", output.dead)):
            tables[name] += [] if batch is None else batch.to_pylist()

    truth = replay(plan, {ONE: messages}, flush=True)
    assert all(as_set(tables[name]) == as_set(truth[name]) for name in tables)


@pytest.mark.parametrize(
    ("form", "value", "micros"),
    [
        ("iso8601", "1970-01-01", 0),
        ("iso8601", "1970-01-01T01:00:00+01:00", 0),
        ("iso8601", "1969-12-31T23:59:59.999999Z", -1),
        ("iso8601", "nonsense", None),
        ("iso8601", 5, None),
        ("epoch_s", 1.5, 1_500_000),
        ("epoch_ms", -1, -1_000),
        ("epoch_us", 2**70, None),
        ("epoch_s", True, None),
        ("epoch_s", float("nan"), None),
    ],
)  # fmt: skip
def test_times_are_whole_microseconds(form, value, micros):
    assert time_parser(form)(value) == micros


def test_microseconds_become_datetimes():
    assert to_datetime(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


SUMS = {
    "schema": {"inline": {"type": "object", "properties": {"id": {"type": "integer"}, "at": {"type": "string"}}}},
    "where": None,
    "window": {
        "type": "tumbling",
        "size_s": 60,
        "time": {"field": "at"},
        "aggs": {"total": {"op": "sum", "field": "id"}, "n": {"op": "count"}},
    },
}
DAY = b"2013-01-01T00:00:00Z"


def big_records(count: int) -> list[bytes]:
    return [b'{"id": %d, "at": "%s"}' % (2**62, DAY)] * count


def test_a_sum_beyond_64_bits_is_a_dead_letter_with_its_window(make_plan) -> None:
    plan = make_plan(**SUMS)
    processor = Processor(plan, ONE, Progress(offset=0))
    ends = [b'{"id": 5, "at": "2013-01-01T00:02:00Z"}', b'{"id": 1, "at": "2013-01-01T01:00:00Z"}']

    processor.feed(fake_messages([*big_records(3), *ends]))
    output = processor.take()

    assert output.windows is not None
    assert [5] == output.windows.column("total").to_pylist()
    assert output.dead is not None
    (letter,) = output.dead.to_pylist()
    assert ("overflow", "$.total") == (letter["reason"], letter["path"])
    assert str(3 * 2**62) == orjson.loads(letter["value"])["total"]
    assert {"overflow": 1} == output.reasons
    assert (1, 0) == (output.progress.counts.windows, output.progress.counts.invalid)


def test_an_open_window_with_a_sum_beyond_64_bits_is_stored_and_goes_on(make_plan) -> None:
    plan = make_plan(**SUMS)
    processor = Processor(plan, ONE, Progress(offset=0))
    processor.feed(fake_messages(big_records(5)))
    stored = processor.take().progress

    again = Progress(offset=stored.offset).unpack(stored.pack())
    resumed = Processor(plan, ONE, again)
    resumed.feed(fake_messages([*big_records(5), *big_records(1)])[5:])
    resumed.flush()
    (letter,) = resumed.take().dead.to_pylist()

    assert str(6 * 2**62) == orjson.loads(letter["value"])["total"]


def test_a_sum_beyond_64_bits_without_dead_letters_stops_with_a_reason(make_plan) -> None:
    sinks = [{"type": "object_store", "url": "memory://x", "windows": "w"}]
    schema = {**SUMS["schema"], "on_invalid": "drop"}
    processor = Processor(make_plan(**{**SUMS, "schema": schema, "sinks": sinks}), ONE, Progress(offset=0))
    processor.feed(fake_messages(big_records(3)))
    processor.flush()

    with pytest.raises(AggregateOverflow, match="'total' of a window is 13835058055282163712, beyond 64 bits"):
        processor.take()


@pytest.mark.parametrize(("rule", "letters"), [("skip", 0), ("dlq", 2)])
def test_tombstones_have_a_rule_of_their_own_and_are_no_invalid_records(make_plan, rule: str, letters: int) -> None:
    plan = make_plan(
        source={"topics": "flights", "tombstones": rule},
        schema={"inline": SUMS["schema"]["inline"], "on_invalid": "fail"},
        where=None,
        window=None,
        flush_on_drain=False,
    )
    processor = Processor(plan, ONE, Progress(offset=0))

    processor.feed(fake_messages([None, b'{"id": 1}', None]))
    output = processor.take()

    counts = output.progress.counts
    assert (3, 1, 0, 2) == (counts.consumed, counts.rows, counts.invalid, counts.deleted)
    assert letters == (0 if output.dead is None else output.dead.num_rows)
    assert output.dead is None or {"tombstone"} == set(output.dead.column("reason").to_pylist())
