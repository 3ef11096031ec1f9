"""Wire values, judged by the driver's own binary loaders instead of a server."""

import datetime as dt
import struct
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.postgres import types
from psycopg.pq import Format
from tidemill_core.postgres.wire import array_wire, interval_wire, numeric_wire, wire_values

INT4, TEXT, NUMERIC = types["int4"].oid, types["text"].oid, types["numeric"].oid
MICROSECOND = dt.timedelta(microseconds=1)
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)


def load(type_: str, data: bytes, *, array: bool = False):
    """Read a wire value as the driver reads what a server sends."""
    oid = types[type_].array_oid if array else types[type_].oid
    return Transformer().get_loader(oid, Format.BINARY).load(data)


@given(st.decimals(allow_nan=False, allow_infinity=False))
@example(Decimal("0.0001"))
@example(Decimal("0.00010000"))
@example(Decimal("10000.0001"))
@example(Decimal(100000000))
@example(Decimal("-99999999.9999"))
@example(Decimal("1E+5"))
@example(Decimal("-0.000"))
def test_a_decimal_is_read_back_with_its_sign_and_every_place(value):
    found = load("numeric", numeric_wire(value))

    assert value == found
    assert max(0, -value.as_tuple().exponent) == -found.as_tuple().exponent
    assert not found.is_zero() or not found.is_signed()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_special_decimals_keep_their_name_and_have_no_digits(text):
    data = numeric_wire(Decimal(text))

    assert text == str(load("numeric", data))
    assert (0, 0, 0) == (*struct.unpack(">hh", data[:4]), *struct.unpack(">h", data[6:]))


def test_a_quiet_nan_with_a_payload_or_sign_is_nan():
    assert numeric_wire(Decimal("NaN")) == numeric_wire(Decimal("-NaN")) == numeric_wire(Decimal("sNaN12"))


@pytest.mark.parametrize(
    ("value", "head"),
    [
        (Decimal("0.00"), (0, 0, 0, 2)),
        (Decimal(1), (1, 0, 0, 0)),
        (Decimal(-10000), (1, 1, 0x4000, 0)),
        (Decimal("0.00000001"), (1, -2, 0, 8)),
        (Decimal("12345.678"), (3, 1, 0, 3)),
    ],
)
def test_a_number_is_as_short_as_the_server_would_write_it(value, head):
    data = numeric_wire(value)

    assert head == struct.unpack(">hhHh", data[:8])
    assert 8 + 2 * head[0] == len(data)


@pytest.mark.parametrize("text", ["9" * 131_072, "1E+131071", "1E-16383", "0." + "9" * 16_383])
def test_the_largest_and_finest_numbers_of_a_numeric_are_written(text):
    value = Decimal(text)

    found = load("numeric", numeric_wire(value))

    assert 0 == value.compare_total_mag(found) or value == found


@pytest.mark.parametrize(
    ("text", "exponent"), [("9" * 131_073, 0), ("1E+131072", 131_072), ("1E-16384", -16_384), ("1E+999999", 999_999)]
)
def test_a_number_beyond_a_numeric_is_refused_by_its_exponent(text, exponent):
    with pytest.raises(ValueError, match=f"exponent {exponent} is outside PostgreSQL's numeric"):
        numeric_wire(Decimal(text))


@given(months=INT32, days=INT32, microseconds=INT64)
@example(months=1, days=2, microseconds=3)
def test_an_interval_has_the_fields_of_interval_recv_in_their_order(months, days, microseconds):
    data = interval_wire(months, days, microseconds)

    assert (microseconds, days, months) == struct.unpack(">qii", data)


@given(months=st.integers(-1200, 1200), days=st.integers(-9_999, 9_999), microseconds=st.integers(-(10**15), 10**15))
def test_an_interval_is_read_back_by_the_driver(months, days, microseconds):
    # The driver counts a year as 365 days and the months that are left as 30 days each.
    years, rest = divmod(abs(months), 12)
    whole_days = (365 * years + 30 * rest) * (1 if months >= 0 else -1) + days

    found = load("interval", interval_wire(months, days, microseconds))

    assert dt.timedelta(days=whole_days, microseconds=microseconds) == found


@pytest.mark.parametrize("field", ["months", "days", "microseconds"])
def test_an_interval_field_beyond_its_size_is_an_error_and_never_wrapped(field):
    limit = 2**63 if field == "microseconds" else 2**31

    for value in (limit, -limit - 1):
        with pytest.raises(struct.error):
            interval_wire(**{"months": 0, "days": 0, "microseconds": 0, field: value})


@given(st.lists(st.none() | INT32, max_size=8))
@example([])
@example([None])
@example([1])
def test_an_array_of_integers_is_read_back_with_its_nulls(values):
    wire = [None if value is None else struct.pack(">i", value) for value in values]

    data = array_wire(wire, INT4)

    assert values == load("int4", data, array=True)


@given(st.lists(st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), max_size=8))
def test_an_array_of_texts_is_read_back_with_empty_texts_apart_from_nulls(values):
    data = array_wire([None if value is None else value.encode() for value in values], TEXT)

    assert values == load("text", data, array=True)


def test_the_head_of_an_array_says_dimensions_nulls_type_length_and_lower_bound():
    whole, holed, none = (array_wire(each, NUMERIC) for each in ([b"x"], [b"x", None], []))

    assert (1, 0, NUMERIC, 1, 1) == struct.unpack(">iiIii", whole[:20])
    assert (1, 1, NUMERIC, 2, 1) == struct.unpack(">iiIii", holed[:20])
    assert (0, 0, NUMERIC) == struct.unpack(">iiI", none)
    assert [1, *b"x"] == [struct.unpack(">i", whole[20:24])[0], *whole[24:]]


def test_an_element_type_above_the_signed_range_is_written():
    assert 2**32 - 1 == struct.unpack(">I", array_wire([b""], 2**32 - 1)[8:12])[0]


COLUMNS = [
    ("int2", pa.int16(), [-(2**15), None, 2**15 - 1]),
    ("int4", pa.int32(), [-(2**31), None, 2**31 - 1]),
    ("int8", pa.int64(), [-(2**63), None, 2**63 - 1]),
    ("float4", pa.float32(), [0.5, None, -1.25]),
    ("float8", pa.float64(), [0.1, None, 1e300]),
    ("bool", pa.bool_(), [True, None, False]),
    ("text", pa.string(), ["", None, "grüß"]),
    ("text", pa.large_string(), ["", None, "grüß"]),
    ("bytea", pa.binary(), [b"", None, b"\x00\xff"]),
    ("bytea", pa.large_binary(), [b"", None, b"\x00\xff"]),
    ("numeric", pa.decimal128(9, 2), [Decimal("1.10"), None, Decimal("-20.00")]),
    ("numeric", pa.decimal256(40, 0), [Decimal(10**39), None, Decimal(-1)]),
    ("interval", pa.duration("us"), [MICROSECOND, None, -MICROSECOND * 10**9]),
]


@pytest.mark.parametrize(("type_", "arrow", "values"), COLUMNS, ids=[f"{sql}-{arrow}" for sql, arrow, _ in COLUMNS])
def test_a_column_of_every_type_is_read_back_with_its_nulls(type_, arrow, values):
    written = wire_values(pa.array(values, arrow))

    assert values == [None if each is None else load(type_, each) for each in written]


def test_a_duration_longer_than_python_knows_keeps_its_microseconds():
    column = pa.array([2**63 - 1], pa.int64()).cast(pa.duration("us"))

    assert [struct.pack(">qii", 2**63 - 1, 0, 0)] == wire_values(column)
