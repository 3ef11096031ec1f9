"""Records to rows."""

from datetime import UTC, date, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.errors import RecordRejected
from tidemill_ingest_api.records.flatten import compile_stream


def compiled(fields, **more):
    return compile_stream(StreamConfig(name="s", primary_key=["id"], fields={"id": "int64", **fields}, **more))


def test_values_take_their_declared_types():
    fields = {"t": "timestamp", "d": "date", "f": "float64", "b": "bool", "s": "string", "e": "epoch_ms"}
    record = {
        "id": "7",
        "t": "2026-01-01T02:00:00+02:00",
        "d": "2026-01-02T00:00:00+0000",
        "f": 3,
        "b": True,
        "s": 5,
        "e": 1500,
    }

    row = compiled(fields).flatten(record)

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert (7, moment, date(2026, 1, 2), 3.0, True, "5", datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)) == row[:7]


def test_the_document_is_the_row_as_json_with_json_fields_inside():
    row = compiled({"tags": "json", "at": "timestamp", "gone": "string"}).flatten(
        {"id": 1, "tags": {"a": [1, None]}, "at": "2026-01-01T00:00:00"}
    )

    assert b'{"id":1,"tags":{"a":[1,null]},"at":"2026-01-01T00:00:00Z","gone":null}' == row[-1]


def test_nested_paths_reach_objects_and_lists():
    flattener = compiled({"user__login": "string", "first": {"path": "items.0.name", "type": "string"}})

    assert (1, "ada", "x") == flattener.flatten({"id": 1, "user": {"login": "ada"}, "items": [{"name": "x"}]})[:3]
    assert (1, None, None) == flattener.flatten({"id": 1, "user": None, "items": []})[:3]


def test_unknown_values_are_kept_dropped_or_refused_as_declared():
    record = {"id": 1, "user": {"login": "ada", "age": 3}, "x": [1]}
    fields = {"user__login": "string"}

    kept = compiled(fields).flatten(record)[-2]
    dropped = compiled(fields, on_unknown="ignore").flatten(record)[-2]

    assert {"user": {"age": 3}, "x": [1]} == orjson.loads(kept)
    assert dropped is None
    with pytest.raises(RecordRejected, match="user, x"):
        compiled(fields, on_unknown="fail").flatten(record)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int32", 2**31),
        ("int64", 1.5),
        ("int64", True),
        ("int64", "x"),
        ("float64", "nan"),
        ("float64", True),
        ("bool", 1),
        ("string", {"a": 1}),
        ("string", "a\x00b"),
        ("timestamp", "yesterday"),
        ("timestamp", 5),
        ("date", "2026-13-01"),
        ("epoch_s", 1e300),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_field(kind, value):
    with pytest.raises(RecordRejected) as caught:
        compiled({"wrong": kind}).flatten({"id": 1, "wrong": value})

    assert ("s", "wrong") == (caught.value.stream, caught.value.field)


@pytest.mark.parametrize("record", [{"id": None}, {}, [], "text", None])
def test_a_record_without_a_key_is_refused(record):
    with pytest.raises(RecordRejected):
        compiled({}).flatten(record)


def test_nul_characters_are_taken_out_of_undeclared_texts_only():
    kept = compiled({}).flatten({"id": 1, "x": {"a\x00": ["b\x00c", "\\u0000"]}})[-2]

    assert {"x": {"a": ["bc", "\\u0000"]}} == orjson.loads(kept)
    with pytest.raises(RecordRejected, match="NUL"):
        compiled({"x": "json"}).flatten({"id": 1, "x": ["a\x00"]})
    assert b'"\\\\u0000"' in compiled({"x": "json"}).flatten({"id": 1, "x": ["\\u0000"]})[-1]


def test_nesting_that_json_writers_refuse_is_a_bad_record():
    deep = []
    for _ in range(600):
        deep = [deep]

    for fields in ({}, {"x": "json"}):
        with pytest.raises(RecordRejected):
            compiled(fields).flatten({"id": 1, "x": deep})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00."), max_size=5), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "user", "x", "y"]), JSON))
def test_nothing_of_a_record_is_lost(record):
    flattener = compiled({"a": "json", "user": "json"})

    row = flattener.flatten({"id": 1, **record})

    doc, extra = orjson.loads(row[-1]), orjson.loads(row[-2] or "{}")
    found = {name: value for name, value in {**doc, **extra}.items() if name in record}
    assert record == found


@given(
    st.fixed_dictionaries(
        {
            "t": st.none() | st.datetimes(timezones=st.just(UTC)),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "s": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
        }
    )
)
def test_a_document_read_as_a_record_gives_the_same_row(values):
    flattener = compiled({"t": "timestamp", "n": "int64", "f": "float64", "s": "string"})
    record = {"id": 1, **values, "t": values["t"].isoformat() if values["t"] else None}

    row = flattener.flatten(record)

    assert row == flattener.flatten(orjson.loads(row[-1]))
