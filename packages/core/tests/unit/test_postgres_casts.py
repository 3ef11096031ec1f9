"""Arrow columns through the whole COPY, read back by the driver's own loaders; no server.

A fake connection keeps what a COPY sends; the fields of that stream are judged by
psycopg's binary loaders. What a server does with them is in the integration tier.
"""
# ruff: noqa: DTZ001 - local times are part of what is tested

import datetime as dt
import math
import re
import struct
from contextlib import nullcontext
from decimal import Context, Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.postgres import types
from psycopg.pq import Format
from tidemill_core.postgres import ColumnRefused, CopyWriter, Policy, ValueRefused, copy_into, faults
from tidemill_core.postgres.adapt import encode_column
from tidemill_core.postgres.types import ColumnType

D = Decimal
EXACT = Context(prec=100)
NAMES = {"double precision": "float8", "real": "float4", "varchar": "varchar"}


def column(sql: str, name: str = "c", **facts) -> ColumnType:
    """What the server would say of a column of this type."""
    plain, digits = re.fullmatch(r"([a-z0-9 ]+?)(?:\(([-\d, ]+)\))?(?:\[\])?", sql).groups()
    base = types[NAMES.get(plain, plain)].name if plain != "point" else "point"
    numbers = [int(each) for each in digits.split(",")] if digits else []
    typmod = -1
    if base == "numeric" and numbers:
        typmod = (numbers[0] << 16 | numbers[1] & 0x7FF) + 4
    elif numbers:
        typmod = numbers[0] + (4 if base == "varchar" else 0)
    made = ColumnType(name=name, type=sql, base=base, oid=types[base].oid, typmod=typmod, **facts)
    if not sql.endswith("[]"):
        return made
    return ColumnType(name=name, type=sql, base=f"_{base}", oid=types[base].array_oid, element=made, **facts)


class Connection:
    """Keeps the bytes of each COPY; one that is left by an error is thrown away."""

    def __init__(self) -> None:
        self.statements, self.sent, self.is_kept = [], b"", None

    def cursor(self):
        return self

    def transaction(self):
        return nullcontext()

    def copy(self, statement):
        self.statements.append(statement.decode())
        return self

    def write(self, data):
        self.sent += bytes(data)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.is_kept = kind is None


def rows_of(sent: bytes, targets: list[ColumnType]) -> list[tuple]:
    """Read a binary COPY by its definition, each field by the driver's loader for its type."""
    assert sent.startswith(b"PGCOPY\n\xff\r\n\x00" + bytes(8))
    assert sent.endswith(b"\xff\xff")
    loaders = [Transformer().get_loader(target.oid, Format.BINARY).load for target in targets]
    at, rows = 19, []
    while at < len(sent) - 2:
        (count,) = struct.unpack_from(">h", sent, at)
        assert len(targets) == count
        at, fields = at + 2, []
        for load in loaders:
            (size,) = struct.unpack_from(">i", sent, at)
            at += 4
            fields.append(None if size < 0 else load(sent[at : at + size]))
            at += max(0, size)
        rows.append(tuple(fields))
    return rows


def copied(sql: str, array: pa.Array, policy: Policy | None = None) -> list:
    """What one column is, after a COPY into a column of this type."""
    target, conn = column(sql), Connection()
    with CopyWriter(conn, "t", pa.schema({"c": array.type}), policy=policy, targets={"c": target}) as writer:
        writer.write(pa.record_batch({"c": array}))
    return [row[0] for row in rows_of(conn.sent, [target])]


def same(expected, found) -> bool:
    if isinstance(expected, float) and math.isnan(expected):
        return math.isnan(found)
    return expected == found and type(expected) is type(found)


