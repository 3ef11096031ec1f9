"""Every Arrow type, through binary COPY, read back equal; and everything that is refused."""
# ruff: noqa: DTZ001 - local times are part of what is tested

import datetime as dt
import math
import os
from decimal import Decimal
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.postgres import (
    ColumnRefused,
    CopyWriter,
    Policy,
    ValueRefused,
    column_types,
    connect,
    copy_into,
    create_table,
    faults,
)

D = Decimal
TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=20)
INSTANT = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))


def _int(bits, signed=True):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def _decimal(digits, scale):
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda n: D(n).scaleb(-scale, _EXACT))


_EXACT = __import__("decimal").Context(prec=100)
_WHOLE_NS = st.integers(-(2**52), 2**52).map(lambda us: us * 1000)
TYPES = [
    (pa.bool_(), st.booleans()),
    (pa.int8(), _int(8)),
    (pa.int16(), _int(16)),
    (pa.int32(), _int(32)),
    (pa.int64(), _int(64)),
    (pa.uint8(), _int(8, False)),
    (pa.uint16(), _int(16, False)),
    (pa.uint32(), _int(32, False)),
    (pa.uint64(), _int(64, False)),
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.decimal32(9, 3), _decimal(9, 3)),
    (pa.decimal64(18, 0), _decimal(18, 0)),
    (pa.decimal128(38, 10), _decimal(38, 10)),
    (pa.decimal128(6, -3), _decimal(6, -3)),
    (pa.decimal256(76, 20), _decimal(76, 20)),
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), st.binary(max_size=20)),
    (pa.large_binary(), st.binary(max_size=20)),
    (pa.binary_view(), st.binary(max_size=20)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda t: t.replace(microsecond=0))),
    (pa.time32("ms"), st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    (pa.time64("us"), st.times()),
    (pa.time64("ns"), st.times()),
    (pa.timestamp("s"), INSTANT.map(lambda t: t.replace(microsecond=0))),
    (pa.timestamp("ms"), INSTANT.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    (pa.timestamp("us"), INSTANT),
    (pa.timestamp("ns"), st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2250, 1, 1))),
    (pa.timestamp("us", "UTC"), INSTANT.map(lambda t: t.replace(tzinfo=dt.UTC))),
    (
        pa.timestamp("ns", "America/New_York"),
        st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2250, 1, 1)).map(lambda t: t.replace(tzinfo=dt.UTC)),
    ),
    (pa.duration("s"), st.integers(-(10**9), 10**9).map(lambda s: dt.timedelta(seconds=s))),
    (pa.duration("us"), st.integers(-(10**15), 10**15).map(lambda us: dt.timedelta(microseconds=us))),
    (pa.duration("ns"), st.integers(-(10**15), 10**15).map(lambda us: dt.timedelta(microseconds=us))),
    (pa.null(), st.none()),
    (pa.list_(pa.int32()), st.lists(st.none() | _int(32), max_size=4)),
    (pa.large_list(pa.string()), st.lists(st.none() | TEXT, max_size=4)),
    (pa.list_(pa.float64()), st.lists(st.floats(allow_nan=False), max_size=4)),
    (pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=4)),
    (pa.list_(pa.decimal128(12, 2)), st.lists(st.none() | _decimal(12, 2), max_size=4)),
    (pa.list_(pa.timestamp("us", "UTC")), st.lists(INSTANT.map(lambda t: t.replace(tzinfo=dt.UTC)), max_size=3)),
    (pa.list_(pa.date32()), st.lists(st.none() | st.dates(), max_size=3)),
    (pa.list_(pa.int16(), 2), st.lists(_int(16), min_size=2, max_size=2)),
    (pa.list_(pa.list_(pa.int64())), st.lists(st.lists(_int(32), max_size=3), max_size=3)),
    (pa.struct([("a", pa.int32()), ("b", pa.string())]), st.fixed_dictionaries({"a": st.none() | _int(32), "b": TEXT})),
    (pa.dictionary(pa.int8(), pa.string()), TEXT),
    (pa.dictionary(pa.int16(), pa.int64()), _int(64)),
]


@pytest.fixture
def conn(postgres_url):
    with connect(postgres_url) as connection:
        yield connection


