"""Random graphs of steps, a job made of one, and a brute-force interpreter that says how it must end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import dagster as dg
from dagster._core.definitions.dependency import DynamicCollectDependencyDefinition
from hypothesis import strategies as st
from tidemill_core.defs.executor.threads import executor_by_name, threads_executor

Outcome = Literal["ok", "no_output", "fail", "fail_late", "retry_ok", "retry_fail", "retry_drop"]
"""`retry_drop`: the first try makes its output and fails, the second succeeds without."""
State = Literal["success", "failed", "skipped", "held"]
RULES = ("all_done", "one_failed", "one_success", "none_failed", "none_failed_min_one_success", "always")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One op.

    Attributes:
        needs: Nodes before it.
        kind: `mapped` follows a fan-out (or a mapped node of it), `collect` gathers one.
        copies: Outputs of a fan-out; None makes it none at all (the output is optional).
    """

    name: str
    needs: tuple[str, ...] = ()
    kind: Literal["plain", "fan", "mapped", "collect"] = "plain"
    outcome: Outcome = "ok"
    over: str | None = None
    """What a mapped or collecting node follows: a fan-out or a mapped node."""
    copies: int | None = 0
    failing_copy: int | None = None
    rule: str | None = None
    priority: int = 0
    limited: bool = False
    pool: bool = False


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph and how it is run."""

    nodes: tuple[Node, ...]
    max_concurrent: int = 3
    by_outputs: bool = False
    """`require_upstream_step_success` is off."""
    subset: tuple[str, ...] = field(default=())
    """Only these nodes are run; empty means all."""
    is_again: bool = False
    """A run again, in which nothing fails any more."""


def dump(graph: Graph) -> str:
    return json.dumps(asdict(graph))


def load(text: str) -> Graph:
    found = json.loads(text)
    nodes = tuple(Node(**{**each, "needs": tuple(each["needs"])}) for each in found.pop("nodes"))
    return Graph(nodes=nodes, **{**found, "subset": tuple(found["subset"])})


# --- the job of a graph


def job_of(graph: Graph, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    by_name = {node.name: node for node in graph.nodes}
    definition = dg.GraphDefinition(
        name="random",
        node_defs=[_op(node, graph) for node in graph.nodes],
        dependencies={node.name: dict(_inputs(node, by_name)) for node in graph.nodes},
    )
    return definition.to_job(executor_def=executor)


def threads(graph: Graph) -> dg.ExecutorDefinition:
    config: dict[str, Any] = {
        "max_concurrent": graph.max_concurrent,
        "tag_concurrency_limits": [{"key": "limited", "value": "yes", "limit": 1}],
    }
    if graph.by_outputs:
        config["step_dependency_config"] = {"require_upstream_step_success": False}
    return threads_executor.configured(config, name="threads")


def make(text: str, executor: str) -> dg.JobDefinition:
    """Build a job again; worker processes of `multiprocess` call it."""
    graph = load(text)
    return job_of(graph, threads(graph) if executor == "threads" else executor_by_name(executor, 4))


def _inputs(node: Node, by_name: Mapping[str, Node]) -> Iterator[tuple[str, Any]]:
    for index, need in enumerate(node.needs):
        yield f"after_{index}", dg.DependencyDefinition(need, "out")
    if node.kind == "mapped" and node.over:
        yield "over", dg.DependencyDefinition(node.over, "out")
    if node.kind == "collect" and node.over:
        yield "over", DynamicCollectDependencyDefinition(node.over, "out")


def _work(node: Node, context: Any) -> Iterator[Any]:
    outcome = outcome_of(node, is_again=context.run.parent_run_id is not None)
    is_failing = node.failing_copy is not None and context.get_mapping_key() == f"c{node.failing_copy}"
    if is_failing and context.run.parent_run_id is None:
        raise ValueError("as it should")
    if outcome in ("fail", "retry_fail"):
        raise ValueError("as it should")
    if outcome == "retry_ok" and context.retry_number == 0:
        raise ValueError("the first time")
    if node.kind == "fan":
        for number in range(node.copies or 0):
            yield dg.DynamicOutput(None, mapping_key=f"c{number}", output_name="out")
    elif outcome != "no_output" and (outcome != "retry_drop" or context.retry_number == 0):
        yield dg.Output(None, "out")
    if outcome == "fail_late" or (outcome == "retry_drop" and context.retry_number == 0):
        raise ValueError("after its output")


def outcome_of(node: Node, *, is_again: bool) -> Outcome:
    """What a node does; in a run again (from failure) nothing fails any more."""
    return "ok" if is_again and node.outcome in ("fail", "fail_late", "retry_fail") else node.outcome


class Live:
    """Watches how many steps of a run are at work at once; keeps what was wrong."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: list[tuple[str, Node]] = []
        self.faults: list[str] = []

    @contextmanager
    def step(self, run: str, node: Node, most: int) -> Iterator[None]:
        with self.lock:
            self.running.append((run, node))
            mine = [each for owner, each in self.running if owner == run]
            for what, count, limit in (
                ("steps", len(mine), most),
                ("limited steps", sum(each.limited for each in mine), 1),
                ("steps in the pool", sum(each.pool for each in mine), 1),
            ):
                if count > limit and (node.limited or node.pool or what == "steps"):
                    self.faults.append(f"{count} {what} at once, {limit} allowed")
        try:
            yield
        finally:
            with self.lock:
                self.running.remove((run, node))


