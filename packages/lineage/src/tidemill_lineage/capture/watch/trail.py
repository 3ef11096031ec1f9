"""Follow the values of one traced call: what each holds, and what left the frames for plain Python.

A `Trail` knows the frames it was given and what watched operations made of them. What leaves a frame (a scalar,
a list, an array) is remembered too: a value that nothing explains, and that is no literal of the calling code, may
be made of anything that left before; and what left may have decided which way the function went.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.values import VALUES, columns_of_table, frames_in, kind_of, series_name
from tidemill_lineage.capture.watch.seen import NOTHING, Seen
from tidemill_lineage.model import DatasetUrn

_MOST_HELD = 1_000
"""Plain values that are told apart; later ones are told by what left before them."""
_MOST_PARTS = 256
_DEEP = 4
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_SYMBOL = "value://"


@dataclass(slots=True)
class Trail:
    """What is known inside one call.

    Attributes:
        inputs: The datasets the call was given.
        codes: Code of the traced function and of those written inside it; their literals are no more than that.
        reads: Files and tables it read by itself, and their columns.
        writes: Those it wrote, and what went into them: polars frames, or columns with what reaches them.
        made: Polars plans that were collected, and what each gave.
        frames: Polars frames whose plan explains a value here, by the name that stands for them.
        explained: Polars frames that a value here explains, by that name.
        faults: Errors of the rules; each value they should have explained is assumed.
        need: Called with a library that comes in, so that its operations are watched from then on.
        explain_relation: Reads what a DuckDB relation is made of.
    """

    inputs: tuple[tuple[DatasetUrn, Any], ...] = ()
    codes: tuple[Any, ...] = ()
    reads: dict[DatasetUrn, tuple[str, ...]] = field(default_factory=dict)
    writes: dict[DatasetUrn, list[Any]] = field(default_factory=dict)
    made: list[tuple[Any, Any]] = field(default_factory=list)
    frames: dict[DatasetUrn, Any] = field(default_factory=dict)
    explained: dict[DatasetUrn, tuple[Any, Seen]] = field(default_factory=dict)
    faults: list[Exception] = field(default_factory=list)
    need: Callable[[str], None] | None = None
    explain_relation: Callable[[Trail, Any], Seen] | None = None
    tables: dict[str, Seen] = field(default_factory=dict)
    """Names that SQL has for tables in this call, folded, and what they hold."""
    _known: dict[int, tuple[Any, Seen]] = field(default_factory=dict)
    _held: dict[int, tuple[Any, Influences]] = field(default_factory=dict)
    _left: dict[int, Influences] = field(default_factory=dict)
    """What left the frames, by a number; those that were seen again as an argument are taken out of `_deciding`."""
    _deciding: dict[int, Influences] = field(default_factory=dict)
    _by_frame: dict[int, tuple[Any, DatasetUrn]] = field(default_factory=dict)
    _memory: dict[Hashable, tuple[Influences, Influences]] = field(default_factory=dict)
    """Arrow memory -> what reaches it, and what chose its rows."""
    _pinned: list[Any] = field(default_factory=list)
    """Arrow values whose memory is known: held, so that it is not given to others."""
    _is_blind: bool = False
    """Whether values may leave unseen: pyarrow's tables take no doors."""
    _is_begun: bool = False

    def come_in(self, library: str) -> None:
        """Watch a library from now on."""
        if self.need is not None:
            self.need(library)

    def note(self, value: Any, seen: Seen) -> None:
        """Remember what a value holds; one that cannot be referred to weakly leaves the frames here."""
        try:
            self._known[id(value)] = (weakref.ref(value), seen)
        except TypeError:
            self.leave(value, seen.whole())

    def see(self, value: Any) -> Seen | None:
        """What a value holds, as its columns are now; None for values that hold none, or are not known."""
        found = self._find(value)
        if found is None:
            return self._by_memory(value) if is_arrow(value) else None
        names = names_of(value)
        if names is None or names == found.names:
            return found
        if len(names) == len(found.names):
            return found.renamed(names)
        # changed behind our back: any column may be made of all
        return found.picked(names, lambda _: flow.act(found.all(), "TRANSFORMATION?"))

    def table(self, value: Any) -> Seen:
        """What a frame or a series holds; one that nothing explains stands for what left before, or all inputs."""
        return self.see(value) or self._unknown(value)

    def remember(self, value: Any, seen: Seen) -> None:
        """Remember the memory of an Arrow value, so that its columns are known in other tables."""
        if not is_arrow(value):
            return
        self._is_blind = True
        if len(self._pinned) >= _MOST_HELD:
            return
        self._pinned.append(value)
        for keys, influences in zip(memory_of(value), seen.values, strict=False):
            for key in keys or ():
                self._memory[key] = (influences, seen.rows)

    def leave(self, value: Any, influences: Influences, *, decides: bool = True) -> None:
        """Remember that influences left the frames as this plain value."""
        if not influences:
            return
        number = id(value)
        old = self._left.get(number)
        self._left[number] = influences if old is None or old == influences else flow.combine([old, influences])
        if not decides:
            return
        self._deciding[number] = influences
        if len(self._held) < _MOST_HELD:
            # held by itself, so that no other value gets its number
            self._held[number] = (value, influences)

    def left(self) -> Influences:
        """All that left the frames so far, assumed."""
        if self._is_blind:
            return flow.combine([self.everything(), flow.act(flow.combine(self._left.values()), "TRANSFORMATION?")])
        return flow.act(flow.combine(self._left.values()), "TRANSFORMATION?") if self._left else NOTHING

    def deciding(self) -> Influences:
        """What left, and may have decided which way the function went."""
        return flow.act(flow.combine(self._deciding.values()), "CONDITIONAL?") if self._deciding else NOTHING

    def influence(self, value: Any, *, known: Iterable[Hashable] = (), code: Any = None, deep: int = 0) -> Influences:
        """What reaches an argument: a frame's columns, a plain value that left one, or anything that left.

        Args:
            value: The argument.
            known: Labels of the operand; a text among them is one.
            code: The calling code, whose literals are nothing but literals.
            deep: How deep in lists this is.
        """
        held = self._held.get(id(value))
        if held is not None and held[0] is value:
            self._deciding.pop(id(value), None)
            return held[1]
        if isinstance(value, _PLAIN):
            return NOTHING if not self._may_hold() or is_literal(value, known, code) else self.left()
        seen = self.see(value)
        if seen is not None:
            return flow.combine([seen.all(), seen.rows]) if seen.rows else seen.all()
        return self._of_other(value, known, code, deep)

    def _of_other(self, value: Any, known: Iterable[Hashable], code: Any, deep: int) -> Influences:
        """What reaches an argument that is neither plain nor known: a box of others, a table, an object."""
        if isinstance(value, (list, tuple, set, frozenset, dict)) and deep < _DEEP:
            return self._inside(value, known, code, deep)
        if isinstance(value, slice):
            return self._inside([value.start, value.stop, value.step], known, code, deep)
        if is_tabular(value):
            return self._unknown(value).all()
        if isinstance(value, type) or not self._may_hold() or type(value).__name__.endswith("Options"):
            return NOTHING
        return self.left()

    def of_literal(self, value: Any) -> Influences:
        """What reaches a literal of a polars plan, which is no longer the object the function had."""
        if not self._may_hold() or (
            isinstance(value, _PLAIN) and any(is_literal(value, (), code) for code in self.codes)
        ):
            return NOTHING
        return self.left()

    def wrote(self, urn: DatasetUrn, value: Any) -> None:
        """Remember what went into a file or a table, as it is now."""
        kind = kind_of(value)
        if kind == "eager":
            value = value.clone()
        elif kind != "lazy":
            columns = tuple(columns_of_table(value))
            value = (columns, self.flow_of(value, [name for name, _ in columns]))
        self.writes.setdefault(urn, []).append(value)

    def stand_in(self, frame: Any) -> DatasetUrn:
        """The name that stands for a polars frame, whose plan is read later."""
        known = self._by_frame.get(id(frame))
        # the number may have been given to another frame meanwhile
        found = known[1] if known is not None and known[0]() is frame else None
        if found is None:
            found = f"{_SYMBOL}{len(self.frames) + len(self.explained)}"
            # as it is now: it may be changed in place, and its rows are shared
            self.frames[found] = frame.clone() if kind_of(frame) == "eager" else frame
            self._by_frame[id(frame)] = (weakref.ref(frame), found)
        return found

    def given(self) -> dict[DatasetUrn, Any]:
        """Polars frames that stand for something: to be read in the order of their numbers."""
        return {**self.frames, **{urn: frame for urn, (frame, _) in self.explained.items()}}

    def explain(self, frame: Any, seen: Seen) -> None:
        """Say what a polars frame was made of that did not come out of a plan."""
        found = f"{_SYMBOL}{len(self.frames) + len(self.explained)}"
        self.explained[found] = (frame.clone() if kind_of(frame) == "eager" else frame, seen)
        self._by_frame[id(frame)] = (weakref.ref(frame), found)

    def flow_of(self, value: Any, names: Sequence[str]) -> Flow:
        """The flow of a result that is no polars frame, with what may have decided the way to it.

        Args:
            value: The result.
            names: Its columns, levels of its index included.
        """
        seen = self.table(value)
        found = seen.to_flow(self.deciding())
        levels = {str(level): each for level, each in seen.index.items()}
        columns = {name: found.columns.get(name, levels.get(name)) for name in names}
        if len(names) == 1 and len(seen.names) == 1:
            columns = {names[0]: seen.all()}
        filled = {name: seen.all() if each is None else each for name, each in columns.items()}
        urns = {urn for each in (*filled.values(), found.rows) for urn, _ in each}
        return Flow(filled, found.rows, frozenset(urns))

    def has_something(self) -> bool:
        """Whether anything was seen that a plan alone does not tell."""
        return bool(self._known or self._left or self.frames or self.explained)

    def _find(self, value: Any) -> Seen | None:
        self._begin()
        known = self._known.get(id(value))
        if known is None:
            return None
        return known[1] if known[0]() is value else None

    def _may_hold(self) -> bool:
        return bool(self._left) or self._is_blind

    def _by_memory(self, value: Any) -> Seen | None:
        """What an Arrow value holds by its memory; a column any part of which is not known may hold anything."""
        self._begin()
        names = names_of(value) or ("",)
        values: list[Influences] = []
        rows: list[Influences] = []
        is_known = False
        for keys in memory_of(value):
            found = [self._memory[key] for key in keys if key in self._memory] if keys else []
            if keys and len(found) == len(keys):
                values.append(flow.combine(each for each, _ in found))
                rows += [each for _, each in found]
                is_known = True
            else:
                values.append(self.left() or self.everything())
        if not is_known or len(values) != len(names):
            return None
        return Seen(names, tuple(values), flow.combine(rows))

    def _begin(self) -> None:
        """Learn the inputs when the first value is asked for: most polars functions never ask."""
        if self._is_begun:
            return
        self._is_begun = True
        for urn, value in self.inputs:
            for _, each in frames_in(value):
                if kind_of(each) != "table":
                    continue
                # one frame may stand for two datasets
                old = self._known.get(id(each))
                seen = _input(urn, each)
                if old is not None and old[0]() is each:
                    values = zip(old[1].values, seen.values, strict=True)
                    seen = replace(seen, values=tuple(flow.combine(pair) for pair in values))
                self.note(each, seen)
                if is_arrow(each):
                    self.remember(each, seen)

    def _unknown(self, value: Any) -> Seen:
        names = names_of(value) or ("",)
        urn = VALUES.urn_of(value)
        if urn is not None:
            return _input(urn, value)
        if kind_of(value) in ("eager", "lazy"):
            # its plan says later what it is made of
            return Seen.base(self.stand_in(value), names)
        if type(value).__name__ == "DuckDBPyRelation" and self.explain_relation is not None:
            try:
                return self.explain_relation(self, value)
            except Exception as error:  # noqa: BLE001  # SQL that is not known here
                self.faults.append(error)
        everything = self.left() or self.everything()
        return Seen(names, tuple(everything for _ in names))

    def everything(self) -> Influences:
        """All inputs, as wholes: what stands for a value that nothing explains."""
        return {(urn, ""): frozenset({"TRANSFORMATION?"}) for urn in (*(urn for urn, _ in self.inputs), *self.reads)}

    def _inside(self, value: Any, known: Iterable[Hashable], code: Any, deep: int) -> Influences:
        parts: Sequence[Any] = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
        if len(parts) > _MOST_PARTS:
            # too many to look at each; their kind says enough
            first = [self.influence(each, known=known, code=code, deep=deep + 1) for each in parts[:_MOST_PARTS]]
            return flow.combine([*first, self.left()])
        return flow.combine(self.influence(each, known=known, code=code, deep=deep + 1) for each in parts)


