"""Order, cycles, templates, conditions, cron lines and parameters: the pure parts of DAG files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.dag.cron import check_cron
from tidemill_core.dag.graph import cycles, draw_cycle, levels, reach, topological_order
from tidemill_core.dag.params import bind
from tidemill_core.dag.spec import ParamSpec
from tidemill_core.dag.template import TemplateError, holds, references, render
from tidemill_core.errors import ConfigError

NAMES = st.sampled_from([f"n{index}" for index in range(8)])


@st.composite
def acyclic(draw) -> dict[str, list[str]]:
    names = draw(st.permutations([f"n{index}" for index in range(draw(st.integers(0, 10)))]))
    made = {
        name: draw(st.lists(st.sampled_from(names[:index]), max_size=4)) if index else []
        for index, name in enumerate(names)
    }
    return dict(draw(st.permutations(list(made.items()))))


@given(acyclic())
def test_every_name_comes_once_and_after_all_it_needs(needs: dict[str, list[str]]) -> None:
    order = topological_order(needs)

    assert sorted(needs) == sorted(order)
    for name, wanted in needs.items():
        assert all(order.index(need) < order.index(name) for need in wanted)


@given(acyclic())
def test_graph_without_a_cycle_shows_none(needs: dict[str, list[str]]) -> None:
    assert [] == cycles(needs)


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)))
def test_cycles_found_are_cycles_and_are_found_exactly_when_the_order_is_incomplete(
    needs: dict[str, list[str]],
) -> None:
    found = cycles(needs)

    assert bool(found) == (len(topological_order(needs)) < len(needs))
    for cycle in found:
        for name, need in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert need in needs[name]


@given(acyclic())
def test_level_is_one_more_than_the_deepest_need(needs: dict[str, list[str]]) -> None:
    level = levels(needs)

    assert all(level[name] == 1 + max((level[need] for need in wanted), default=-1) for name, wanted in needs.items())


def test_free_tasks_keep_the_order_of_the_file() -> None:
    assert ["c", "a", "b"] == topological_order({"c": [], "a": [], "b": ["c"]})


def test_each_knot_is_found_once_however_many_names_lead_into_it() -> None:
    needs = {"a": ["b"], "b": ["a"], "before": ["a"], "c": ["c"], "behind": ["before"]}

    assert [["a", "b"], ["c"]] == cycles(needs)


def test_cycle_is_drawn_from_its_first_name() -> None:
    assert "a -> b -> a" == draw_cycle(cycles({"x": ["a"], "a": ["b"], "b": ["a"]})[0])


def test_deep_chain_needs_no_recursion() -> None:
    chain = {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(5000)}

    assert list(chain) == topological_order(chain)
    assert len(reach(chain, ["n4999"])) == 5000


SCOPES = {"params": {"n": 3, "name": "x"}, "outputs": {"a": {"rows": 5, "list": [1, 2]}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${params.n}", 3),
        ("n=${params.n} ${ params.name }", "n=3 x"),
        ("$HOME ${HOME} {{x}}", "$HOME ${HOME} {{x}}"),
        (["${outputs.a.list}", {"k": "${params.name}"}], [[1, 2], {"k": "x"}]),
        (("a", "${params.n}"), ("a", 3)),
    ],
)
def test_references_are_replaced(text, expected) -> None:
    assert expected == render(text, SCOPES)


def test_unknown_reference_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TemplateError, match="did you mean 'name'"):
        render("${params.nam}", SCOPES)


def test_partial_rendering_leaves_other_scopes_alone() -> None:
    assert "3 ${run.id}" == render("${params.n} ${run.id}", SCOPES, partial=True)


def test_references_are_listed() -> None:
    assert [("a", "b"), ("c", "d", "e")] == list(references({"x": "${a.b}", "y": ["-${c.d.e}"]}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params.n == 3", True),
        ("params.n > 2 and outputs.a.rows <= 5", True),
        ("not params.n or params.name in ['y', 'x']", True),
        ("${params.n} != 3", False),
        ("1 < params.n < 3", False),
        ("false or params.n == -3", False),
        ("outputs.a.rows not in outputs.a.list", True),
    ],
)
def test_condition_is_decided(text: str, expected: bool) -> None:
    assert expected == holds(text, SCOPES)


@pytest.mark.parametrize(
    "text", ["__import__('os')", "params.n + 1", "a b", "params.n is 3", "params.n < params.name", "params.x"]
)
def test_condition_outside_the_small_language_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        holds(text, SCOPES)


@pytest.mark.parametrize(
    "line",
    ["* * * * *", "*/5 0-6 1,15 jan-mar mon", "@daily", "0 0 29 2 *", "0 0 L * *", "5/10 * * * 7", "0 22 * * fri-mon"],
)
def test_cron_line_is_accepted(line: str) -> None:
    assert line == check_cron(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "60 * * * *",
        "a * * * *",
        "*/0 * * * *",
        "0 0 31 2 1",
        "@never",
        "* * 0 * *",
        "1,,2 * * * *",
    ],
)
def test_cron_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        check_cron(line)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 28), st.integers(1, 12), st.integers(0, 7))
def test_every_plain_moment_is_a_cron_line(minute: int, hour: int, day: int, month: int, weekday: int) -> None:
    check_cron(f"{minute} {hour} {day} {month} {weekday}")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "3", 3),
        ("float", "2.5", 2.5),
        ("bool", "yes", True),
        ("date", "2013-01-01", "2013-01-01"),
        ("list", "a, b", ["a", "b"]),
        ("str", "7", "7"),
    ],
)
def test_parameter_text_becomes_its_type(kind: str, text: str, expected) -> None:
    assert {"p": expected} == bind({"p": ParamSpec(type=kind)}, {"p": text}, dag="d")


@pytest.mark.parametrize(("kind", "text"), [("int", "3.5"), ("float", "x"), ("bool", "maybe"), ("date", "2013-13-01")])
def test_parameter_of_a_wrong_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ConfigError, match="parameter 'p' of DAG 'd'"):
        bind({"p": ParamSpec(type=kind)}, {"p": text}, dag="d")


def test_missing_unknown_and_unlisted_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no default"):
        bind({"p": ParamSpec()}, {}, dag="d")
    with pytest.raises(ConfigError, match="did you mean 'month'"):
        bind({"month": ParamSpec()}, {"moth": "x"}, dag="d")
    with pytest.raises(ConfigError, match="not one of a, b"):
        bind({"p": ParamSpec(choices=("a", "b"))}, {"p": "c"}, dag="d")
