"""Walk a polars plan node by node and say what reaches each output column."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.polars_expr import Fingerprints, influences, references
from tidemill_lineage.capture.polars_leaves import chunk_keys, frame_key, leaf_key, scanned_urns
from tidemill_lineage.errors import UnsupportedPlan
from tidemill_lineage.model import DatasetUrn

if TYPE_CHECKING:
    import polars as pl

PLAN_VERSIONS = frozenset({15, 16})
"""Major versions of the polars plan interface that the walker was tested with: polars 2.0 and 2.1."""

Literal = Callable[[Any], Influences]

_KEEPING_MAPS = frozenset({"rechunk", "hint_sorted", "hint", "fast_count"})


def walk(
    result: pl.LazyFrame,
    inputs: Sequence[tuple[DatasetUrn, pl.LazyFrame]],
    made: Sequence[tuple[pl.LazyFrame, pl.DataFrame]] = (),
    literal: Literal | None = None,
) -> Flow:
    """Find the flow of a whole plan.

    Args:
        result: The plan.
        inputs: Where to stop, and what each is called.
        made: Frames that were collected on the way, each with its plan, which is followed in turn.
        literal: Says what reaches a literal of the plan; by itself nothing does.

    Raises:
        UnsupportedPlan: The plan's version, or a node in it, is not known here.
        NotImplementedError: Polars itself does not show a node or an expression.
    """
    roots = _Roots.of(inputs, made)
    roots.literal = literal
    return _Walk(visitor_of(result), roots, before=roots.count).at_root()


def visitor_of(frame: pl.LazyFrame) -> Any:
    """Open the plan as it was written, gated on the version of the interface."""
    import polars as pl

    visitor: Any = frame._ldf.with_optimizations(pl.QueryOptFlags.none()._pyoptflags).visit()  # noqa: SLF001  # gated below
    if visitor.version()[0] not in PLAN_VERSIONS:
        raise UnsupportedPlan(f"polars {pl.__version__} has plan version {visitor.version()}, not tested here")
    return visitor


class _Roots:
    """Where to stop: the inputs, by what their leaf reads or by the shape of their whole plan."""

    def __init__(self) -> None:
        self.leaves: dict[Hashable, list[DatasetUrn]] = {}
        self.shapes: dict[Hashable, list[DatasetUrn]] = {}
        self.urns: list[DatasetUrn] = []
        self.made: dict[Hashable, list[tuple[int, Any]]] = {}
        self.chunks: dict[Hashable, list[tuple[int, Any, str]]] = {}
        self.found: dict[int, Flow] = {}
        self.literal: Literal | None = None
        self.count = 0

    @classmethod
    def of(
        cls, inputs: Sequence[tuple[DatasetUrn, pl.LazyFrame]], made: Sequence[tuple[pl.LazyFrame, pl.DataFrame]]
    ) -> _Roots:
        roots = cls()
        for urn, frame in inputs:
            visitor = visitor_of(frame)
            node = visitor.view_current_node()
            key = leaf_key(node)
            roots.urns.append(urn)
            if key is not None:
                roots.leaves.setdefault(key, []).append(urn)
                if type(node).__name__ == "DataFrameScan":
                    roots._remember(node.df, urn, -1)
            else:
                roots.shapes.setdefault(Fingerprints(visitor).of_current(), []).append(urn)
        for number, (plan, collected) in enumerate(made):
            if _is_frame(collected):
                roots.made.setdefault(frame_key(collected), []).append((number, plan))
                roots._remember(collected._df, plan, number)  # noqa: SLF001  # what a leaf holds
        roots.count = len(made)
        return roots

    def collected(self, key: Hashable, before: int) -> list[tuple[int, Any]]:
        """The plans that gave a frame, of those collected before: one that keeps all rows gives its own input again."""
        return [each for each in self.made.get(key, ()) if each[0] < before]

    def unknown(self, node: Any, names: list[str], before: int) -> Flow:
        """A frame that is none of the inputs: columns that share memory with known ones, and else all inputs."""
        everything = {(urn, ""): frozenset({"TRANSFORMATION?"}) for urn in self.urns}
        shared = chunk_keys(node.df) if type(node).__name__ == "DataFrameScan" else {}
        columns = {name: self._shared(shared.get(name, []), before) or everything for name in names}
        return Flow(columns, {}, frozenset(self.urns))

    def flow_of(self, number: int, plan: Any) -> Flow:
        """The flow of a plan that was collected on the way; only what was collected before it can be in it."""
        if number not in self.found:
            self.found[number] = _Walk(visitor_of(plan), self, before=number).at_root()
        return self.found[number]

    def _remember(self, frame: Any, source: Any, number: int) -> None:
        for name, keys in chunk_keys(frame).items():
            for key in keys:
                self.chunks.setdefault(key, []).append((number, source, name))

    def _shared(self, keys: list[Hashable], before: int) -> Influences:
        """What reaches a column all of whose chunks are known; nothing if one is not."""
        if not keys or not all(key in self.chunks for key in keys):
            return {}
        return flow.combine(self._origin(*each) for key in keys for each in self.chunks[key] if each[0] < before)

    def _origin(self, number: int, source: Any, name: str) -> Influences:
        if isinstance(source, str):
            return {(source, name): frozenset({"IDENTITY"})}
        known = self.flow_of(number, source)
        return flow.combine([known.columns.get(name, {}), known.rows])


class _Walk:
    """One pass over one plan; flows are kept by node, as plans are graphs."""

    def __init__(self, visitor: Any, roots: _Roots, *, before: int) -> None:
        self.visitor, self.roots, self.before = visitor, roots, before
        self.fingerprints = Fingerprints(visitor) if roots.shapes else None
        self.flows: dict[int, Flow] = {}

    def at_root(self) -> Flow:
        return self._current()

    def at(self, node_id: int) -> Flow:
        if node_id not in self.flows:
            here = self.visitor.get_node()
            self.visitor.set_node(node_id)
            try:
                self.flows[node_id] = self._current()
            finally:
                self.visitor.set_node(here)
        return self.flows[node_id]

    def schema_at(self, node_id: int) -> list[str]:
        here = self.visitor.get_node()
        self.visitor.set_node(node_id)
        try:
            return list(self.visitor.get_schema())
        finally:
            self.visitor.set_node(here)

    def _current(self) -> Flow:
        node = self.visitor.view_current_node()
        names = list(self.visitor.get_schema())
        key = leaf_key(node)
        urns = self.roots.leaves.get(key, []) if key is not None else []
        if self.fingerprints is not None and not urns:
            urns = self.roots.shapes.get(self.fingerprints.of_current(), [])
        made = self.roots.collected(key, self.before) if key is not None else []
        if made:
            # an input that a collected plan gave back unchanged went through that plan, as far as can be known
            found = [flow.base(urn, names) for urn in urns] + [self.roots.flow_of(*each) for each in made]
            return _union(found, names)
        if not urns and key is not None:
            urns = list(scanned_urns(node))
            if not urns:
                return self.roots.unknown(node, names, self.before)
        if urns:
            return _union([flow.base(urn, names) for urn in urns], names)
        handler = _HANDLERS.get(type(node).__name__)
        if handler is None:
            raise UnsupportedPlan(f"plan node {type(node).__name__} is not known")
        return handler(self, node, names)

    def named(self, expressions: Iterable[Any], child: Flow) -> dict[str, Influences]:
        return {
            each.output_name: influences(self.visitor, each.node, child, self.roots.literal) for each in expressions
        }

    def deciding(self, expressions: Iterable[Any], child: Flow, subtype: str) -> Influences:
        """What the columns named in `expressions` do to the rows."""
        return flow.combine(
            flow.act(influences(self.visitor, each.node, child, self.roots.literal), subtype) for each in expressions
        )


def _is_frame(value: Any) -> bool:
    import polars as pl

    return isinstance(value, pl.DataFrame)


def _union(flows: list[Flow], names: list[str]) -> Flow:
    return Flow(
        {name: flow.combine(each.columns.get(name, {}) for each in flows) for name in names},
        flow.combine(each.rows for each in flows),
        frozenset().union(*(each.inputs for each in flows)),
    )


def _with_rows(child: Flow, *more: Influences, columns: Mapping[str, Influences] | None = None) -> Flow:
    return Flow(child.columns if columns is None else columns, flow.combine([child.rows, *more]), child.inputs)


def _everything(child: Flow) -> Influences:
    """All columns of a node, for the few operations that do not say which they use."""
    return flow.act(flow.combine(child.columns.values()), "TRANSFORMATION")


def _filter(walk: _Walk, node: Any, _: list[str]) -> Flow:
    child = walk.at(node.input)
    return _with_rows(child, walk.deciding([node.predicate], child, "FILTER"))


def _select(walk: _Walk, node: Any, _: list[str]) -> Flow:
    child = walk.at(node.input)
    return _with_rows(child, columns=walk.named(node.expr, child))


def _hstack(walk: _Walk, node: Any, _: list[str]) -> Flow:
    child = walk.at(node.input)
    return _with_rows(child, columns={**child.columns, **walk.named(node.exprs, child)})


def _keep(walk: _Walk, node: Any, names: list[str]) -> Flow:
    child = walk.at(node.input)
    return _with_rows(child, columns={name: child.columns[name] for name in names})


def _sort(walk: _Walk, node: Any, _: list[str]) -> Flow:
    child = walk.at(node.input)
    return _with_rows(child, walk.deciding(node.by_column, child, "SORT"))


def _distinct(walk: _Walk, node: Any, names: list[str]) -> Flow:
    child = walk.at(node.input)
    subset = node.options[1] or names
    return _with_rows(child, flow.act(flow.combine(child.columns[each] for each in subset), "GROUP_BY"))


def _group_by(walk: _Walk, node: Any, names: list[str]) -> Flow:
    child = walk.at(node.input)
    columns = {**walk.named(node.keys, child), **walk.named(node.aggs, child)}
    rows = [walk.deciding(node.keys, child, "GROUP_BY")]
    index = next((each.index_column for each in (node.options.dynamic, node.options.rolling) if each), None)
    if index is not None:
        moved = flow.act(child.columns[index], "TRANSFORMATION")
        columns = dict.fromkeys([index, "_lower_boundary", "_upper_boundary"], moved) | columns
        rows.append(flow.act(moved, "GROUP_BY"))
    missing = _everything(child) if any(name not in columns for name in names) else {}
    return _with_rows(child, *rows, columns={name: columns.get(name, missing) for name in names})


def _join(walk: _Walk, node: Any, names: list[str]) -> Flow:
    left, right = walk.at(node.input_left), walk.at(node.input_right)
    how, _, _, suffix, coalesce, *_ = node.options
    how, by_left, by_right = _join_kind(how)
    left_on = [*references(walk.visitor, node.left_on), *by_left]
    right_on = [*references(walk.visitor, node.right_on), *by_right]
    keys = (left_on, right_on) if coalesce else ([], [])
    if how == "AsOf":  # the `by` columns merge always, the time only under one name
        same = [each for each in left_on if each in right_on and each not in by_left] if coalesce else []
        keys = ([*same, *by_left], [*same, *by_right])
    columns = _joined(left, right, how=how, suffix=suffix, keys=keys)
    rows = [
        left.rows,
        right.rows,
        walk.deciding(node.left_on, left, "JOIN"),
        walk.deciding(node.right_on, right, "JOIN"),
        *(flow.act(left.columns[each], "JOIN") for each in by_left),
        *(flow.act(right.columns[each], "JOIN") for each in by_right),
    ]
    if not left_on:  # each row of one meets each row of the other
        rows.append({(urn, ""): frozenset({"JOIN"}) for urn in left.inputs | right.inputs})
    both = Flow(columns, flow.combine(rows), left.inputs | right.inputs)
    if getattr(node, "predicate", None) is not None:  # polars 2.1 and later
        both = _with_rows(both, walk.deciding([node.predicate], both, "JOIN"))
    if any(name not in columns for name in names):
        raise UnsupportedPlan(f"a {how} join has columns of unknown origin: {sorted(set(names) - set(columns))}")
    return Flow({name: columns[name] for name in names}, both.rows, both.inputs)


def _join_kind(how: Any) -> tuple[str, list[str], list[str]]:
    """Read the kind of a join and the `by` columns of an as-of join."""
    if isinstance(how, tuple):
        by = [list(each or []) for each in how if each is None or isinstance(each, list)]
        lists = [each for each in by if each]
        return str(how[0]), lists[0] if lists else [], lists[1] if len(lists) > 1 else []
    return str(how), [], []


def _joined(
    left: Flow, right: Flow, *, how: str, suffix: str, keys: tuple[list[str], list[str]]
) -> dict[str, Influences]:
    """Name the columns of a join: the right side's get the suffix where the left has the name too."""
    left_on, right_on = keys
    if how in ("Semi", "Anti"):
        return dict(left.columns)
    dropped_left = set(left_on) if how == "Right" else set()
    dropped_right = set() if how == "Right" else set(right_on)
    columns = {name: each for name, each in left.columns.items() if name not in dropped_left}
    if how == "Full":
        for mine, theirs in zip(left_on, right_on, strict=True):
            columns[mine] = flow.act(flow.combine([left.columns[mine], right.columns[theirs]]), "TRANSFORMATION")
    kept = set(columns)
    for name, each in right.columns.items():
        if name not in dropped_right:
            columns[name + suffix if name in kept else name] = each
    return columns


