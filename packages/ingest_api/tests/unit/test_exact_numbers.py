"""Whole numbers of any size keep every digit, from the API's answer to what is served."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_ingest_api.api.formats import csv_rows, project
from tidemill_ingest_api.errors import InvalidResponse
from tidemill_ingest_api.fetching.decode import decode_json
from tidemill_ingest_api.records import exact
from tidemill_ingest_api.records.kinds import KINDS

BIG = 18446744073709551617
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
)


@given(VALUES)
def test_a_document_comes_back_with_every_digit(value: Any) -> None:
    assert value == exact.loads(exact.dumps(value)) == json.loads(exact.dumps(value, sort_keys=True))
    assert value == decode_json(json.dumps([value]).encode(), {}, "http://api")[0]


def test_text_json_and_what_is_served_hold_the_number_itself() -> None:
    (record,) = decode_json(b'[{"id": %d, "deep": {"id": [%d]}}]' % (BIG, BIG), {}, "http://api")
    doc = exact.dumps({"text": str(BIG), "deep": record["deep"]})

    assert str(BIG) == KINDS["string"].convert(record["id"])
    assert '{"id":[18446744073709551617]}' == KINDS["json"].convert(record["deep"])
    assert [b'{"deep":{"id":[18446744073709551617]}}'] == list(project([doc], ["deep"]))
    assert str(BIG).encode() in csv_rows([doc], ["deep"], has_header=False)
    with pytest.raises(ValueError, match="18446744073709551617 does not fit 64 bits"):
        KINDS["int64"].convert(record["id"])
    assert float(BIG) == KINDS["float64"].convert(record["id"])


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"[" + b"9" * 5000 + b"]", "infinity"), (b"[" * 1000 + b"9" * 30 + b"]" * 1000, "nested too deep")],
)
def test_what_cannot_be_read_exactly_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidResponse, match=message):
        decode_json(body, {}, "http://api")