LIVE = Live()


def _op(node: Node, graph: Graph) -> dg.OpDefinition:
    def compute(context, _inputs):
        with LIVE.step(context.run.run_id, node, graph.max_concurrent):
            yield from _work(node, context)

    ins = {f"after_{index}": dg.In(dg.Nothing) for index in range(len(node.needs))}
    if node.over:
        ins["over"] = dg.In(dg.Nothing)
    out = dg.DynamicOut(dg.Nothing, is_required=node.copies is not None) if node.kind == "fan" else None
    tags = {"dagster/priority": str(node.priority)}
    tags |= {"limited": "yes"} if node.limited else {}
    tags |= {"tidemill/trigger": node.rule} if node.rule else {}
    return dg.OpDefinition(
        compute,
        node.name,
        ins=ins,
        outs={"out": out or dg.Out(dg.Nothing, is_required=node.outcome not in ("no_output", "retry_drop"))},
        tags=tags,
        pool="narrow" if node.pool else None,
        retry_policy=dg.RetryPolicy(max_retries=1) if node.outcome.startswith("retry") else None,
    )


# --- how it must end, by looking at everything again and again until nothing changes


@dataclass
class World:
    """What is known so far; a key is a node, or a copy ``node[c0]``."""

    states: dict[str, State] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)
    copies: dict[str, list[str] | None] = field(default_factory=dict)
    """The copies of a fan-out that has ended; None if it was skipped."""


def interpret(graph: Graph) -> dict[str, set[State]]:
    """Say how every step must end.

    Returns:
        The allowed states by step key. Two are possible only where steps wait for outputs alone, and
        it depends on timing whether a missing output or a failure is noticed first.
    """
    nodes = [node for node in graph.nodes if not graph.subset or node.name in graph.subset]
    names = {node.name for node in nodes}
    nodes = [replace(node, needs=tuple(each for each in node.needs if each in names)) for node in nodes]
    by_name = {node.name: node for node in nodes}
    world = World()
    is_changed = True
    while is_changed:
        is_changed = False
        for node in nodes:
            for key in _keys(node, by_name, world):
                if key not in world.states and _advance(graph, node, key, by_name, world):
                    is_changed = True
    return {key: _allowed(graph, key, state, by_name, world) for key, state in world.states.items()}


def _fan_of(node: Node, by_name: Mapping[str, Node]) -> Node | None:
    """The fan-out behind a mapped or collecting node; None if it is not part of the run."""
    over = by_name.get(node.over or "")
    return over if over is None or over.kind == "fan" else _fan_of(over, by_name)


