"""Questions of readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_ingest_api.errors import BadQuery
from tidemill_ingest_api.stores.query import (
    Select,
    apply_cursor,
    parse_filter,
    parse_key,
    parse_limit,
    parse_order,
    sign_cursor,
)
from tidemill_ingest_api.testing.suites import STREAM, record, rows_of

SELECT = Select(order=parse_order(STREAM, "heat"))
DOC = rows_of(record("x", 1))[0][-1]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("tags", "eq.1"),
        ("nope", "eq.1"),
        ("heat", "1"),
        ("heat", "near.1"),
        ("heat", "eq.warm"),
        ("heat", "like.a*"),
        ("heat", "is.none"),
        ("number", "in.1,2"),
        ("number", "in.(" + ",".join("1" * 201) + ")"),
        ("place", "eq." + "x" * 2000),
        ("heat", "eq.nan"),
    ],
)
def test_what_is_not_offered_is_refused(column, text):
    with pytest.raises(BadQuery):
        parse_filter(STREAM, column, text)


def test_lists_may_hold_quoted_commas():
    assert ("a,b", "c") == parse_filter(STREAM, "place", 'in.("a,b",c)').values


def test_the_order_always_ends_with_the_whole_key():
    order = parse_order(STREAM, "-heat,number")

    assert [("heat", True), ("number", False), ("place", False)] == [(o.column, o.is_descending) for o in order]
    for wrong in ("tags", "heat,heat", "x;y"):
        with pytest.raises(BadQuery):
            parse_order(STREAM, wrong)


@pytest.mark.parametrize("text", ["0", "1001", "-1", "x", "1.5", "٣", "9" * 30])
def test_limits_out_of_bounds_are_refused(text):
    with pytest.raises(BadQuery):
        parse_limit(text)


def test_a_key_needs_all_its_parts():
    assert ("x", 1) == parse_key(STREAM, ["x", "1"])
    for wrong in (["x"], ["x", "1", "2"], ["x", "one"]):
        with pytest.raises(BadQuery):
            parse_key(STREAM, wrong)


def test_a_cursor_carries_the_last_rows_sort_values():
    cursor = sign_cursor(b"k", STREAM, SELECT, DOC)

    assert (1.5, "x", 1) == apply_cursor(b"k", STREAM, SELECT, cursor).after


def test_a_cursor_of_another_key_question_or_table_is_refused():
    cursor = sign_cursor(b"k", STREAM, SELECT, DOC)
    others = [
        Select(order=parse_order(STREAM, "-heat")),
        Select(order=SELECT.order, filters=(parse_filter(STREAM, "number", "eq.1"),)),
    ]

    with pytest.raises(BadQuery):
        apply_cursor(b"another", STREAM, SELECT, cursor)
    for other in others:
        with pytest.raises(BadQuery):
            apply_cursor(b"k", STREAM, other, cursor)
    with pytest.raises(BadQuery):
        apply_cursor(b"k", STREAM.model_copy(update={"name": "others"}), SELECT, cursor)


@given(position=st.integers(0, 200), flip=st.integers(1, 255))
def test_a_cursor_with_any_byte_changed_is_refused(position, flip):
    from base64 import urlsafe_b64decode, urlsafe_b64encode

    cursor = sign_cursor(b"k", STREAM, SELECT, DOC)
    raw = bytearray(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[position % len(raw)] ^= flip
    forged = urlsafe_b64encode(bytes(raw)).decode().rstrip("=")

    with pytest.raises(BadQuery):
        apply_cursor(b"k", STREAM, SELECT, forged)


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_cursor(text):
    with pytest.raises(BadQuery):
        apply_cursor(b"k", STREAM, SELECT, text)