def whole(bits, *, signed=True):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def decimals(digits, scale):
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda n: D(n).scaleb(-scale, EXACT))


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
INSTANT = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
EXACT_WAYS = [
    ("bool", pa.bool_(), st.booleans()),
    ("int2", pa.int8(), whole(8)),
    ("int2", pa.int16(), whole(16)),
    ("int4", pa.uint16(), whole(16, signed=False)),
    ("int4", pa.int32(), whole(32)),
    ("int8", pa.uint32(), whole(32, signed=False)),
    ("int8", pa.int64(), whole(64)),
    ("numeric", pa.uint64(), whole(64, signed=False).map(D)),
    ("real", pa.float32(), st.floats(width=32)),
    ("double precision", pa.float32(), st.floats(width=32)),
    ("double precision", pa.float64(), st.floats()),
    ("double precision", pa.int32(), whole(32).map(float)),
    ("numeric", pa.decimal128(38, 10), decimals(38, 10)),
    ("numeric(38,10)", pa.decimal128(38, 10), decimals(38, 10)),
    ("numeric(20,4)", pa.decimal128(12, 2), decimals(12, 2)),
    ("numeric", pa.decimal256(76, 20), decimals(76, 20)),
    ("numeric(76,20)", pa.decimal256(76, 20), decimals(76, 20)),
    ("text", pa.string(), TEXT),
    ("text", pa.large_string(), TEXT),
    ("text", pa.string_view(), TEXT),
    ("varchar(12)", pa.string(), TEXT),
    ("bytea", pa.binary(), st.binary(max_size=9)),
    ("bytea", pa.binary(3), st.binary(min_size=3, max_size=3)),
    ("date", pa.date32(), st.dates()),
    ("date", pa.date64(), st.dates()),
    ("time", pa.time64("us"), st.times()),
    ("time", pa.time32("ms"), st.times().map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))),
    ("timestamp", pa.timestamp("us"), INSTANT),
    ("timestamp", pa.timestamp("s"), INSTANT.map(lambda t: t.replace(microsecond=0))),
    ("timestamptz", pa.timestamp("us", "UTC"), INSTANT.map(lambda t: t.replace(tzinfo=dt.UTC))),
    ("interval", pa.duration("us"), st.integers(-(10**15), 10**15).map(lambda us: dt.timedelta(microseconds=us))),
    ("int4[]", pa.list_(pa.int32()), st.lists(st.none() | whole(32), max_size=4)),
    ("text[]", pa.large_list(pa.string()), st.lists(st.none() | TEXT, max_size=4)),
    ("date[]", pa.list_(pa.date32()), st.lists(st.none() | st.dates(), max_size=3)),
    ("numeric[]", pa.list_(pa.decimal128(12, 2)), st.lists(st.none() | decimals(12, 2), max_size=4)),
    ("int2[]", pa.list_(pa.int16(), 2), st.lists(whole(16), min_size=2, max_size=2)),
    ("jsonb", pa.list_(pa.list_(pa.int64())), st.lists(st.lists(whole(32), max_size=3), max_size=3)),
    ("json", pa.struct([("a", pa.int32()), ("b", pa.string())]), st.fixed_dictionaries({"a": whole(32), "b": TEXT})),
    ("uuid", pa.binary(16), st.uuids()),
]


@st.composite
def tables(draw):
    picked = draw(st.lists(st.sampled_from(EXACT_WAYS), min_size=1, max_size=5))
    rows, start = draw(st.integers(0, 8)), draw(st.integers(0, 3))
    values = [draw(st.lists(st.none() | strategy, min_size=rows, max_size=rows)) for _, _, strategy in picked]
    arrays = [array_of(each, type_) for (_, type_, _), each in zip(picked, values, strict=True)]
    names = [f"c{at}" for at in range(len(picked))]
    targets = [column(sql, name) for (sql, _, _), name in zip(picked, names, strict=True)]
    return pa.table(arrays, names=names).slice(start), list(zip(*values, strict=True))[start:], targets


def array_of(values, type_):
    if type_ == pa.binary(16):
        return pa.array([None if each is None else each.bytes for each in values], type_)
    if type_ == pa.uint64() or pa.types.is_floating(type_):
        return pa.array(values, type_)
    return pa.array(values, type_)


@given(given_=tables())
def test_every_value_of_every_type_is_read_back_equal(given_):
    table, expected, targets = given_
    conn, batches = Connection(), table.to_batches(max_chunksize=3)

    with CopyWriter(conn, "t", table.schema, targets={each.name: each for each in targets}) as writer:
        for batch in batches:
            writer.write(batch)

    found = rows_of(conn.sent, targets)
    assert len(expected) == len(found) == writer.rows
    assert len(conn.sent) == writer.bytes
    for want, row in zip(expected, found, strict=True):
        assert all(same(one, other) for one, other in zip(want, row, strict=True)), (want, row)


UTC = dt.UTC