def _keys(node: Node, by_name: Mapping[str, Node], world: World) -> list[str]:
    if node.kind in ("plain", "fan"):
        return [node.name]
    fan = _fan_of(node, by_name)
    if fan is None or fan.name not in world.copies:
        return []
    copies = world.copies[fan.name]
    if node.kind == "collect":
        return [node.name]
    return [f"{node.name}[{copy}]" for copy in copies or []]


def _sources(node: Node, key: str, by_name: Mapping[str, Node], world: World) -> list[list[str]]:
    """The output keys behind each input; a collecting input has many."""
    found = [[need] for need in node.needs]
    if node.over is None:
        return found
    over = by_name[node.over]
    fan = _fan_of(node, by_name)
    assert fan is not None
    copies = world.copies[fan.name]
    if copies is None:
        return [*found, [fan.name]]  # never made: the fan-out's output is missing
    if node.kind == "mapped":
        copy = key.partition("[")[2].rstrip("]")
        return [*found, [f"{over.name}[{copy}]"]]
    return [*found, [f"{over.name}[{copy}]" for copy in copies]]


def _owner(source: str, by_name: Mapping[str, Node]) -> str:
    """The step that makes an output: the copies of a fan-out come from the one step."""
    name = source.partition("[")[0]
    return name if by_name[name].kind == "fan" else source


def _advance(graph: Graph, node: Node, key: str, by_name: Mapping[str, Node], world: World) -> bool:
    inputs = _sources(node, key, by_name, world)
    needed = {_owner(source, by_name) for sources in inputs for source in sources}
    if node.over and not (world.copies[_fan_of(node, by_name).name]):
        needed.add(_fan_of(node, by_name).name)
    decision = _decide(graph, node, inputs, needed, by_name, world)
    if decision is None:
        return False
    if decision == "run":
        _run(graph, node, key, world)
        return True
    world.states[key] = "skipped" if decision == "skip" else "held"
    if node.kind == "fan":
        world.copies[node.name] = None if decision == "skip" else []
    return True


def _decide(graph, node, inputs, needed, by_name, world):
    states = world.states
    ended = {each for each in needed if each in states}
    bad = {each for each in ended if states[each] in ("failed", "held")}
    good = {each for each in ended if states[each] == "success"}
    if node.rule is not None:
        made = {_owner(source, by_name) for each in inputs for source in each if source in world.outputs}
        takes = {_owner(source, by_name) for each in inputs for source in each}
        return _by_rule(node.rule, needed, ended, bad, {each for each in good if each in made or each not in takes})
    is_skip = any(_is_missing(sources, by_name, world) for sources in inputs)
    if graph.by_outputs:
        return (
            "hold"
            if bad - {_owner(s, by_name) for i in inputs for s in i}
            else _by_outputs(inputs, is_skip, by_name, world)
        )
    if ended != needed:
        return None
    if is_skip:
        return "skip"
    return "hold" if bad else "run"


def _by_outputs(inputs, is_skip, by_name, world):
    sources = [source for each in inputs for source in each]
    if is_skip:
        return "skip"
    if any(
        source not in world.outputs and world.states.get(_owner(source, by_name)) in ("failed", "held")
        for source in sources
    ):
        return "hold"
    is_over = all(
        source in world.outputs or world.states.get(_owner(source, by_name)) in ("success", "skipped")
        for source in sources
    )
    return "run" if is_over else None


def _by_rule(rule, needed, ended, bad, good):
    over = {
        "always": "run",
        "all_done": "run",
        "one_failed": "run" if bad else "skip",
        "one_success": "run" if good else "hold" if bad else "skip",
        "none_failed": "hold" if bad else "run",
        "none_failed_min_one_success": "hold" if bad else "run" if good else "skip",
    }
    early = {
        "always": True,
        "one_failed": bool(bad),
        "one_success": bool(good),
        "none_failed": bool(bad),
        "none_failed_min_one_success": bool(bad),
    }
    return over[rule] if ended == needed or early.get(rule) else None


