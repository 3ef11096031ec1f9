"""The two-tier validator: the typed decoder never disagrees with the full one."""

from __future__ import annotations

import math

import jsonschema_rs
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_stream.records.schema import Fault, Need, RecordDecoder
from tidemill_stream.records.schema_types import NotCompilable, compile_type

TYPED = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "integer"},
        "n": {"type": "number"},
        "s": {"type": "string"},
        "e": {"enum": [1, 2]},
        "p": {"type": "string", "pattern": "^a$"},
        "d": {"type": "string", "pattern": r"^\d+$"},
        "m": {"type": ["integer", "null"], "minimum": 0},
        "o": {"type": "object", "properties": {"x": {"type": "string"}}},
    },
}


def verdict(decoder, raw):
    found = decoder.decode(raw)
    return found.reason if isinstance(found, Fault) else "valid"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"id":1}', "valid"),
        (b'{"id":1.0}', "valid"),
        (b'{"id":1e2}', "valid"),
        (b'{"id":1.5}', "invalid"),
        (b'{"id":1,"e":1.0}', "valid"),
        (b'{"id":1,"e":3}', "invalid"),
        (b'{"id":1,"p":"a\\n"}', "invalid"),
        ('{"id":1,"d":"\u0663"}'.encode(), "invalid"),
        (b'{"id":1,"n":NaN}', "malformed"),
        (b'\xef\xbb\xbf{"id":1}', "malformed"),
        (b'{"id":"x","id":1}', "valid"),
        (b'{"id":1,"id":"x"}', "invalid"),
        (b'{"id":1,"n":9007199254740993}', "valid"),
        (b'{"id":1,"m":null}', "valid"),
        (b'{"id":1,"m":-1}', "invalid"),
        (b'{"id":1,"s":null}', "invalid"),
        (b'{"id":1,"unknown":"\xff"}', "malformed"),
        (b'{"id":1,"s":"\xff"}', "malformed"),
        (b'{"id":1,"unknown":"\\ud800"}', "malformed"),
        (b'{"id":1,"s":"\\u0000"}', "unfit"),
        (b'{"id":18446744073709551616}', "unfit"),
        (b'{"id":9223372036854775808}', "unfit"),
        (b"5", "invalid"),
        (b"", "malformed"),
        (b'{"id":1', "malformed"),
        (None, "null_value"),
        (b"[" * 5000 + b"]" * 5000, "malformed"),
        (b'{"id":1,"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "malformed"),
    ],
)
def test_verdict_of_a_known_trap(raw, expected):
    decoder = RecordDecoder(TYPED, needs=[Need("id", "integer"), Need("n", "number"), Need("s", "string")])
    assert decoder.fast is not None

    assert verdict(decoder, raw) == expected


def test_values_are_the_same_on_both_paths():
    needs = [Need("id", "integer"), Need("n", "number"), Need("o.x", "string")]
    decoder = RecordDecoder(TYPED, needs=needs)

    for raw in (b'{"id":7,"n":9007199254740993,"o":{"x":"y"}}', b'{"id":7.0,"n":9007199254740993,"o":{"x":"y"}}'):
        record = decoder.decode(raw)
        assert (record.f_id, type(record.f_id), record.f_n, record.f_o.f_x) == (7, int, 9007199254740993, "y")


def test_fault_names_the_path():
    decoder = RecordDecoder(TYPED)

    fault = decoder.decode(b'{"id":1,"o":{"x":5}}')

    assert (fault.reason, fault.path) == ("invalid", "$.o.x")


def test_a_schema_that_cannot_be_typed_is_still_checked():
    schema = {**TYPED, "oneOf": [{"required": ["n"]}, {"required": ["s"]}]}
    decoder = RecordDecoder(schema, needs=[Need("id", "integer")])

    assert decoder.fast is None
    assert verdict(decoder, b'{"id":1,"n":1}') == "valid"
    assert verdict(decoder, b'{"id":1,"n":1,"s":"x"}') == "invalid"


def test_without_a_schema_declared_fields_must_fit():
    decoder = RecordDecoder(None, needs=[Need("a", "integer"), Need("at", "timestamp")])

    assert verdict(decoder, b'{"a":1,"at":"2024-01-01T00:00:00Z","more":[1]}') == "valid"
    assert verdict(decoder, b'{"a":"x"}') == "unfit"
    assert verdict(decoder, b'{"at":"yesterday"}') == "unfit"
    assert verdict(decoder, b"[1]") == "invalid"


@pytest.mark.parametrize(
    "part", [{"pattern": r"\s"}, {"pattern": "a.c"}, {"pattern": r"\w"}, {"pattern": "(?=a)"}, {"pattern": r"\Aa"}]
)
def test_patterns_that_mean_something_else_in_python_are_not_typed(part):
    with pytest.raises(NotCompilable):
        compile_type({"type": "object", "properties": {"a": {"type": "string", **part}}})


bounds = st.integers(-5, 5)
strings = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 4),
        "pattern": st.sampled_from(["^a", "b$", "^[a-c]+$", r"^\d{2}$", "a|b", "^(ab)*$", r"\.", "^[^a]$"]),
    },
)
numbers = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={
        "minimum": bounds,
        "maximum": st.one_of(bounds, st.just(2.5)),
        "exclusiveMinimum": bounds,
        "exclusiveMaximum": bounds,
    },
)
plain = st.one_of(
    strings,
    numbers,
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "null"]}),
    st.just({"type": ["integer", "boolean", "null"]}),
    st.just({"enum": ["a", "b"]}),
    st.just({"enum": [1, 2, None]}),
    st.just({"type": "string", "enum": ["a", None]}),
    st.just({"const": "a"}),
    st.just({}),
    st.just(True),
)


def objects(inner):
    return st.builds(
        lambda properties, required, extra: {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": extra,
        },
        st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, max_size=3),
        st.lists(st.sampled_from(["a", "b"]), unique=True),
        st.booleans(),
    )


arrays = plain.flatmap(
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("array"), "items": st.just(inner)},
        optional={"minItems": st.integers(0, 2), "maxItems": st.integers(0, 3)},
    )
)
schemas = objects(st.one_of(plain, arrays, objects(plain)))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-7, 7), st.sampled_from([1.0, 2.5, -3.0, 2**53 + 1, 2**63, 2**64, 1e300]),
    st.text("abc1.\n\u0663\U0001f600", max_size=4), st.sampled_from(["a", "ab", "12"]),
)  # fmt: skip
documents = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c d", "z"]), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip
maybe_objects = st.one_of(st.dictionaries(st.sampled_from(["a", "b", "c d", "z"]), documents, max_size=4), documents)
noise = st.one_of(st.just(None), st.tuples(st.integers(0, 200), st.binary(max_size=2)))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(schema=schemas, document=maybe_objects, noise=noise)
def test_typed_decoder_accepts_nothing_that_the_schema_forbids(schema, document, noise):
    decoder = RecordDecoder(schema)
    truth = jsonschema_rs.validator_for(schema, validate_formats=False)
    raw = _encoded(document)
    if noise is not None:
        raw = raw[: noise[0]] + noise[1] + raw[noise[0] :]
    try:
        value = orjson.loads(raw)
        expected = "valid" if truth.is_valid(value) and isinstance(value, dict) else "invalid"
    except orjson.JSONDecodeError:
        expected = "malformed"

    assert verdict(decoder, raw) == expected


def _encoded(document):
    import json

    assert not (isinstance(document, float) and math.isnan(document))
    return json.dumps(document, ensure_ascii=False).encode()