def _union_all(walk: _Walk, node: Any, names: list[str]) -> Flow:
    return _union([walk.at(each) for each in node.inputs], names)


def _hconcat(walk: _Walk, node: Any, names: list[str]) -> Flow:
    flows = [walk.at(each) for each in node.inputs]
    columns = {name: each for one in flows for name, each in one.columns.items()}
    return Flow({name: columns[name] for name in names}, *_rest(flows))


def _rest(flows: list[Flow]) -> tuple[Influences, frozenset[DatasetUrn]]:
    joined = _union(flows, [])
    return joined.rows, joined.inputs


def _merge_sorted(walk: _Walk, node: Any, names: list[str]) -> Flow:
    both = _union([walk.at(node.input_left), walk.at(node.input_right)], names)
    keys = [node.key] if isinstance(node.key, str) else list(node.key)
    return _with_rows(both, flow.act(flow.combine(both.columns[key] for key in keys), "SORT"))


def _map(walk: _Walk, node: Any, names: list[str]) -> Flow:
    child = walk.at(node.input)
    kind, *options = node.function
    if kind == "explode":
        exploded = {name: flow.act(child.columns[name], "TRANSFORMATION") for name in options[0]}
        lengths = flow.act(flow.combine(exploded.values()), "FILTER")
        return _with_rows(child, lengths, columns={**child.columns, **exploded})
    if kind == "unpivot":
        index, on, variable, value = options
        on = on or [name for name in child.columns if name not in index]
        melted = flow.act(flow.combine(child.columns[name] for name in on), "TRANSFORMATION")
        columns = {**{name: child.columns[name] for name in index}, variable: {}, value: melted}
        return _with_rows(child, columns={name: columns[name] for name in names})
    if kind == "row_index":
        return _with_rows(child, columns={name: child.columns.get(name, {}) for name in names})
    if kind == "unnest":
        fields = flow.act(flow.combine(child.columns[name] for name in options[0]), "TRANSFORMATION")
        return _with_rows(child, columns={name: child.columns.get(name, fields) for name in names})
    if kind in _KEEPING_MAPS and list(child.columns) == names:
        return child
    raise UnsupportedPlan(f"the mapping {kind!r} is not known")


def _pass(walk: _Walk, node: Any, _: list[str]) -> Flow:
    return walk.at(node.input)


_HANDLERS: dict[str, Callable[[_Walk, Any, list[str]], Flow]] = {
    "Cache": _pass,
    "Distinct": _distinct,
    "Filter": _filter,
    "GroupBy": _group_by,
    "HConcat": _hconcat,
    "HStack": _hstack,
    "Join": _join,
    "MapFunction": _map,
    "MergeSorted": _merge_sorted,
    "Select": _select,
    "SimpleProjection": _keep,
    "Slice": _pass,
    "Sort": _sort,
    "Union": _union_all,
}
