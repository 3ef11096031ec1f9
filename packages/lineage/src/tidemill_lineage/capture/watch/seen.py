"""What is known of one value inside a traced call: what reaches each of its columns, its rows and its index."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.model import DatasetUrn

NOTHING: Influences = {}
VALUE, SUM = "TRANSFORMATION", "AGGREGATION"


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame, a series (one column), an index, or a group of one of them.

    Attributes:
        names: Labels of the columns, in order; two may be equal.
        values: What reaches each of them.
        rows: What decides which rows there are, and their order.
        index: What reaches each level of the index, by its name.
        keys: What a group is grouped by; None for values that are no groups.
    """

    names: tuple[Hashable, ...]
    values: tuple[Influences, ...]
    rows: Influences = field(default_factory=dict)
    index: Mapping[Hashable, Influences] = field(default_factory=dict)
    keys: Mapping[Hashable, Influences] | None = None

    @classmethod
    def of(cls, columns: Mapping[Hashable, Influences], rows: Influences = NOTHING) -> Seen:
        """Start from columns that have different names."""
        return cls(tuple(columns), tuple(columns.values()), rows)

    @classmethod
    def base(cls, urn: DatasetUrn, names: Iterable[Hashable]) -> Seen:
        """Start at a dataset: each column is itself."""
        found = tuple(names)
        return cls(found, tuple({(urn, str(name)): frozenset({"IDENTITY"})} for name in found))

    def get(self, label: Hashable) -> Influences:
        """What reaches the column of a label; nothing if there is none."""
        found = [value for name, value in zip(self.names, self.values, strict=True) if name == label]
        return found[0] if len(found) == 1 else flow.combine(found)

    def find(self, label: Hashable) -> Influences | None:
        """What reaches a column or a level of the index; None if neither has the name."""
        if label in self.names:
            return self.get(label)
        return self.index.get(label)

    def all(self) -> Influences:
        """What reaches any column."""
        return self.values[0] if len(self.values) == 1 else flow.combine(self.values)

    def labels(self) -> Influences:
        """What reaches the index."""
        return flow.combine(self.index.values())

    def whole(self) -> Influences:
        """All that is in the value: columns, index, and what chose the rows."""
        return flow.combine([*self.values, *self.index.values(), self.rows])

    def acted(self, how: str) -> Seen:
        """Each column by itself, one step further."""
        return replace(self, values=tuple(flow.act(each, how) for each in self.values))

    def with_rows(self, *more: Influences) -> Seen:
        """The same, with more that decides the rows."""
        extra = [each for each in more if each]
        return replace(self, rows=flow.combine([self.rows, *extra])) if extra else self

    def picked(self, names: Sequence[Hashable], other: Callable[[Hashable], Influences] | None = None) -> Seen:
        """The columns of these labels, in this order; `other` says what reaches one that is not here."""
        known = dict(zip(self.names, self.values, strict=True))
        if len(known) != len(self.names):
            known = {name: self.get(name) for name in self.names}
        values = [known[name] if name in known else other(name) if other else self.all() for name in names]
        return replace(self, names=tuple(names), values=tuple(values))

    def renamed(self, names: Sequence[Hashable]) -> Seen:
        """The same columns under other labels, by position."""
        return replace(self, names=tuple(names))

    def to_flow(self, *more_rows: Influences) -> Flow:
        """As the flow of a plan; columns of one name become one."""
        columns = {str(name): self.get(name) for name in self.names}
        rows = flow.combine([self.rows, *more_rows])
        urns = {urn for each in (*columns.values(), rows) for urn, _ in each}
        return Flow(columns, rows, frozenset(urns))


def from_flow(found: Flow) -> Seen:
    """What a plan or a query gives."""
    return Seen(tuple(found.columns), tuple(found.columns.values()), found.rows)


def united(parts: Sequence[Seen], names: Sequence[Hashable]) -> Seen:
    """Frames under one another, by name."""
    levels = dict.fromkeys(level for each in parts for level in each.index)
    return Seen(
        tuple(names),
        tuple(flow.combine(each.get(name) for each in parts) for name in names),
        flow.combine(each.rows for each in parts),
        {level: flow.combine(each.index.get(level, NOTHING) for each in parts) for level in levels},
    )
