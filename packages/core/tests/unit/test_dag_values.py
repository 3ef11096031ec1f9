"""Outputs keep their type, or are refused with the place."""

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.dag.errors import BadOutputs
from tidemill_core.dag.template import TemplateError, holds, render
from tidemill_core.dag.values import LIMIT_BYTES, as_text, decode, encode, encode_outputs

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Paris")])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=ZONES)
    | st.decimals(allow_nan=False)
)
# Keys of our own form are among the keys, so that the escape is exercised.
KEYS = st.text(max_size=5) | st.sampled_from(["$tidemill", "value", "zone"])
VALUES = st.recursive(LEAVES, lambda each: st.lists(each, max_size=4) | st.dictionaries(KEYS, each, max_size=4))


def kinds(value: Any) -> Any:
    """The types of a value and of all inside it."""
    if isinstance(value, list):
        return [kinds(each) for each in value]
    if isinstance(value, dict):
        return {key: kinds(each) for key, each in value.items()}
    return type(value), getattr(getattr(value, "tzinfo", None), "key", None)


@given(VALUES)
def test_every_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    carried = json.loads(json.dumps(encode(value, where="here")))

    assert value == decode(carried)
    assert kinds(value) == kinds(decode(carried))


def test_a_wall_clock_time_that_comes_twice_keeps_which_it_is() -> None:
    paris = ZoneInfo("Europe/Paris")
    twice = [datetime(2024, 10, 27, 2, 30, tzinfo=paris, fold=fold) for fold in (0, 1)]

    back = decode(encode(twice, where="here"))

    assert [each.utcoffset() for each in twice] == [each.utcoffset() for each in back]
    assert twice[0].utcoffset() != twice[1].utcoffset()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_json_has_no_word_for_are_carried_as_strict_json(number: float) -> None:
    carried = json.dumps(encode(number, where="here"), allow_nan=False)

    assert repr(number) == repr(decode(json.loads(carried)))


def test_subclasses_of_plain_types_arrive_as_those() -> None:
    class Colour(StrEnum):
        RED = "red"

    assert ["red", [1, 2]] == encode([Colour.RED, (1, 2)], where="here")
    assert type(encode(Colour.RED, where="here")) is str


@pytest.mark.parametrize(
    ("value", "name", "place"),
    [
        (time(1), "datetime.time", "output 'x' is"),
        ({"a": [1, timedelta(1)]}, "timedelta", r"output 'x'\.a\[1\] is"),
        (uuid.uuid4(), "uuid.UUID", "str"),
        (Path("a"), "PosixPath", "str"),
        ({1, 2}, "builtins.set", "sorted"),
        (bytearray(b"a"), "bytearray", "output 'x' is"),
        (object(), "builtins.object", "output 'x' is"),
        ({1: "a"}, "key 1", "texts"),
    ],
)
def test_other_values_are_refused_with_task_output_and_type(value: Any, name: str, place: str) -> None:
    with pytest.raises(BadOutputs, match=name) as refused:
        encode_outputs({"x": value}, task="load")

    assert "task 'load'" in str(refused.value)
    with pytest.raises(BadOutputs, match=place):
        encode_outputs({"x": value}, task="load")


def test_more_than_the_limit_is_refused_with_its_name_and_a_remedy() -> None:
    fits = {"small": 1, "big": "x" * (LIMIT_BYTES - 10)}

    assert fits == encode_outputs(fits, task="load")
    with pytest.raises(BadOutputs, match=r"output 'big' takes 256 KiB.*IO manager"):
        encode_outputs({"small": 1, "big": "x" * LIMIT_BYTES}, task="load")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a 'b'", "a 'b'"),
        (True, "true"),
        (None, "null"),
        (1.5, "1.5"),
        (["é", 1], '["é", 1]'),
        ({"day": date(2024, 1, 2)}, '{"day": "2024-01-02"}'),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02T03:00:00+00:00"),
        (Decimal("1.10"), "1.10"),
    ],
)
def test_no_text_is_made_of_a_repr(value: Any, text: str) -> None:
    assert text == as_text(value, where="here")
    assert f"<{text}>" == render("<${params.x}>", {"params": {"x": value}})
    assert value == render("${params.x}", {"params": {"x": value}})


@pytest.mark.parametrize("value", [b"\x00", [b"a"], {"a": time(1)}])
def test_what_has_no_text_is_refused(value: Any) -> None:
    with pytest.raises(BadOutputs, match=r"params\.x"):
        render("<${params.x}>", {"params": {"x": value}})


@pytest.mark.parametrize(
    ("condition", "is_true"),
    [
        ("outputs.t.day == '2024-01-02'", True),
        ("outputs.t.day < '2024-01-02'", False),
        ("'2024-01-01' < outputs.t.day", True),
        ("outputs.t.day in ['2024-01-01', '2024-01-02']", True),
        ("outputs.t.price >= '1.10'", True),
        ("outputs.t.price > 2", False),
    ],
)
def test_conditions_compare_texts_with_typed_values_as_such(condition: str, is_true: bool) -> None:
    scopes = {"outputs": {"t": {"day": date(2024, 1, 2), "price": Decimal("1.1")}}}

    assert holds(condition, scopes) is is_true


def test_a_text_that_is_no_date_beside_a_date_is_an_error_not_false() -> None:
    with pytest.raises(TemplateError, match="bad condition"):
        holds("outputs.t.day == 'monday'", {"outputs": {"t": {"day": date(2024, 1, 2)}}})
