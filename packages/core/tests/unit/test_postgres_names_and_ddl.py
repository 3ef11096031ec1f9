"""Names, DDL and wire formats, without a server."""

import struct
import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.errors import ConfigError
from tidemill_core.postgres import TableName, check_identifier, dataset_urn, ddl_for, quote, redact, safe_identifiers
from tidemill_core.postgres.connection import is_transient
from tidemill_core.postgres.ddl import check_type, sql_type
from tidemill_core.postgres.jsonable import json_texts
from tidemill_core.postgres.wire import numeric_wire


def test_importing_the_package_imports_neither_arrow_nor_the_driver():
    code = "import sys, tidemill_core.postgres; print([m for m in ('pyarrow', 'psycopg', 'pgpq') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("weather", "public", "weather"),
        ("raw.weather", "raw", "weather"),
        ('raw."a.b"', "raw", "a.b"),
        ('"Sch ema"."say ""hi"""', "Sch ema", 'say "hi"'),
        ("Raw.Weather", "Raw", "Weather"),
    ],
)
def test_a_table_name_is_read_with_its_case(text, schema, name):
    table = TableName.parse(text)

    assert (table.schema, table.name) == (schema, name)
    assert TableName.parse(table.quoted) == table


@pytest.mark.parametrize("text", ["", "a.b.c", "a.", ".a", 'a"b', '"a', "x" * 64, "raw." + "ü" * 32, "a\x00b"])
def test_a_text_that_is_no_table_name_is_refused(text):
    with pytest.raises(ConfigError):
        TableName.parse(text)


@given(st.text(min_size=1, max_size=63).filter(lambda name: len(name.encode("utf-8", "replace")) <= 63))
def test_a_quoted_name_has_no_lone_quote_inside(name):
    if "\x00" in name or any(0xD800 <= ord(c) < 0xE000 for c in name):
        return

    inside = quote(name)[1:-1]

    assert '"' not in inside.replace('""', "")
    assert inside.replace('""', '"') == name


@given(st.lists(st.text(max_size=80), max_size=12))
def test_made_names_are_unique_and_kept_whole(names):
    made = safe_identifiers(name.encode("utf-8", "ignore").decode() for name in names)

    assert len(made) == len(set(made)) == len(names)
    assert [check_identifier(name) for name in made] == made


def test_long_names_that_would_collide_stay_apart():
    head = "a" * 70

    made = safe_identifiers([head + "1", head + "2"])

    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("type_", "sql"),
    [
        (pa.uint64(), "numeric(20,0)"),
        (pa.uint32(), "bigint"),
        (pa.decimal128(10, 2), "numeric(10,2)"),
        (pa.decimal128(5, -2), "numeric(7,0)"),
        (pa.decimal256(70, 3), "numeric(70,3)"),
        (pa.decimal128(3, 5), "numeric(5,5)"),
        (pa.date64(), "date"),
        (pa.time64("ns"), "time"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.timestamp("us", "UTC"), "timestamptz"),
        (pa.duration("ns"), "interval"),
        (pa.month_day_nano_interval(), "interval"),
        (pa.dictionary(pa.int8(), pa.int64()), "bigint"),
        (pa.string_view(), "text"),
        (pa.binary(4), "bytea"),
        (pa.list_(pa.float32()), "real[]"),
        (pa.list_(pa.list_(pa.int8())), "jsonb"),
        (pa.struct([("a", pa.int8())]), "jsonb"),
        (pa.list_(pa.struct([("a", pa.int8())])), "jsonb"),
        (pa.map_(pa.string(), pa.int8()), "jsonb"),
        (pa.null(), "text"),
        (pa.uuid(), "uuid"),
        (pa.json_(), "json"),
    ],
)
def test_an_arrow_type_gets_a_column_that_holds_it_exactly(type_, sql):
    assert sql_type(type_) == sql


def test_ddl_names_keys_overrides_and_required_columns():
    schema = pa.schema(
        [pa.field("id", pa.int64()), pa.field('we"ird', pa.string(), nullable=False), ("x", pa.float64())]
    )

    statement = ddl_for("raw.t", schema, ("id",), types={"x": "numeric(18, 2)"})

    assert statement == (
        'CREATE TABLE "raw"."t" (\n    "id" bigint NOT NULL,\n    "we""ird" text NOT NULL,\n'
        '    "x" numeric(18, 2),\n    PRIMARY KEY ("id")\n)'
    )


@pytest.mark.parametrize("text", ["int); DROP TABLE x; --", "text DEFAULT 1", "", "numeric(1,2", "text 'x'"])
def test_an_override_that_is_more_than_a_type_is_refused(text):
    with pytest.raises(ConfigError):
        check_type(text)


@pytest.mark.parametrize(
    "text", ["text", "numeric(18,2)", "double precision", "timestamp(3) with time zone", "int[]", "public.color"]
)
def test_a_plain_type_is_taken(text):
    assert check_type(text) == text


def test_an_override_or_key_of_no_column_is_refused():
    schema = pa.schema([("a", pa.int8())])

    with pytest.raises(ConfigError, match="b"):
        ddl_for("t", schema, types={"b": "text"})
    with pytest.raises(ConfigError, match="'b'"):
        ddl_for("t", schema, ("b",))


def test_a_column_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        ddl_for("t", pa.schema([("a", pa.int8()), ("a", pa.int8())]))


def _numeric_back(data: bytes) -> Decimal:
    """Read numeric_send's format by its definition, not by ours."""
    count, weight, sign, scale = struct.unpack(">hhHh", data[:8])
    digits = struct.unpack(f">{count}h", data[8:])
    value = sum(Decimal(digit) * Decimal(10000) ** (weight - at) for at, digit in enumerate(digits))
    return (-value if sign else Decimal(value)).quantize(Decimal(1).scaleb(-scale))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**18), max_value=10**18))
def test_a_decimal_survives_its_wire_format(value):
    assert _numeric_back(numeric_wire(value)) == value


def test_json_keeps_decimals_and_names_what_json_cannot_say():
    column = pa.array(
        [{"d": Decimal("1.10"), "f": float("nan"), "m": [("k", 1)]}],
        pa.struct([("d", pa.decimal128(5, 2)), ("f", pa.float64()), ("m", pa.map_(pa.string(), pa.int8()))]),
    )

    assert json_texts(column) == [b'{"d":1.10,"f":"NaN","m":{"k":1}}']


def test_a_map_with_a_key_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        json_texts(pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())))


def test_urls_lose_their_password():
    url = "postgresql://me:s3cret@db:5433/wh?sslpassword=other"

    assert redact(url) == "postgresql://me@db:5433/wh"
    assert dataset_urn(url, "raw.t") == "postgres://db:5433/wh/raw.t"


@pytest.mark.parametrize(
    ("state", "transient"),
    [
        ("40001", True),
        ("40P01", True),
        ("08006", True),
        ("57P01", True),
        ("53300", True),
        ("23505", False),
        ("42P01", False),
        (None, False),
    ],
)
def test_the_sqlstate_tells_whether_to_try_again(state, transient):
    assert is_transient(state) is transient
