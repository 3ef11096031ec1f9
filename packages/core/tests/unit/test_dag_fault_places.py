"""A fault that is put into a good file of any shape is named at its own line, alone, in YAML and in JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tidemill_core.config import ConfigFaults
from tidemill_core.dag import load_dags

WORDS = st.sampled_from(["load", "clean", "join", "report", "mail", "sum", "check", "publish"])


@st.composite
def good(draw: Any, index: int = 0) -> dict[str, Any]:
    """A DAG that is right, as plain data."""
    names = draw(st.lists(WORDS, min_size=2, max_size=5, unique=True))
    tasks = []
    for number, name in enumerate(names):
        task: dict[str, Any] = {"name": name, "run": draw(st.sampled_from(["true", "echo a", ["echo", "a b"]]))}
        if number and draw(st.booleans()):
            task["needs"] = draw(st.lists(st.sampled_from(names[:number]), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()):
            task["retry"] = {"count": draw(st.integers(0, 5)), "delay_s": draw(st.integers(0, 9))}
        if draw(st.booleans()):
            task["timeout_s"] = draw(st.integers(1, 100))
        if draw(st.booleans()):
            task["env"] = {"A": "one", "B": draw(st.text("abc: #'\"-\n", max_size=8))}
        if draw(st.booleans()):
            task["matrix"] = {"x": draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))}
        tasks.append(task)
    found: dict[str, Any] = {"name": f"dag{index}", "tasks": tasks}
    if draw(st.booleans()):
        found["params"] = {"day": {"type": "date", "default": "2024-01-01"}, "n": {"type": "int", "default": 3}}
    if draw(st.booleans()):
        found["schedule"] = {"cron": draw(st.sampled_from(["0 6 * * *", "*/5 * * * 1-5"])), "timezone": "Europe/Berlin"}
    if draw(st.booleans()):
        found["description"] = draw(st.text("abc: #\n", max_size=20))
    return found


@dataclass(frozen=True)
class Fault:
    """A way to spoil a DAG: `spoil` changes it and answers the path of what is wrong; `says` is in the message."""

    name: str
    spoil: Callable[[dict[str, Any], int], tuple[Any, ...] | None]
    says: str


def task_at(dag: dict[str, Any], turn: int) -> tuple[int, dict[str, Any]]:
    index = turn % len(dag["tasks"])
    return index, dag["tasks"][index]


def unknown_key(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["retires"] = 3
    return ("tasks", index, "retires")


def unknown_need(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["needs"] = [*task.get("needs", []), "nobody"]
    return ("tasks", index, "needs", len(task["needs"]) - 1)


def wrong_count(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["retry"] = {"count": "many"}
    return ("tasks", index, "retry", "count")


def negative_timeout(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["timeout_s"] = -1
    return ("tasks", index, "timeout_s")


def unknown_output(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["run"] = "echo ${outputs.nobody.rows}"
    return ("tasks", index, "run")


def unknown_param(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["run"] = ["echo", "${params.dya}"]
    return ("tasks", index, "run")


def bad_condition(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["when"] = "params.n +"
    return ("tasks", index, "when")


def empty_matrix(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["matrix"] = {"x": []}
    return ("tasks", index, "matrix", "x")


def bad_cron(dag: dict[str, Any], _turn: int) -> tuple[Any, ...]:
    dag["schedule"] = {"timezone": "Europe/Berlin", "cron": "61 * * * *"}
    return ("schedule", "cron")


def bad_zone(dag: dict[str, Any], _turn: int) -> tuple[Any, ...]:
    dag["schedule"] = {"cron": "0 6 * * *", "timezone": "Europe/Berlim"}
    return ("schedule", "timezone")


def bad_default(dag: dict[str, Any], _turn: int) -> tuple[Any, ...]:
    dag["params"] = {"n": {"type": "int", "default": "three"}}
    return ("params", "n", "default")


def bad_type(dag: dict[str, Any], _turn: int) -> tuple[Any, ...]:
    dag["params"] = {"n": {"type": "integer", "default": 3}}
    return ("params", "n", "type")


def two_kinds(dag: dict[str, Any], turn: int) -> tuple[Any, ...]:
    index, task = task_at(dag, turn)
    task["call"] = "os.path:join"
    return ("tasks", index, "call")


FAULTS = [
    Fault("unknown key", unknown_key, "unknown key; did you mean 'retry'"),
    Fault("unknown need", unknown_need, "nobody"),
    Fault("wrong count", wrong_count, "integer"),
    Fault("negative timeout", negative_timeout, "greater than 0"),
    Fault("unknown output", unknown_output, "nobody"),
    Fault("unknown parameter", unknown_param, "dya"),
    Fault("bad condition", bad_condition, "bad condition"),
    Fault("empty matrix", empty_matrix, "the list is empty"),
    Fault("bad cron", bad_cron, "61"),
    Fault("bad zone", bad_zone, "Europe/Berlim"),
    Fault("bad default", bad_default, "three"),
    Fault("bad type", bad_type, "'int'"),
]


def line_of(text: str, path: tuple[Any, ...], number: int) -> set[int]:
    """Find the lines of a path in a file's nodes, by the YAML library itself: of its key and of its value."""
    node = list(yaml.compose_all(text))[number]
    key = node
    for part in path:
        if isinstance(node, yaml.MappingNode):
            key, node = next((k, v) for k, v in node.value if k.value == part)
        else:
            assert isinstance(node, yaml.SequenceNode)
            key = node = node.value[part]
    return {key.start_mark.line + 1, node.start_mark.line + 1}


