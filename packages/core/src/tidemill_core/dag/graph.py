"""Order tasks by what they need; find needs that are unknown and needs that go in a circle."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


def topological_order(needs: Needs) -> list[str]:
    """List every name after all it needs; among free names the given order is kept.

    Names that stand in a cycle, or behind one, are left out; unknown needs are ignored.
    """
    rank = {name: index for index, name in enumerate(needs)}
    waiting = {name: {need for need in wanted if need in rank} for name, wanted in needs.items()}
    users = dependents(needs)
    ready = [rank[name] for name, wanted in waiting.items() if not wanted]
    heapq.heapify(ready)
    names = list(needs)
    order = []
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for user in users[name]:
            waiting[user].discard(name)
            if not waiting[user]:
                heapq.heappush(ready, rank[user])
    return order


def dependents(needs: Needs) -> dict[str, list[str]]:
    """For each name, list the names that need it (in file order, each once)."""
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in dict.fromkeys(wanted):
            if need in users:
                users[need].append(name)
    return users


def cycles(needs: Needs) -> list[list[str]]:
    """Find one cycle for every knot of the graph, starting at its first name in file order.

    Returns:
        Cycles in the order `a needs b needs a`, as ``["a", "b"]``; empty when there is none.
    """
    done = set(topological_order(needs))
    left = {name: needs[name] for name in needs if name not in done}
    found: list[list[str]] = []
    seen: set[str] = set()
    for start in left:
        path: list[str] = []
        place: dict[str, int] = {}
        name: str | None = start
        while name is not None and name not in place and name not in seen:
            place[name] = len(path)
            path.append(name)
            name = next((need for need in left[name] if need in left), None)
        if name is not None and name in place:
            found.append(path[place[name] :])
        seen.update(path)
    return found


def draw_cycle(cycle: Sequence[str]) -> str:
    """Draw a cycle on one line: ``a -> b -> a`` (each needs the next)."""
    return " -> ".join([*cycle, cycle[0]])


def levels(needs: Needs) -> dict[str, int]:
    """Give each name its column in a drawing: one more than the furthest thing it needs."""
    level: dict[str, int] = {}
    for name in topological_order(needs):
        level[name] = 1 + max((level[need] for need in needs[name] if need in level), default=-1)
    return level


def reach(links: Needs, start: Iterable[str]) -> set[str]:
    """Everything that can be reached from `start`, with `start` itself."""
    found: set[str] = set()
    todo = list(start)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(links.get(name, ()))
    return found