def is_literal(value: Any, known: Iterable[Hashable], code: Any) -> bool:
    """Whether a plain value is written in the calling code, or is a label that is known."""
    if value is None or value is Ellipsis or isinstance(value, bool):
        return True
    if isinstance(value, str) and value in known:
        return True
    return code is not None and _is_constant(value, code.co_consts)


def _is_constant(value: Any, constants: tuple[Any, ...]) -> bool:
    is_number = type(value) in (int, float)
    for each in constants:
        if type(each) in (tuple, frozenset):
            if _is_constant(value, tuple(each)):
                return True
        elif type(each) is type(value) and (each == value or (is_number and -each == value)):
            # a minus sign is an operation on the literal
            return True
    return False


def is_tabular(value: Any) -> bool:
    """Whether a value is a table, a column or an array of a library that is watched."""
    kind = type(value)
    module = kind.__module__.partition(".")[0]
    if module not in ("pandas", "pyarrow", "numpy", "polars", "_duckdb", "duckdb"):
        return False
    return kind.__name__ in _TABULAR or any(base.__name__ in _TABULAR for base in kind.__mro__)


_TABULAR = frozenset({
    "DataFrame", "Series", "Index", "ndarray", "ExtensionArray", "Table", "RecordBatch", "ChunkedArray", "Array",
    "DuckDBPyRelation", "LazyFrame",
})  # fmt: skip