def written(dags: list[dict[str, Any]], layout: str) -> str:
    if layout == "json":
        return json.dumps(dags[0], indent=1)
    flow = {"block": False, "flow": None}[layout]
    return "---\n".join(yaml.safe_dump(dag, sort_keys=False, default_flow_style=flow, width=60) for dag in dags)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@settings(
    deadline=None, max_examples=12, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), turn=st.integers(0, 9), layout=st.sampled_from(["block", "flow", "json"]))
def test_a_fault_is_named_at_its_line_and_nothing_else_is(
    tmp_path: Path, fault: Fault, data: Any, turn: int, layout: str
) -> None:
    count = 1 if layout == "json" else data.draw(st.integers(1, 3))
    dags = [data.draw(good(index)) for index in range(count)]
    number = turn % count
    spoilt = copy.deepcopy(dags)
    path = fault.spoil(spoilt[number], turn)
    assume(path is not None)
    file = tmp_path / ("d.json" if layout == "json" else "d.yaml")
    file.write_text(written(dags, layout))
    assert count == len(load_dags(file))
    text = written(spoilt, layout)
    file.write_text(text)

    with pytest.raises(ConfigFaults) as wrong:
        load_dags(file)

    (found,) = list(relevant(wrong.value))
    assert fault.says in found.message
    assert found.place.line in line_of(text, path, number), (found, path)


def relevant(faults: ConfigFaults) -> Iterator[Any]:
    """Faults by place: two messages at one line about one thing are one."""
    seen = set()
    for each in faults.faults:
        if each.place.line not in seen:
            seen.add(each.place.line)
            yield each


@settings(
    deadline=None, max_examples=25, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.data(), chosen=st.lists(st.sampled_from(FAULTS), min_size=2, max_size=4, unique_by=lambda each: each.name)
)
def test_faults_of_several_documents_are_all_named(tmp_path: Path, data: Any, chosen: list[Fault]) -> None:
    dags = [data.draw(good(index)) for index in range(len(chosen))]
    places = [fault.spoil(dag, index) for index, (fault, dag) in enumerate(zip(chosen, dags, strict=True))]
    text = written(dags, "block")
    (tmp_path / "d.yaml").write_text(text)

    with pytest.raises(ConfigFaults) as wrong:
        load_dags(tmp_path / "d.yaml")

    lines = {each.place.line for each in wrong.value.faults}
    for number, (fault, path) in enumerate(zip(chosen, places, strict=True)):
        assert path is not None
        assert lines & line_of(text, path, number), (fault.name, path)
