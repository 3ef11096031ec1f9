"""Conditions against an interpreter of their own trees, and against the mistakes that people make in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import DagSpec, loaded_dag
from tidemill_core.dag.expand import steps
from tidemill_core.dag.template import TemplateError, condition_references, fill_condition, holds

SCOPES: Mapping[str, Any] = {
    "params": {"n": 3, "text": "b", "flag": True, "day": "2024-01-02"},
    "outputs": {
        "t": {
            "day": date(2024, 1, 2),
            "days": [date(2024, 1, 1), date(2024, 1, 2)],
            "price": Decimal("1.10"),
            "names": ["a", "b"],
            "none": None,
            "ratio": 0.5,
        }
    },
}
NAMES = {
    "params.n": 3,
    "params.text": "b",
    "params.flag": True,
    "outputs.t.day": date(2024, 1, 2),
    "outputs.t.days": [date(2024, 1, 1), date(2024, 1, 2)],
    "outputs.t.price": Decimal("1.10"),
    "outputs.t.names": ["a", "b"],
    "outputs.t.none": None,
    "outputs.t.ratio": 0.5,
    "true": True,
    "false": False,
}
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


class Wrong(Exception):
    """The oracle says that this cannot be decided."""


@dataclass(frozen=True)
class Leaf:
    text: str
    value: Any


@dataclass(frozen=True)
class Chain:
    """`first OP second OP third`: each beside the next, all must hold."""

    parts: tuple[Any, ...]
    operators: tuple[str, ...]

    @property
    def text(self) -> str:
        rest = (f" {sign} {part.text}" for sign, part in zip(self.operators, self.parts[1:], strict=True))
        return f"({self.parts[0].text}{''.join(rest)})"


@dataclass(frozen=True)
class Word:
    """`not`, `and`, `or`."""

    word: str
    parts: tuple[Any, ...]

    @property
    def text(self) -> str:
        if self.word == "not":
            return f"(not {self.parts[0].text})"
        return f"({f' {self.word} '.join(part.text for part in self.parts)})"


def literal(value: Any) -> Leaf:
    return Leaf(repr(value), value)


LEAVES = st.one_of(
    st.sampled_from(list(NAMES.items())).map(lambda each: Leaf(*each)),
    st.sampled_from(list(NAMES.items())).map(
        lambda each: Leaf(f"${{ {each[0]} }}" if "." in each[0] else each[0], each[1])
    ),
    st.integers(-5, 5).map(literal),
    st.sampled_from(["a", "b", "it's", '"', "2024-01-02", "2024-01-03", "1.1", "1.10", "params.n", ""]).map(literal),
    st.lists(st.sampled_from(["a", "2024-01-01", "2024-01-02", "2", 1]), max_size=3).map(literal),
    st.floats(-2, 2).map(literal),
)


def grown(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.lists(inner, min_size=2, max_size=3).flatmap(
            lambda parts: st.lists(st.sampled_from(OPERATORS), min_size=len(parts) - 1, max_size=len(parts) - 1).map(
                lambda signs: Chain(tuple(parts), tuple(signs))
            )
        ),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Word("and", tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Word("or", tuple(parts))),
        inner.map(lambda part: Word("not", (part,))),
    )


CONDITIONS = st.recursive(LEAVES, grown, max_leaves=8)


def value_of(node: Any) -> Any:
    """Decide a tree by the sentences of the documentation."""
    if isinstance(node, Leaf):
        return node.value
    if isinstance(node, Chain):
        values = [node.parts[0]]
        for sign, part in zip(node.operators, node.parts[1:], strict=True):
            values.append(part)
            if not compared(sign, value_of(values[-2]), value_of(part)):
                return False
        return True
    if node.word == "not":
        return not value_of(node.parts[0])
    for part in node.parts:
        if bool(value_of(part)) == (node.word == "or"):
            return node.word == "or"
    return node.word != "or"


def compared(sign: str, left: Any, right: Any) -> bool:
    if sign == "not in":
        return not compared("in", left, right)
    if sign == "in":
        if isinstance(right, list):
            return any(compared("==", left, each) for each in right)
        if isinstance(left, str) and isinstance(right, str):
            return left in right
        raise Wrong
    if isinstance(left, list) and isinstance(right, list):
        pairs = [typed(*pair) for pair in zip(left, right, strict=False)]
        left = [pair[0] for pair in pairs] + left[len(pairs) :]
        right = [pair[1] for pair in pairs] + right[len(pairs) :]
    else:
        left, right = typed(left, right)
    if sign in ("==", "!="):
        return (left == right) == (sign == "==")
    try:
        order = (left > right) - (left < right)
    except TypeError as error:
        raise Wrong from error
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[sign]


def typed(left: Any, right: Any) -> tuple[Any, Any]:
    """A text beside a date or a decimal is read as one."""
    if isinstance(left, str) and isinstance(right, date | Decimal):
        return read(left, right), right
    if isinstance(right, str) and isinstance(left, date | Decimal):
        return left, read(right, left)
    return left, right


def read(text: str, like: Any) -> Any:
    try:
        return date.fromisoformat(text) if isinstance(like, date) else Decimal(text)
    except (ValueError, ArithmeticError) as error:
        raise Wrong from error


@given(CONDITIONS)
def test_a_condition_is_decided_as_its_tree_says(tree: Any) -> None:
    try:
        expected = bool(value_of(tree))
    except Wrong:
        with pytest.raises(TemplateError, match="bad condition"):
            holds(tree.text, SCOPES)
        return

    assert expected == holds(tree.text, SCOPES), tree.text


def test_a_text_is_found_among_dates_and_lists_are_compared_by_their_items() -> None:
    assert holds("'2024-01-02' in outputs.t.days", SCOPES)
    assert not holds("'2024-01-03' in outputs.t.days", SCOPES)
    assert holds("outputs.t.days == ['2024-01-01', '2024-01-02']", SCOPES)
    assert holds("outputs.t.days != ['2024-01-01']", SCOPES)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("'${params.text}' == 'b'", "between quotes; write params.text without them"),
        ('"a ${params.text}" == "a b"', "between quotes"),
        ("params.text == '${ params.day }'", "write params.day without"),
        ("params.n is 3", "the operator Is is not allowed"),
        ("params.n + 1 == 2", "'params.n \\+ 1' is not allowed"),
        ("f'{params.n}' == '3'", "not allowed"),
        ("len(params.text) == 1", r"'len\(params.text\)' is not allowed"),
        ("params.names[0] == 'a'", r"'params.names\[0\]' is not allowed"),
        ("(lambda: 1) == 1", "not allowed"),
        ("1 in 2", "not iterable"),
        ("-'a' == 1", "bad operand type"),
        ("'a' < 1", "not supported"),
        ("not " * 5000 + "true", "nested too deeply"),
        ("(" * 300 + "1" + ")" * 300, "nested"),
        ("", "invalid syntax"),
        ("params.n == \0", "null byte"),
        ("params.n = 3", "bad condition"),
        ("params.n == 3; params.n", "invalid syntax"),
        ("a b", "invalid syntax"),
    ],
)
def test_a_mistake_is_found_before_anything_runs(condition: str, says: str) -> None:
    with pytest.raises(TemplateError, match=says) as wrong:
        list(condition_references(condition))

    assert len(str(wrong.value)) < 300


def test_a_dag_with_such_a_mistake_names_the_task() -> None:
    document = {"name": "d", "tasks": [{"name": "t", "run": "x", "when": "'${run.id}' == ''"}]}

    with pytest.raises(ConfigFaults, match=r"tasks\[0\]\.when: .*between quotes; write run\.id"):
        loaded_dag(DagSpec.model_validate(document))


SCALARS = st.one_of(
    st.text(max_size=12),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["matrix.b", "${matrix.b}", "'", '"', "'''", "\\", "\n", "a' or true or 'a", "None"]),
)


@given(first=SCALARS, second=SCALARS)
def test_a_filled_condition_compares_the_very_value(first: Any, second: Any) -> None:
    """Whatever a value looks like - a quote, another reference - it stays one literal."""
    values = {"a": first, "b": second}

    filled = fill_condition("matrix.a == params.x and ${matrix.b} == params.y", "matrix", values)

    assert holds(filled, {"params": {"x": first, "y": second}})
    other = "another" if first != "another" else "one more"
    assert not holds(filled, {"params": {"x": other, "y": second}})


@given(first=SCALARS, second=SCALARS)
def test_a_filled_copy_of_a_task_decides_for_itself(first: Any, second: Any) -> None:
    if str(first) == str(second) or isinstance(first, str) != isinstance(second, str):
        return
    document = {
        "name": "d",
        "tasks": [{"name": "t", "run": "x", "when": "matrix.a == params.x", "matrix": {"a": [first, second]}}],
        "params": {"x": {"type": "str", "default": "z"}},
    }
    copies = steps(DagSpec.model_validate(document))

    decided = [holds(step.task.when, {"params": {"x": step.matrix["a"]}}) for step in copies]

    assert all(decided)


def test_texts_that_only_look_like_names_stay_texts() -> None:
    assert "'matrix.a' == params.x" == fill_condition("'matrix.a' == params.x", "matrix", {"a": 1})
    assert "params.matrix.a == 1" == fill_condition("params.matrix.a == 1", "matrix", {"a": 1})
    assert "matrix.ab == 1" == fill_condition("matrix.ab == 1", "matrix", {"a": 1})


@pytest.mark.parametrize("value", [-1, 1.5, -0.0, True, False, 10**30, 1e300, ""])
def test_every_kind_of_literal_is_read_back(value: Any) -> None:
    filled = fill_condition("matrix.a", "matrix", {"a": value})

    assert bool(value) == holds(filled, {})
    assert holds(f"{filled} == params.x", {"params": {"x": value}})
    assert not math.isnan(float(value or 0))


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("params.n == 3 and not outputs.t.day", {("params", "n"), ("outputs", "t", "day")}),
        ("${params.n} in [1, params.m]", {("params", "n"), ("params", "m")}),
        ("true or false", {("true",), ("false",)}),
        ("'params.n' == 'x'", set()),
    ],
)
def test_names_are_listed_but_not_those_in_texts(condition: str, names: set[tuple[str, ...]]) -> None:
    assert names == set(condition_references(condition))
