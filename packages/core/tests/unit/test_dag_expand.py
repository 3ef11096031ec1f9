"""Copies of a fan-out over outputs: names, order and refusals, against the plain product of the lists."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.dag.errors import BadOutputs
from tidemill_core.dag.expand import is_fan_out, run_time_copies, steps
from tidemill_core.dag.spec import DagSpec, TaskSpec

VALUES = st.one_of(st.text(max_size=80), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
LISTS = st.lists(VALUES, max_size=5)


def task(**matrix: object) -> TaskSpec:
    return TaskSpec.model_validate({"name": "t", "run": "x", "matrix": matrix})


@given(fixed=LISTS.filter(bool), first=LISTS, second=LISTS)
def test_copies_are_the_product_of_the_lists_in_order(fixed: list, first: list, second: list) -> None:
    spec = task(f=fixed, a="${outputs.x.a}", b="${outputs.x.b}")

    copies = run_time_copies(spec, {"a": first, "b": second})

    expected = [dict(zip("fab", values, strict=True)) for values in itertools.product(fixed, first, second)]
    assert expected == list(copies.values())


@given(values=st.lists(VALUES, max_size=30))
def test_names_of_copies_differ_and_are_what_dagster_takes_for_a_mapping_key(values: list) -> None:
    copies = run_time_copies(task(a="${outputs.x.a}"), {"a": values})

    assert len(values) == len(copies)
    assert all(re.fullmatch(r"[A-Za-z0-9_]{1,70}", name) for name in copies)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["a.csv", "b.csv"], ["a_csv", "b_csv"]),
        (["a b", "a/b", "a-b"], ["a_b", "a_b_2", "a_b_3"]),
        (["a", "a", "a_2"], ["a", "a_2", "a_2_2"]),
        (["", "/", 7, True], ["x", "x_2", "7", "True"]),
        (["Ü"], ["_"]),
    ],
)
def test_names_of_copies_are_readable(values: list, names: list[str]) -> None:
    assert names == list(run_time_copies(task(a="${outputs.x.a}"), {"a": values}))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("abc", r"\$\{outputs.x.a\} must be a list to fan out over, it is str \('abc'\)"),
        ({"a": 1}, "it is dict"),
        (None, "it is NoneType"),
        (["a", ["b"]], r"item 1 of \$\{outputs.x.a\} is list"),
        ([None], "item 0"),
    ],
)
def test_what_is_no_list_of_values_is_refused_by_name(value: object, says: str) -> None:
    with pytest.raises(BadOutputs, match=f"task 't': .*{says}|task 't': {says}"):
        run_time_copies(task(a="${outputs.x.a}"), {"a": value})


def test_count_is_checked_before_copies_are_made() -> None:
    spec = task(a="${outputs.x.a}", b="${outputs.x.b}")

    with pytest.raises(BadOutputs, match="would make 100000000 copies, max_copies is 1000"):
        run_time_copies(spec, {"a": list(range(10_000)), "b": list(range(10_000))})


def test_task_whose_copies_are_made_later_is_one_step() -> None:
    dag = DagSpec.model_validate(
        {
            "name": "d",
            "tasks": [
                {"name": "x", "run": "x", "outputs": ["a"]},
                {"name": "t", "run": "x", "matrix": {"a": "${outputs.x.a}", "b": [1, 2]}, "needs": ["x"]},
                {"name": "u", "run": "x", "matrix": {"b": [1, 2]}, "needs": ["t"]},
            ],
        }
    )

    found = {step.name: (step.needs, step.is_fan_out) for step in steps(dag)}

    assert {"x": ((), False), "t": (("x",), True), "u__1": (("t",), False), "u__2": (("t",), False)} == found
    assert not is_fan_out(dag.tasks[0])
