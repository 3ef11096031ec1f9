"""The `where` language: syntax, three-valued logic, and the faults it names."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_stream.errors import FilterSyntax
from tidemill_stream.records.fields import Shape, attribute
from tidemill_stream.records.filter import compile_filter, field_paths, parse


def record(**values):
    return SimpleNamespace(**{attribute(name): value for name, value in values.items()})


@pytest.mark.parametrize(
    ("text", "values", "kept"),
    [
        ("dep_time is not null and origin in ('JFK','LGA')", {"dep_time": 5, "origin": "JFK"}, True),
        ("dep_time is not null and origin in ('JFK','LGA')", {"dep_time": None, "origin": "JFK"}, False),
        ("a > 1 or b = 'x'", {"a": None, "b": "x"}, True),
        ("not (a > 1)", {"a": None}, False),
        ("not a > 1", {"a": 1}, True),
        ("a between 1 and 3", {"a": 3}, True),
        ("a not between 1 and 3", {"a": None}, False),
        ("name like 'J%_'", {"name": "JFK"}, True),
        ("name like 'a.c'", {"name": "abc"}, False),
        ("a in (1, null)", {"a": 2}, False),
        ("a not in (1, null)", {"a": 2}, False),
        ("a + 2 * b >= 7", {"a": 1, "b": 3}, True),
        ("a / b = 1", {"a": 1, "b": 0}, False),
        ("-a < 0", {"a": 3}, True),
        ("open", {"open": True}, True),
        ("not open", {"open": None}, False),
        ("name = 'it''s'", {"name": "it's"}, True),
        ('"select" <> 1', {"select": 2}, True),
        ("A = 1 AND B = 2 OR C = 3", {"A": 0, "B": 0, "C": 3}, True),
        ("a = -1.5e1", {"a": -15}, True),
    ],
)
def test_condition_decides_as_sql_does(text, values, kept):
    keep = compile_filter(text)

    assert keep(record(**values)) is kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a =",
        "a = 1 b",
        "a in ()",
        "a in (b)",
        "(a = 1",
        "a like 5",
        "a is 3",
        "a not 1",
        "a ; b",
        "1 + (a = 2)",
        "and",
    ],
)
def test_broken_condition_names_the_column(text):
    with pytest.raises(FilterSyntax, match="at column"):
        parse(text)


def test_a_users_text_never_reaches_the_compiler():
    keep = compile_filter("a = '__import__(\"os\").abort()'")

    assert keep(record(a='__import__("os").abort()')) is True


def test_nested_fields_are_null_where_a_parent_is_missing():
    keep = compile_filter("flight.carrier = 'UA'")
    shape = Shape(["flight.carrier"])

    assert keep(shape.loosen({"flight": {"carrier": "UA"}})) is True
    assert keep(shape.loosen({"flight": None})) is False
    assert keep(shape.loosen({})) is False


def test_fields_of_a_condition_are_known():
    assert field_paths(parse("a.b > 1 and not (c in (1) or d like 'x' or e + f = 2) and g is null")) == {
        "a.b", "c", "d", "e", "f", "g",
    }  # fmt: skip


values = st.one_of(st.none(), st.integers(-3, 3))
atoms = st.sampled_from(
    ["a = 1", "a < b", "b >= 0", "a is null", "b is not null", "a in (1, 2)", "b not in (0, 1)", "a in (1, null)",
     "a between b and 2", "a + b > 1", "a * 2 <> b", "b not in (1, null)", "a <> -1"]
)  # fmt: skip
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=6,
)


@given(text=conditions, a=values, b=values)
def test_condition_agrees_with_sqlite(text, a, b):
    with sqlite3.connect(":memory:") as connection:
        (truth,) = connection.execute(f"select ({text}) from (select ? as a, ? as b)", (a, b)).fetchone()

    assert compile_filter(text)(record(a=a, b=b)) is bool(truth)