def _is_missing(sources: list[str], by_name: Mapping[str, Node], world: World) -> bool:
    missing = [
        source
        for source in sources
        if world.states.get(_owner(source, by_name)) in ("success", "skipped") and source not in world.outputs
    ]
    return bool(missing) and len(missing) == len(sources)


def _run(graph: Graph, node: Node, key: str, world: World) -> None:
    copy = key.partition("[")[2].rstrip("]")
    outcome = outcome_of(node, is_again=graph.is_again)
    is_failing = outcome in ("fail", "retry_fail", "fail_late")
    is_failing = is_failing or (
        node.failing_copy is not None and copy == f"c{node.failing_copy}" and not graph.is_again
    )
    world.states[key] = "failed" if is_failing else "success"
    has_output = outcome not in ("no_output", "fail", "retry_fail") and (not is_failing or outcome == "fail_late")
    if outcome == "retry_drop":
        has_output = graph.by_outputs
    if node.kind != "fan":
        world.outputs |= {key} if has_output else set()
        return
    copies = [f"c{number}" for number in range(node.copies or 0)]
    world.copies[node.name] = [] if is_failing else None if node.copies is None else copies
    if has_output:
        world.outputs |= {f"{key}[{copy}]" for copy in copies}


def _allowed(graph: Graph, key: str, state: State, by_name: Mapping[str, Node], world: World) -> set[State]:
    if not graph.by_outputs or state not in ("skipped", "held"):
        return {state}
    return {"skipped", "held"}


# --- random graphs


@st.composite
def graphs(draw, *, rules: bool = True, by_outputs: bool = True, subsets: bool = True, most: int = 9) -> Graph:
    nodes: list[Node] = []
    for index in range(draw(st.integers(1, most))):
        nodes.append(draw(_node(index, tuple(nodes), rules=rules)))
    in_outputs_mode = by_outputs and not any(node.rule for node in nodes) and draw(st.booleans())
    subset: tuple[str, ...] = ()
    if subsets and all(node.kind == "plain" for node in nodes) and draw(st.integers(0, 4)) == 0:
        subset = tuple(sorted(draw(st.sets(st.sampled_from([node.name for node in nodes]), min_size=1))))
    return Graph(
        nodes=tuple(nodes),
        max_concurrent=draw(st.sampled_from([1, 3, 8])),
        by_outputs=in_outputs_mode,
        subset=subset,
    )


OUTCOMES: tuple[Outcome, ...] = (
    *("ok", "ok", "ok", "ok", "ok", "no_output", "fail", "fail_late", "retry_ok", "retry_fail", "retry_drop"),
)


@st.composite
def _node(draw, index: int, before: tuple[Node, ...], *, rules: bool) -> Node:
    plain = [node for node in before if node.kind in ("plain", "collect")]
    needs = tuple(sorted(draw(st.sets(st.sampled_from([node.name for node in plain]), max_size=3)))) if plain else ()
    lanes = [node for node in before if node.kind in ("fan", "mapped")]
    kinds = ["plain", "plain", "plain", "fan", *(["mapped", "collect", "collect"] if lanes else [])]
    kind = draw(st.sampled_from(kinds))
    over = draw(st.sampled_from(lanes)).name if kind in ("mapped", "collect") else None
    outcome = draw(st.sampled_from(OUTCOMES))
    if kind == "fan" and outcome in ("no_output", "retry_drop"):
        outcome = "ok"
    failing = draw(st.sampled_from([None, None, 0, 1])) if kind == "mapped" and outcome == "ok" else None
    rule = draw(st.sampled_from([None, None, None, *RULES])) if rules and kind != "fan" and (needs or over) else None
    return Node(
        name=f"n{index}",
        needs=needs,
        kind=kind,
        outcome=outcome,
        over=over,
        copies=draw(st.sampled_from([None, 0, 1, 2, 3])) if kind == "fan" else 0,
        failing_copy=failing,
        rule=rule,
        priority=draw(st.integers(-2, 2)),
        limited=draw(st.booleans()),
        pool=draw(st.integers(0, 5)) == 0,
    )
