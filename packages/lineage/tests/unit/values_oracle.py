"""Change each input column of a step, run it again, and compare what changed with the edges that were told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill_lineage import Tracer
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.model import Edge

LEFT, RIGHT, OUT = "test://left", "test://right", "test://out"
Step = Callable[[Any, Any], Any]
Columns = Mapping[str, Sequence[Any]]

LEFT_ROWS: dict[str, list[Any]] = {
    "id": list(range(12)),
    "k": [i % 5 for i in range(12)],
    "a": [(i * 7) % 11 for i in range(12)],
    "b": [((i * 5) % 13) / 2 for i in range(12)],
    "s": ["abcde"[i % 5] + str(i % 3) for i in range(12)],
    "n": [None if i % 4 == 0 else float(i) for i in range(12)],
}
RIGHT_ROWS: dict[str, list[Any]] = {
    "k": [0, 1, 2, 3, 7],
    "a": [3, 1, 4, 1, 5],
    "c": [10, 20, 30, 40, 50],
    "w": ["u", "v", "w", "x", "y"],
}
OTHER = {"s": "zz", "w": "q"}


@dataclass
class Score:
    """What an oracle found in a number of steps."""

    influences: int = 0
    by_column: int = 0
    uncovered: list[tuple[str, str, str, str]] = field(default_factory=list)
    direct: int = 0
    direct_false: list[tuple[str, str, str]] = field(default_factory=list)
    indirect: int = 0
    indirect_false: int = 0
    without_columns: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    dataset_only: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.by_column / max(self.influences, 1)

    @property
    def false_direct(self) -> float:
        return len(self.direct_false) / max(self.direct, 1)


def changes(columns: Columns, name: str) -> list[dict[str, list[Any]]]:
    """Ways to change one column: turn its values round, shift them, change one, and change it much."""
    values = list(columns[name])
    one = [*values]
    one[2] = OTHER.get(name, 99)
    last = [*values]
    last[-1] = OTHER.get(name, -7)
    scaled = [value if value is None else value * 2 if isinstance(value, str) else value * 3 + 1 for value in values]
    return [{**columns, name: each} for each in (values[1:] + values[:1], values[::-1], one, last, scaled)]


def score(steps: Mapping[str, Step], make: Callable[[Columns], Any], read: Callable[[Any], Columns]) -> Score:
    """Try all steps.

    Args:
        steps: By name.
        make: A frame of some columns.
        read: The columns of a frame, index levels that have names included.
    """
    found = Score()
    for name, step in steps.items():
        _try(found, name, step, make, read)
    return found


def traced(step: Step, left: Any, right: Any) -> tuple[Any, tuple[Edge, ...], list[str], tuple[str, ...]]:
    memory = MemoryEmitter()
    tracer = Tracer([memory])
    result = tracer.trace(inputs={"x": LEFT, "y": RIGHT}, output=OUT)(step)(left, right)
    tracer.flush()
    faults = list(tracer.stats.errors)
    tracer.close()
    (run,) = memory.runs
    return result, run.edges, faults, tuple(column.name for column in run.writes[0].columns)


def _try(found: Score, name: str, step: Step, make: Callable[[Columns], Any], read: Callable[[Any], Columns]) -> None:
    result, edges, faults, told = traced(step, make(LEFT_ROWS), make(RIGHT_ROWS))
    found.faults += [f"{name}: {each}" for each in faults]
    before = read(result)
    if set(told) != set(before):
        found.without_columns.append(name)
    pairs: set[tuple[str, str, str]] = set()
    for urn, rows in ((LEFT, LEFT_ROWS), (RIGHT, RIGHT_ROWS)):
        for column in rows:
            for other in changes(rows, column):
                left, right = (other, RIGHT_ROWS) if urn == LEFT else (LEFT_ROWS, other)
                try:
                    after = read(step(make(left), make(right)))
                except Exception:  # a changed column may be refused
                    continue
                pairs |= {(urn, column, each) for each in before if repr(after.get(each)) != repr(before[each])}
    _count(found, name, edges, pairs, tuple(before))


def _count(
    found: Score, name: str, edges: Sequence[Edge], pairs: set[tuple[str, str, str]], columns: Sequence[str]
) -> None:
    told: dict[str, set[tuple[str, str, str]]] = {"DIRECT": set(), "INDIRECT": set()}
    for edge in edges:
        for target in [edge.target_column] if edge.target_column else columns:
            told[edge.kind].add((edge.source, edge.source_column, target))
    everything = told["DIRECT"] | told["INDIRECT"]
    for source, column, target in sorted(pairs):
        found.influences += 1
        if (source, column, target) in everything:
            found.by_column += 1
        elif (source, "", target) in everything:
            found.dataset_only.append((name, source, column, target))
        else:
            found.uncovered.append((name, source, column, target))
    direct = {each for each in told["DIRECT"] if each[1]}
    found.direct += len(direct)
    found.direct_false += [(name, f"{source}#{column}", target) for source, column, target in sorted(direct - pairs)]
    indirect = {each for each in told["INDIRECT"] if each[1]}
    found.indirect += len(indirect)
    found.indirect_false += len(indirect - pairs)
