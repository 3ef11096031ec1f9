"""The questions asked of a graph, wherever it is kept: in memory or in SQLite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from tidemill_core.plugins import did_you_mean

from tidemill_lineage.errors import GraphError
from tidemill_lineage.model import Dataset, DatasetUrn, Edge, column_urn, stable_urn

Node = tuple[DatasetUrn, str]
"""A dataset and one of its columns; an empty column means the dataset as a whole."""

Step = tuple[Node, Edge]


class Lineage(ABC):
    """A graph that can be walked.

    Names are given as ``urn``, ``urn#column``, an asset key or an unambiguous end of either. What is
    returned is spelled ``urn#column``.
    """

    @abstractmethod
    def dataset(self, urn: DatasetUrn) -> Dataset | None:
        """Find a dataset."""

    @abstractmethod
    def candidates(self, name: str) -> list[DatasetUrn]:
        """Find the datasets that have this asset key, else those whose URN or asset key ends so."""

    @abstractmethod
    def incoming(self, node: Node) -> Sequence[Edge]:
        """Edges to a dataset, or only those that reach one of its columns."""

    @abstractmethod
    def outgoing(self, node: Node) -> Sequence[Edge]:
        """Edges from a dataset, or only those that one of its columns has a part in."""

    @abstractmethod
    def edge_columns(self, urn: DatasetUrn) -> set[str]:
        """Columns of a dataset that edges name."""

    @abstractmethod
    def near_names(self, name: str) -> list[str]:
        """Names of datasets to choose a likely one from, for a message."""

    def resolve(self, name: str) -> str:
        """Find the one dataset or column that a name means.

        Raises:
            GraphError: Nothing, or more than one thing, has this name.
        """
        return column_urn(*self.node(name))

    def node(self, name: str) -> Node:
        """Find the one node that a name means; see `resolve`."""
        # a URN may hold a '#' of its own: the longest dataset that exists is meant
        cuts = [len(name), *(at for at in range(len(name) - 1, 0, -1) if name[at] == "#")]
        fault: GraphError | None = None
        for cut in cuts:
            try:
                urn = self._resolve_dataset(stable_urn(name[:cut]))
            except GraphError as error:
                fault = error
                continue
            return urn, self._resolve_column(urn, name[cut + 1 :])
        raise fault or GraphError("an empty name names nothing")

    def _resolve_dataset(self, name: str) -> DatasetUrn:
        if self.dataset(name) is not None:
            return name
        found = self.candidates(name)
        if len(found) == 1:
            return found[0]
        if found:
            raise GraphError(f"{name!r} means more than one dataset: {', '.join(found)}; give the whole URN")
        near = did_you_mean(name, self.near_names(name)) if name else ""
        hint = near if near.startswith("; did") else "; `tidemill lineage show` lists them"
        raise GraphError(f"no dataset is called {name!r}{hint}")

    def _resolve_column(self, urn: DatasetUrn, column: str) -> str:
        dataset = self.dataset(urn)
        if not column or dataset is None or column in {each.name for each in dataset.columns}:
            return column
        known = {each.name for each in dataset.columns} | self.edge_columns(urn)
        if column not in known:
            raise GraphError(
                f"{urn} has no column {column!r}{did_you_mean(column, sorted(known)) or '; none is known'}"
            )
        return column

    def upstream(self, name: str, *, depth: int | None = None) -> list[str]:
        """List what a dataset or column is made from, nearest first, with names sorted at each distance."""
        return [column_urn(*each) for level in _levels(self.node(name), self._sources, depth) for each in level]

    def downstream(self, name: str, *, depth: int | None = None) -> list[str]:
        """List what depends on a dataset or column, nearest first, with names sorted at each distance."""
        return [column_urn(*each) for level in _levels(self.node(name), self._targets, depth) for each in level]

    def impact(self, name: str) -> dict[str, str]:
        """Say what changes with a column: every column downstream, with DIRECT if values flow all the way.

        Returns:
            Column (or dataset) names, sorted; the value is ``DIRECT`` or ``INDIRECT``.
        """
        start = self.node(name)
        direct = {each for level in _levels(start, self._direct_targets, None) for each in level}
        reached = {each for level in _levels(start, self._targets, None) for each in level}
        return {column_urn(*each): "DIRECT" if each in direct else "INDIRECT" for each in sorted(reached)}

    def path(self, source: str, target: str) -> list[Edge]:
        """Find a shortest chain of edges from one dataset or column to another.

        It finds whatever `upstream` of the target lists, and whatever `downstream` of the source does.

        Returns:
            The edges in order of flow; empty when nothing connects the two.
        """
        start, goal = self.node(source), self.node(target)
        return _chain(goal, start, self._sources) or _chain(start, goal, self._targets)[::-1]

    def _sources(self, node: Node) -> Iterator[Step]:
        for edge in self.incoming(node):
            yield (edge.source, edge.source_column if node[1] else ""), edge

    def _targets(self, node: Node) -> Iterator[Step]:
        for edge in self.outgoing(node):
            for each in self._named_targets(edge, as_columns=bool(node[1])):
                yield each, edge

    def _direct_targets(self, node: Node) -> Iterator[Step]:
        """Follow values only: counting the rows of a dataset carries no column's values on."""
        for each, edge in self._targets(node):
            counts_rows = node[1] and not edge.source_column and edge.method in ("plan", "probe", "sql")
            if edge.kind == "DIRECT" and not counts_rows:
                yield each, edge

    def _named_targets(self, edge: Edge, *, as_columns: bool) -> list[Node]:
        """Spell out "every column of the target" so that a walk by column goes on from each."""
        if not as_columns:
            return [(edge.target, "")]
        if edge.target_column:
            return [(edge.target, edge.target_column)]
        dataset = self.dataset(edge.target)
        columns = {each.name for each in dataset.columns} if dataset else set()
        columns |= self.edge_columns(edge.target)
        return [(edge.target, each) for each in sorted(columns)] or [(edge.target, "")]


def _levels(start: Node, neighbours: Callable[[Node], Iterable[Step]], depth: int | None) -> Iterator[list[Node]]:
    seen, level, far = {start}, [start], 0
    while level and (depth is None or far < depth):
        found = {there for here in level for there, _ in neighbours(here)} - seen
        seen |= found
        level, far = sorted(found), far + 1
        if level:
            yield level


def _chain(start: Node, goal: Node, neighbours: Callable[[Node], Iterable[Step]]) -> list[Edge]:
    """Walk breadth first until `goal` is met; the edges lead from the goal back to the start."""
    came: dict[Node, Step | None] = {start: None}
    queue = deque([start])
    while queue and goal not in came:
        here = queue.popleft()
        for there, edge in neighbours(here):
            if there not in came:
                came[there] = (here, edge)
                queue.append(there)
    chain: list[Edge] = []
    step = came.get(goal)
    while step is not None:
        chain.append(step[1])
        step = came[step[0]]
    return chain