def is_arrow(value: Any) -> bool:
    """Whether a value is Arrow memory: a table, a batch or an array of pyarrow."""
    kind = type(value)
    return kind.__module__.startswith("pyarrow") and hasattr(kind, "nbytes")


def memory_of(value: Any) -> list[list[Hashable] | None]:
    """The memory of each column, chunk by chunk; None for one that cannot be told by it."""
    columns = value.columns if hasattr(value, "columns") else [value]
    return [_chunks(each) for each in columns]


def _chunks(column: Any) -> list[Hashable] | None:
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    found: list[Hashable] = []
    for each in chunks:
        if not len(each):
            continue
        addresses = tuple(part.address if part is not None else 0 for part in each.buffers()[1:])
        if not any(addresses):
            return None
        found.append((str(each.type), addresses))
    return found or None


def names_of(value: Any) -> tuple[Hashable, ...] | None:
    """Labels of the columns of a value as they are now; None if it has no columns of its own."""
    kind = type(value).__name__
    if kind == "Series":
        return (value.name,)
    if kind in ("Table", "RecordBatch"):
        return tuple(value.schema.names)
    if kind == "LazyFrame":
        return tuple(value.collect_schema().names())
    columns = getattr(value, "columns", None) if kind in ("DataFrame", "DuckDBPyRelation") else None
    return tuple(columns) if columns is not None else None


def caller() -> Any:
    """The code of the function of the user's that called a watched operation."""
    frame = sys._getframe(1)  # noqa: SLF001  # its literals are no data
    while frame is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame = frame.f_back  # type: ignore[assignment]  # it ends at None
    return frame.f_code if frame is not None else None


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("tidemill_lineage", "pandas", "numpy", "polars", "pyarrow", "duckdb")


def _input(urn: DatasetUrn, value: Any) -> Seen:
    """A table that holds a dataset; levels of a pandas index that have names are columns of it, too."""
    names = names_of(value)
    if type(value).__name__ == "Series":
        names = (series_name(value),)
    elif names is None:
        names = tuple(name for name, _ in columns_of_table(value))
    found = Seen.base(urn, names)
    levels = [each for each in getattr(getattr(value, "index", None), "names", None) or () if each is not None]
    return replace(found, index={each: {(urn, str(each)): frozenset({"IDENTITY"})} for each in levels})