@pytest.mark.parametrize(
    ("sql", "array", "values"),
    [
        ("numeric(18,2)", pa.array([1.5, -0.25, None]), [D("1.50"), D("-0.25"), None]),
        ("numeric(18,2)", pa.array([19.99]), [D("19.99")]),
        ("numeric(18,2)", pa.array([7], pa.uint64()), [D("7.00")]),
        ("numeric", pa.array(["1e3", " -0.5 ", None]), [D(1000), D("-0.5"), None]),
        ("numeric(5,-2)", pa.array([12300]), [D(12300)]),
        ("numeric(2,4)", pa.array([D("0.0012")], pa.decimal128(5, 4)), [D("0.0012")]),
        ("numeric(4,1)", pa.array([D("12.30")], pa.decimal128(10, 2)), [D("12.3")]),
        ("numeric(4,1)", pa.array([D("12.30")], pa.decimal256(40, 2)), [D("12.3")]),
        ("numeric", pa.array([D("9" * 70)], pa.decimal256(70, 0)), [D("9" * 70)]),
        ("int8", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        ("int2", pa.array([7.0]), [7]),
        ("int4", pa.array(["12", "-3"]), [12, -3]),
        ("int4", pa.array([D("12.00")], pa.decimal128(9, 2)), [12]),
        ("int8", pa.array([D("12")], pa.decimal256(40, 0)), [12]),
        ("int4", pa.array([D("12")], pa.decimal32(9, 0)), [12]),
        ("double precision", pa.array([2**53], pa.int64()), [float(2**53)]),
        ("double precision", pa.array([D("1.10")], pa.decimal128(9, 2)), [1.1]),
        ("double precision", pa.array(["0.5", "-1e300"]), [0.5, -1e300]),
        ("real", pa.array([0.5, None, math.inf]), [0.5, None, math.inf]),
        ("uuid", pa.array([str(UUID(int=5)), None]), [UUID(int=5), None]),
        ("uuid", pa.array([UUID(int=5).bytes], pa.uuid()), [UUID(int=5)]),
        ("uuid", pa.array([UUID(int=5).bytes]), [UUID(int=5)]),
        ("jsonb", pa.array(['{"a": 1.5}', None]), [{"a": 1.5}, None]),
        ("text", pa.array([{"a": [1, 2]}]), ['{"a":[1,2]}']),
        ("text", pa.array([b"caf\xc3\xa9"]), ["café"]),
        ("text", pa.array([7, None]), ["7", None]),
        ("text", pa.array([dt.date(2020, 1, 2)]), ["2020-01-02"]),
        ("text", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("int8", pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([7, 8])), [7, 7, 8]),
        ("text", pa.nulls(2), [None, None]),
        ("varchar(3)", pa.array(["abc", "üüü"]), ["abc", "üüü"]),
        ("varchar(9)[]", pa.array([["a", None], [], None]), [["a", None], [], None]),
        ("uuid[]", pa.array([[str(UUID(int=1))]]), [[UUID(int=1)]]),
        ("int4[]", pa.array([[1], [2, 3], [4]]).slice(1), [[2, 3], [4]]),
        ("date", pa.array(["2020-02-29"]), [dt.date(2020, 2, 29)]),
        ("date", pa.array([dt.datetime(2020, 2, 29)], pa.timestamp("us")), [dt.date(2020, 2, 29)]),
        ("timestamp", pa.array([dt.date(2020, 1, 1)]), [dt.datetime(2020, 1, 1)]),
        ("timestamptz", pa.array(["2020-01-01T00:00:00+02:00"]), [dt.datetime(2019, 12, 31, 22, tzinfo=UTC)]),
        ("time", pa.array(["12:34:56", None, "00:00"]), [dt.time(12, 34, 56), None, dt.time(0)]),
        ("time", pa.array(["23:59:59.999999"], pa.large_string()), [dt.time(23, 59, 59, 999_999)]),
        ("interval", pa.array([90_061], pa.duration("s")), [dt.timedelta(days=1, seconds=3661)]),
        ("bool", pa.array(["true", "false", None]), [True, False, None]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_value_meets_its_column_exactly(sql, array, values):
    assert values == copied(sql, array)


@pytest.mark.parametrize(
    ("sql", "array", "row", "reason"),
    [
        ("int8", pa.array([1, 2**63], pa.uint64()), 1, "not in range"),
        ("int2", pa.array([1, 2, 40_000], pa.int32()), 2, "not in range"),
        ("int4", pa.array([1.0, 1.5]), 1, "truncated"),
        ("int4", pa.array(["1", "x"]), 1, "'x'"),
        ("numeric(18,2)", pa.array([0.5, 0.125]), 1, "more digits than numeric"),
        ("numeric(18,2)", pa.array([0.5, math.inf]), 1, "infinity does not fit"),
        ("numeric(4,2)", pa.array([D("1.00"), D("123.00")], pa.decimal128(10, 2)), 1, "does not fit"),
        ("numeric(4,1)", pa.array([D("1.10"), D("1.11")], pa.decimal128(10, 2)), 1, "does not fit"),
        ("numeric(4,1)", pa.array([D("1"), D("1" * 60)], pa.decimal256(70, 0)), 1, "too large for numeric"),
        ("numeric(4,1)", pa.array([999.9, 1000.0]), 1, "too large for numeric"),
        ("real", pa.array([0.5, 0.1]), 1, "more digits than real"),
        ("real", pa.array([0.5, 1e300]), 1, "too large for real"),
        ("real", pa.array([D(1), D(2**24 + 1)], pa.decimal128(8, 0)), 1, "more digits than real"),
        ("double precision", pa.array([1, 2**53 + 1], pa.int64()), 1, "9007199254740993"),
        ("text", pa.array(["a", "b\x00c"]), 1, "NUL"),
        ("text", pa.array([b"ok", b"\xff"]).view(pa.string()), 1, "UTF8"),
        ("jsonb", pa.array(["1", "\x00"]), 1, "NUL"),
        ("varchar(3)", pa.array(["abc", "abc "]), 1, "4 characters"),
        ("uuid", pa.array([str(UUID(int=1)), "nope"]), 1, "UUID"),
        ("date", pa.array([0, 86_400_001], pa.int64()).view(pa.date64()), 1, "whole day"),
        ("date", pa.array([0, 1], pa.timestamp("us")), 1, "whole day"),
        ("date", pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32()), 1, "outside 4714 BC"),
        ("timestamp", pa.array([1000, -1], pa.timestamp("ns")), 1, "microsecond"),
        ("timestamp", pa.array([0, 2**63 - 1], pa.timestamp("us")), 1, "range"),
        ("timestamp(0)", pa.array([0, 1], pa.timestamp("us")), 1, "sub-second digits"),
        ("time", pa.array([0, 1], pa.time64("ns")), 1, "microsecond"),
        ("time", pa.array(["12:00", "12:00:00.0000001"]), 1, "microsecond"),
        ("time", pa.array(["12:00", "24:00"]), 1, "24:00"),
        ("time", pa.array(["12:00", "12:00Z"]), 1, "no time of day"),
        ("time", pa.array(["12:00:00", "12:00:00Z"]), 1, "12:00:00Z"),
        ("time", pa.array(["12:00", ""]), 1, "no time of day"),
        ("time", pa.array(["12:00", "12"]), 1, "no time of day"),
        ("interval", pa.array([0, 1], pa.duration("ns")), 1, "microsecond"),
        ("int4[]", pa.array([[1], [2**40]]), 1, "not in range"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_value_that_would_change_is_refused_by_row_with_its_reason(sql, array, row, reason):
    with pytest.raises(ValueRefused) as refused:
        encode_column(array, column(sql))

    assert ("c", row) == (refused.value.column, refused.value.row)
    assert reason.lower() in refused.value.reason.lower()


def test_a_refused_value_is_counted_from_the_first_batch_and_the_copy_is_abandoned():
    conn = Connection()
    batches = [pa.record_batch({"c": [1, 2, 3]}), pa.record_batch({"c": [4, 70_000]})]

    def copy() -> None:
        with CopyWriter(conn, "t", pa.schema({"c": pa.int64()}), targets={"c": column("int2")}) as writer:
            for batch in batches:
                writer.write(batch)

    with pytest.raises(ValueRefused) as refused:
        copy()

    assert 4 == refused.value.row
    assert conn.is_kept is False
    assert not conn.sent.endswith(b"\xff\xff")


@pytest.mark.parametrize(
    ("sql", "array"),
    [
        ("int4", pa.array([True])),
        ("double precision", pa.array([True])),
        ("numeric", pa.array([True])),
        ("bool", pa.array([1])),
        ("timestamptz", pa.array([0], pa.timestamp("us"))),
        ("timestamp", pa.array([0], pa.timestamp("us", "UTC"))),
        ("time", pa.array([0])),
        ("bytea", pa.array(["a"])),
        ("uuid", pa.array([1])),
        ("date", pa.array([1])),
        ("text", pa.array([1], pa.duration("s"))),
        ("jsonb", pa.array([b"{}"])),
        ("point", pa.array(["(1,2)"])),
        ("int4[]", pa.array([1])),
        ("int4[]", pa.array([[[1]]])),
    ],
)
def test_a_column_without_an_exact_way_is_refused_by_name_and_says_both_types(sql, array):
    with pytest.raises(ColumnRefused, match="'c'") as refused:
        encode_column(array, column(sql))

    assert sql in str(refused.value)


def test_a_null_in_a_required_column_is_refused_and_every_fault_is_listed():
    targets = {"a": column("int2", "a"), "b": column("text", "b", nullable=False)}
    batch = pa.record_batch({"a": pa.array([1, 70_000, 3, -70_000], pa.int32()), "b": ["x", "y\x00", None, "z"]})

    found = {(fault.row, fault.column): fault.reason for fault in faults(batch, targets)}

    assert {(1, "a"), (3, "a"), (1, "b"), (2, "b")} == set(found)
    assert "a null in a NOT NULL column" == found[2, "b"]


@pytest.mark.parametrize(("nanoseconds", "micros"), [("floor", [-1, 1]), ("round", [0, 2])])
def test_nanoseconds_follow_the_policy(nanoseconds, micros):
    found = copied("timestamp", pa.array([-1, 1_500], pa.timestamp("ns")), Policy(nanoseconds=nanoseconds))

    assert [dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=each) for each in micros] == found


def test_digits_zones_and_nuls_follow_the_policy():
    noon = pa.array([dt.datetime(2020, 1, 1, 12)], pa.timestamp("us"))
    rounded = Policy(digits="round")

    assert [D("0.13"), D("2.00")] == copied("numeric(9,2)", pa.array([0.125, 2.0]), rounded)
    assert [D("0.13")] == copied("numeric(9,2)", pa.array([D("0.125")], pa.decimal128(9, 3)), rounded)
    assert [struct.unpack(">f", struct.pack(">f", 0.1))[0]] == copied("real", pa.array([0.1]), rounded)
    assert ["ab", "c"] == copied("text", pa.array(["a\x00b", "c"]), Policy(nul="strip"))
    assert [dt.datetime(2020, 1, 1, 11, tzinfo=UTC)] == copied("timestamptz", noon, Policy(timezone="Europe/Paris"))


def test_the_statement_names_the_columns_that_come_and_no_others():
    conn, targets = Connection(), {name: column("int8", name) for name in ("b", 'we"ird', "a")}
    data = pa.table({'we"ird': [1], "a": [2]})

    with CopyWriter(conn, "raw.t", data.schema, targets=targets) as writer:
        assert 1 == writer.write(data.select(["a", 'we"ird']))

    assert ['COPY "raw"."t" ("we""ird", "a") FROM STDIN (FORMAT BINARY)'] == conn.statements
    assert [(1, 2)] == rows_of(conn.sent, [targets['we"ird'], targets["a"]])


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (pa.schema({"gone": pa.int8()}), "has no such column; it has 'c'"),
        (pa.schema({"made": pa.int8()}), "computes this column itself"),
        (pa.schema([("c", pa.int8()), ("c", pa.int8())]), "two columns of this name"),
    ],
)
def test_columns_that_the_table_cannot_take_are_refused_before_a_copy_begins(schema, why):
    targets = {"c": column("int8")}
    if "made" in schema.names:
        targets["made"] = column("int8", "made", generated=True)
    conn = Connection()

    with pytest.raises(ColumnRefused, match=why):
        CopyWriter(conn, "t", schema, targets=targets)

    assert [] == conn.statements


def test_large_batches_and_changing_layouts_are_one_stream():
    conn, targets = Connection(), {"c": column("text"), "n": column("int8", "n")}
    first = pa.record_batch({"c": pa.array(["x"] * 70_000), "n": range(70_000)})
    second = pa.record_batch({"c": pa.array(["v", None], pa.string_view()), "n": [1, 2]})

    with CopyWriter(conn, "t", first.schema, targets=targets) as writer:
        counts = [writer.write(first), writer.write(second), writer.write(first.slice(0, 0))]

    found = rows_of(conn.sent, list(targets.values()))
    assert ([70_000, 2, 0], 70_002) == (counts, writer.rows)
    assert [("x", 0), ("x", 69_999), ("v", 1), (None, 2)] == [found[0], found[69_999], *found[70_000:]]


@pytest.mark.parametrize("data", [7, []])
def test_what_is_no_arrow_data_is_refused_by_its_kind(data):
    with pytest.raises(TypeError, match=r"no Arrow data|no batches"):
        copy_into(Connection(), "t", data)
