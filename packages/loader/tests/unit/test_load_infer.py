"""Column types from text, and one type for many files."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_loader.errors import SchemaConflict
from tidemill_loader.infer import field_sql, infer_text, numeric, union


def _sql(*values):
    return field_sql(infer_text("c", pa.array(values, pa.string())))


@pytest.mark.parametrize(
    ("values", "sql"),
    [
        (["1", "-2", None], "bigint"),
        (["007", "8"], "text"),
        (["1", "1.0"], "double precision"),
        (["36.00", "1.10"], "double precision"),
        (["0.1234567890123456789"], "numeric"),
        (["13.809299999999999"], "double precision"),
        (["12345678901234567890"], "numeric"),
        (["1e5", "2"], "double precision"),
        (["nan", "1.5"], "double precision"),
        (["true", "False"], "boolean"),
        (["0", "1"], "bigint"),
        (["2013-01-31"], "date"),
        (["2013-02-31"], "text"),
        (["2013-01-31 05:00", "2013-01-31T05:00:00.123"], "timestamp"),
        (["2013-01-31T05:00:00Z", "2013-01-31 05:00:00+02:00"], "timestamptz"),
        (["2013-01-31", "2013-01-31 05:00"], "text"),
        (["a", "1"], "text"),
        (["", "1"], "text"),
        ([None, None], "text"),
        ([], "text"),
    ],
)
def test_text_becomes_the_narrowest_type_that_gives_it_back(values, sql):
    assert _sql(*values) == sql


@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1))
def test_integers_are_bigint(values):
    assert _sql(*map(str, values)) == "bigint"


@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9).filter(
            lambda x: x == 0 or abs(x) > 1e-4
        ),
        min_size=1,
    )
)
def test_what_a_double_prints_is_a_double(values):
    assert _sql(*map(repr, values)) == "double precision"


TYPES = [
    pa.int8(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.date32(),
    pa.timestamp("us"),
    pa.null(),
    pa.decimal128(9, 2),
]


@given(st.permutations(TYPES[:5]), st.integers(1, 5))
def test_a_union_does_not_depend_on_the_order_of_the_files(types, size):
    schemas = [(f"f{at}", pa.schema([("c", type_)])) for at, type_ in enumerate(types[:size])]

    assert union(schemas).field(0).type == union(schemas[::-1]).field(0).type


@pytest.mark.parametrize(
    ("one", "other", "sql"),
    [
        (pa.int32(), pa.int64(), "bigint"),
        (pa.int64(), pa.float64(), "double precision"),
        (pa.null(), pa.date32(), "date"),
        (pa.date32(), pa.timestamp("us"), "timestamp"),
        (pa.timestamp("s"), pa.timestamp("ns"), "timestamp"),
        (pa.string(), pa.large_string(), "text"),
        (pa.int64(), pa.string(), "text"),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), "text"),
        (pa.decimal128(9, 2), pa.decimal128(12, 4), "numeric(12,4)"),
        (pa.decimal128(9, 0), pa.decimal128(9, 4), "numeric(13,4)"),
    ],
)
def test_two_types_meet_in_one_that_holds_both(one, other, sql):
    schemas = [("a", pa.schema([("c", one)])), ("b", pa.schema([("c", other)]))]

    assert field_sql(union(schemas).field(0)) == sql


@pytest.mark.parametrize(
    ("one", "other"),
    [(pa.bool_(), pa.int8()), (pa.binary(), pa.string()), (pa.timestamp("us"), pa.timestamp("us", "UTC"))],
)
def test_two_types_without_a_common_one_are_a_conflict_that_names_both_files(one, other):
    schemas = [("one.parquet", pa.schema([("c", one)])), ("other.parquet", pa.schema([("c", other)]))]

    with pytest.raises(SchemaConflict, match=r"one\.parquet.*other\.parquet"):
        union(schemas)
    assert union(schemas, given={"c"}).names == ["c"]


def test_a_column_that_a_file_lacks_may_be_null():
    required = pa.schema([pa.field("a", pa.int8(), nullable=False)])
    both = pa.schema([pa.field("a", pa.int8(), nullable=False), pa.field("b", pa.int8(), nullable=False)])

    merged = union([("1", required), ("2", both)])

    assert [(field.name, field.nullable) for field in merged] == [("a", False), ("b", True)]


def test_numbers_of_any_size_stay_numeric_beside_smaller_ones():
    schemas = [("a", pa.schema([numeric("c")])), ("b", pa.schema([("c", pa.int64())]))]

    assert field_sql(union(schemas).field(0)) == "numeric"
