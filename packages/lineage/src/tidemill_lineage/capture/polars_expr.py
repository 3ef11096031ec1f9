"""Read polars plan expressions: which columns they name, and in which role."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.errors import UnsupportedPlan

_ROLES: dict[str, tuple[tuple[str, str], ...]] = {
    "Alias": (("expr", "IDENTITY"),),
    "Agg": (("arguments", "AGGREGATION"),),
    "BinaryExpr": (("left", "TRANSFORMATION"), ("right", "TRANSFORMATION")),
    "Cast": (("expr", "TRANSFORMATION"),),
    "Explode": (("expr", "TRANSFORMATION"),),
    "Filter": (("input", "IDENTITY"), ("by", "FILTER")),
    "Function": (("input", "TRANSFORMATION"),),
    "Gather": (("expr", "TRANSFORMATION"), ("idx", "FILTER")),
    "Rolling": (("function", "AGGREGATION"), ("index_column", "WINDOW")),
    "Slice": (("input", "TRANSFORMATION"), ("offset", "FILTER"), ("length", "FILTER")),
    "Sort": (("expr", "TRANSFORMATION"),),
    "SortBy": (("expr", "TRANSFORMATION"), ("by", "SORT")),
    "Ternary": (("predicate", "CONDITIONAL"), ("truthy", "TRANSFORMATION"), ("falsy", "TRANSFORMATION")),
    "Window": (("function", "AGGREGATION"), ("partition_by", "WINDOW"), ("order_by", "WINDOW")),
}
"""Expression node -> its children, and what a column in each child does to the result."""


def influences(
    visitor: Any, node_id: int, child: Flow, literal: Callable[[Any], Influences] | None = None
) -> Influences:
    """Say what reaches the value of an expression, given the flow of the node below.

    Raises:
        UnsupportedPlan: An expression node is not known here.
    """
    node = visitor.view_expression(node_id)
    kind = type(node).__name__
    if kind == "Column":
        return child.columns[node.name]
    if kind == "Len":
        return {(urn, ""): frozenset({"AGGREGATION"}) for urn in child.inputs}
    if kind == "Literal":
        return literal(node.value) if literal is not None else {}
    return flow.combine(
        flow.act(_child(visitor, each, child, literal), role)
        for name, role in _roles(kind)
        for each in _ids(getattr(node, name))
    )


def references(visitor: Any, expressions: Iterable[Any]) -> list[str]:
    """Name the keys of a join; an expression that is not a plain column stands as an empty name."""
    names = []
    for each in expressions:
        node = visitor.view_expression(each.node)
        names.append(node.name if type(node).__name__ == "Column" else "")
    return names


class Fingerprints:
    """The shape of a plan below a node, as a value: equal for two plans that start with the same input."""

    def __init__(self, visitor: Any) -> None:
        self.visitor = visitor
        self.known: dict[int, Hashable] = {}

    def of_current(self) -> Hashable:
        """Fingerprint the visitor's current node and everything under it."""
        from tidemill_lineage.capture.polars_leaves import leaf_key

        here = self.visitor.get_node()
        if here not in self.known:
            node = self.visitor.view_current_node()
            key = leaf_key(node)
            self.known[here] = key if key is not None else self._inner(node, here)
        return self.known[here]

    def _inner(self, node: Any, here: int) -> Hashable:
        below = []
        for each in self.visitor.get_inputs():
            self.visitor.set_node(each)
            below.append(self.of_current())
        self.visitor.set_node(here)
        expressions = tuple((each.output_name, self._expression(each.node)) for each in self.visitor.get_exprs())
        plain = tuple(_plain(getattr(node, name)) for name in _OPTIONS.get(type(node).__name__, ()))
        return (type(node).__name__, plain, expressions, tuple(self.visitor.get_schema()), tuple(below))

    def _part(self, part: int | str) -> Hashable:
        return ("Column", part) if isinstance(part, str) else self._expression(part)

    def _expression(self, node_id: int) -> Hashable:
        node = self.visitor.view_expression(node_id)
        kind = type(node).__name__
        if kind == "Column":
            return ("Column", node.name)
        if kind == "Literal":
            return ("Literal", repr(node.value))
        if kind == "Len":
            return ("Len",)
        inner = tuple(self._part(each) for name, _ in _roles(kind) for each in _ids(getattr(node, name)))
        plain = tuple(_plain(getattr(node, name)) for name in _EXPRESSION_OPTIONS if hasattr(node, name))
        return (kind, plain, inner)


_OPTIONS = {
    "Distinct": ("options",), "Join": ("options",), "MapFunction": ("function",), "Slice": ("offset", "len"),
    "Sort": ("sort_options",), "MergeSorted": ("key",),
}  # fmt: skip
_EXPRESSION_OPTIONS = ("op", "name", "dtype", "function_data", "sort_options")


def _plain(value: Any) -> str:
    return repr(value)


def _roles(kind: str) -> tuple[tuple[str, str], ...]:
    if kind not in _ROLES:
        raise UnsupportedPlan(f"expression node {kind} is not known")
    return _ROLES[kind]


def _child(visitor: Any, part: int | str, child: Flow, literal: Callable[[Any], Influences] | None) -> Influences:
    return child.columns[part] if isinstance(part, str) else influences(visitor, part, child, literal)


def _ids(part: Any) -> list[int | str]:
    if part is None:
        return []
    return list(part) if isinstance(part, (list, tuple)) else [part]