@st.composite
def _tables(draw):
    picked = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=6))
    rows = draw(st.integers(0, 8))
    values = [draw(st.lists(st.none() | one, min_size=rows, max_size=rows)) for _, one in picked]
    arrays = [_array(each, type_) for (type_, _), each in zip(picked, values, strict=True)]
    names = [f"c{at}" for at in range(len(arrays))]
    start = draw(st.integers(0, rows))
    return pa.table(arrays, names=names).slice(start), [each[start:] for each in values], [type_ for type_, _ in picked]


def _array(values, type_):
    if pa.types.is_dictionary(type_):
        return pa.array(values, type_.value_type).dictionary_encode().cast(type_)
    if pa.types.is_float16(type_):
        return pa.array(values, pa.float64()).cast(type_)
    return pa.array(values, type_)


def _same(expected, found):
    if isinstance(expected, float) and isinstance(found, float):
        return (math.isnan(expected) and math.isnan(found)) or expected == found
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(_same, expected, found))
    return expected == found and (
        not isinstance(expected, Decimal) or expected.is_signed() == found.is_signed() or not expected
    )


@settings(
    max_examples=int(os.environ.get("TIDEMILL_TEST_EXAMPLES", "80")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(given_table=_tables())
def test_every_type_comes_back_equal(conn, given_table):
    table, values, _ = given_table
    conn.execute("DROP TABLE IF EXISTS t")
    create_table(conn, "t", table.schema)

    result = copy_into(conn, "t", table)

    found = conn.cursor(binary=True).execute("SELECT * FROM t ORDER BY ctid").fetchall()
    conn.commit()
    assert result.rows == len(found) == table.num_rows
    for column, expected in enumerate(values):
        assert all(_same(want, row[column]) for want, row in zip(expected, found, strict=True)), (expected, found)


def _load(conn, sql, array, policy=None):
    conn.execute("DROP TABLE IF EXISTS t")
    conn.execute(f"CREATE TABLE t (c {sql})")
    copy_into(conn, "t", pa.table({"c": array}), policy=policy)
    return [row[0] for row in conn.execute("SELECT c::text FROM t ORDER BY ctid").fetchall()]


@pytest.mark.parametrize(
    ("sql", "array", "texts"),
    [
        ("numeric(18,2)", pa.array([1.5, -0.25, None]), ["1.50", "-0.25", None]),
        ("numeric(18,2)", pa.array([19.99]), ["19.99"]),
        ("numeric", pa.array([float("nan"), float("inf"), 0.1]), ["NaN", "Infinity", "0.1"]),
        ("numeric", pa.array(["1e3", "-0.000", "NaN"]), ["1000", "0.000", "NaN"]),
        ("numeric(5,-2)", pa.array([12300]), ["12300"]),
        ("numeric(4,1)", pa.array([D("12.30")], pa.decimal128(10, 2)), ["12.3"]),
        ("bigint", pa.array([1, None], pa.int32()), ["1", None]),
        ("bigint", pa.array([2**63 - 1], pa.uint64()), [str(2**63 - 1)]),
        ("smallint", pa.array([7.0]), ["7"]),
        ("integer", pa.array(["12", "-3"]), ["12", "-3"]),
        ("integer", pa.array([D("12.00")], pa.decimal128(9, 2)), ["12"]),
        ("double precision", pa.array([2**53], pa.int64()), ["9.007199254740992e+15"]),
        ("double precision", pa.array([D("1.10")], pa.decimal128(9, 2)), ["1.1"]),
        ("real", pa.array([0.5, float("nan")]), ["0.5", "NaN"]),
        ("uuid", pa.array(["12345678-1234-5678-1234-567812345678"]), ["12345678-1234-5678-1234-567812345678"]),
        ("uuid", pa.array([UUID(int=5).bytes], pa.uuid()), [str(UUID(int=5))]),
        ("jsonb", pa.array(['{"a": 1.50}', None]), ['{"a": 1.50}', None]),
        ("json", pa.array(['{"a":1,  "a":2}']), ['{"a":1,  "a":2}']),
        ("jsonb", pa.array([{"a": [1, 2]}]), ['{"a": [1, 2]}']),
        ("text", pa.array([{"a": [1, 2]}]), ['{"a":[1,2]}']),
        ("text", pa.array([dt.date(2020, 1, 2)]), ["2020-01-02"]),
        ("text", pa.array(["\\.", "a\tb\n", ""]), ["\\.", "a\tb\n", ""]),
        ("varchar(3)", pa.array(["abc", "üüü"]), ["abc", "üüü"]),
        ("varchar(9)[]", pa.array([["a", None], []]), ["{a,NULL}", "{}"]),
        ("uuid[]", pa.array([[str(UUID(int=1))]]), [f"{{{UUID(int=1)}}}"]),
        ("date", pa.array(["2020-02-29"]), ["2020-02-29"]),
        ("date", pa.array([-2440588], pa.int32()).cast(pa.date32()), ["4714-11-24 BC"]),
        ("timestamp", pa.array([2**63 - 2], pa.timestamp("us")), ["294247-01-10 04:00:54.775806"]),
        ("timestamp", pa.array([dt.date(2020, 1, 1)]), ["2020-01-01 00:00:00"]),
        ("timestamptz", pa.array(["2020-01-01T00:00:00+02:00"]), ["2019-12-31 22:00:00+00"]),
        ("interval", pa.array([(1, 2, 3000)], pa.month_day_nano_interval()), ["1 mon 2 days 00:00:00.000003"]),
        ("interval", pa.array([90_061], pa.duration("s")), ["25:01:01"]),
        ("boolean", pa.array(["true", "false"]), ["t", "f"]),
        ("bytea", pa.array([b"\x00\xff"]), ["\\x00ff"]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_value_meets_its_column_exactly(conn, sql, array, texts):
    conn.execute("SET timezone = 'UTC'")

    found = _load(conn, sql, array)

    expected = [{"t": "true", "f": "false"}.get(text, text) if sql == "boolean" else text for text in texts]
    assert found == expected


@pytest.mark.parametrize(
    ("sql", "array", "row"),
    [
        ("bigint", pa.array([1, 2**63], pa.uint64()), 1),
        ("smallint", pa.array([1, 2, 40_000], pa.int32()), 2),
        ("integer", pa.array([1.0, 1.5]), 1),
        ("integer", pa.array(["1", "x"]), 1),
        ("numeric(18,2)", pa.array([0.5, 0.125]), 1),
        ("numeric(4,2)", pa.array([D("1.00"), D("123.00")], pa.decimal128(10, 2)), 1),
        ("numeric(4,1)", pa.array([D("1.10"), D("1.11")], pa.decimal128(10, 2)), 1),
        ("numeric(4,1)", pa.array([D("1"), D("1" * 60)], pa.decimal256(70, 0)), 1),
        ("real", pa.array([0.5, 0.1]), 1),
        ("real", pa.array([0.5, 1e300]), 1),
        ("double precision", pa.array([1, 2**53 + 1], pa.int64()), 1),
        ("text", pa.array(["a", "b\x00c"]), 1),
        ("jsonb", pa.array(["1", "\x00"]), 1),
        ("varchar(3)", pa.array(["abc", "abc "]), 1),
        ("uuid", pa.array([str(UUID(int=1)), "nope"]), 1),
        ("date", pa.array([0, 86_400_001], pa.int64()).view(pa.date64()), 1),
        ("timestamp", pa.array([1000, -1], pa.timestamp("ns")), 1),
        ("timestamp", pa.array([0, -(2**63)], pa.timestamp("us")), 1),
        ("timestamp", pa.array([0, 2**63 - 1], pa.timestamp("us")), 1),
        ("timestamp(0)", pa.array([0, 1], pa.timestamp("us")), 1),
        ("time", pa.array([0, 1], pa.time64("ns")), 1),
        ("interval", pa.array([0, 1], pa.duration("ns")), 1),
        ("integer[]", pa.array([[1], [2**40]]), 1),
    ],
)
def test_a_value_that_would_change_is_refused_by_column_and_row(conn, sql, array, row):
    with pytest.raises(ValueRefused) as refused:
        _load(conn, sql, array)

    assert (refused.value.column, refused.value.row) == ("c", row)
    assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(
    ("sql", "array"),
    [
        ("integer", pa.array([True])),
        ("timestamptz", pa.array([0], pa.timestamp("us"))),
        ("timestamp", pa.array([0], pa.timestamp("us", "UTC"))),
        ("bytea", pa.array(["a"])),
        ("date", pa.array([1])),
        ("point", pa.array(["(1,2)"])),
        ("integer[]", pa.array([[[1]]])),
    ],
)
def test_a_column_without_an_exact_way_is_refused_by_name(conn, sql, array):
    with pytest.raises(ColumnRefused, match="'c'"):
        _load(conn, sql, array)


@pytest.mark.parametrize(
    ("policy", "texts"),
    [
        ("floor", ["1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.000001"]),
        ("round", ["1970-01-01 00:00:00", "1970-01-01 00:00:00.000002"]),
    ],
)
def test_nanoseconds_follow_the_policy(conn, policy, texts):
    array = pa.array([-1, 1_500], pa.timestamp("ns"))

    assert _load(conn, "timestamp", array, Policy(nanoseconds=policy)) == texts


def test_digits_zones_and_nuls_follow_the_policy(conn):
    assert _load(conn, "numeric(9,2)", pa.array([0.125, 2.0]), Policy(digits="round")) == ["0.13", "2.00"]
    assert _load(conn, "text", pa.array(["a\x00b"]), Policy(nul="strip")) == ["ab"]
    winter = pa.array([dt.datetime(2020, 1, 1, 12)], pa.timestamp("us"))
    conn.execute("SET timezone = 'UTC'")
    assert _load(conn, "timestamptz", winter, Policy(timezone="Europe/Paris")) == ["2020-01-01 11:00:00+00"]


def test_bad_utf8_is_refused_and_named(conn):
    array = pa.array([b"ok", b"\xff"]).view(pa.string())

    with pytest.raises(ValueRefused) as refused:
        _load(conn, "text", array)

    assert refused.value.row == 1


def test_all_faults_of_a_batch_are_listed(conn):
    conn.execute("CREATE TABLE t (a smallint, b text NOT NULL)")
    targets = column_types(conn, "t")
    batch = pa.record_batch({"a": pa.array([1, 70_000, 3, -70_000], pa.int32()), "b": ["x", "y\x00", None, "z"]})

    found = {(fault.row, fault.column) for fault in faults(batch, targets)}

    assert found == {(1, "a"), (3, "a"), (1, "b"), (2, "b")}


def test_domains_enums_and_defaults_are_understood(conn):
    conn.execute("CREATE TYPE color AS ENUM ('red', 'green')")
    conn.execute("CREATE DOMAIN money2 AS numeric(9,2) CHECK (value >= 0)")
    conn.execute("CREATE TABLE t (id serial, c color, m money2, twice numeric GENERATED ALWAYS AS (m * 2) STORED)")

    copy_into(conn, "t", pa.table({"m": [1.5], "c": ["green"]}))

    assert conn.execute("SELECT id, c::text, m, twice FROM t").fetchall() == [(1, "green", D("1.50"), D("3.00"))]
    with pytest.raises(ColumnRefused, match="computes"):
        copy_into(conn, "t", pa.table({"twice": [1]}))
    with pytest.raises(ColumnRefused, match="no such column"):
        copy_into(conn, "t", pa.table({"nope": [1]}))


def test_large_batches_of_changing_layout_go_in_parts(conn):
    conn.execute("CREATE TABLE t (c text, n bigint)")
    first = pa.record_batch({"c": pa.array(["x"] * 150_000), "n": range(150_000)})
    second = pa.record_batch({"n": pa.array([1, 2]), "c": pa.array(["v", None], pa.string_view())})

    with CopyWriter(conn, "t", first.schema) as writer:
        rows = writer.write(first) + writer.write(second.select(["c", "n"])) + writer.write(first.slice(0, 0))

    assert rows == writer.rows == 150_002
    assert conn.execute("SELECT count(*), count(c), sum(n) FROM t").fetchone() == (
        150_002,
        150_001,
        150_000 * 149_999 // 2 + 3,
    )


def test_a_zero_row_copy_is_a_copy(conn):
    conn.execute("CREATE TABLE t (c text)")

    result = copy_into(conn, "t", pa.table({"c": pa.array([], pa.string())}))

    assert result.rows == 0


def test_the_server_refuses_and_nothing_stays(conn):
    conn.execute("CREATE TABLE t (c int CHECK (c < 5))")
    conn.commit()

    with pytest.raises(Exception, match="check constraint") as refused:
        copy_into(conn, "t", pa.table({"c": [1, 9]}))

    assert not isinstance(refused.value, psycopg.Error)
    assert conn.execute("SELECT count(*) FROM t").fetchone() == (0,)
