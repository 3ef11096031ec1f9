"""One observed call of a traced function, and how it becomes a run with edges."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill_core.telemetry.redact import redact

from tidemill_lineage.capture import flow, hooks
from tidemill_lineage.capture.flow import Flow
from tidemill_lineage.capture.polars import capture, whole
from tidemill_lineage.capture.reading import Readings
from tidemill_lineage.capture.values import VALUES, are_plain, columns_of_table, frames_in, kind_of
from tidemill_lineage.capture.watch.files import READERS_AND_WRITERS
from tidemill_lineage.capture.watch.trail import Trail
from tidemill_lineage.delivery.folding import united
from tidemill_lineage.graph import columns_of
from tidemill_lineage.model import Column, Dataset, DatasetUrn, Edge, Run

Inputs = tuple[tuple[DatasetUrn, Any], ...]
"""What datasets are called, and the frames that hold them."""
_TOLD_CHARS = 1_000
_KEPT_FRAMES = 8
"""Frames of a generator that are looked at; the rest are taken to be alike."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spec:
    """What is known of a traced function before it is called; equal only to itself, so a quick key."""

    job: str
    output: DatasetUrn
    inputs: tuple[tuple[str, int, DatasetUrn], ...]
    """Parameter, its position (-1 for keyword-only), and the URN of what it holds."""
    lazy: frozenset[str] = frozenset()
    """Parameters that must be LazyFrames."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Default values of declared parameters."""
    undeclared_defaults: tuple[Any, ...] = ()
    """Default values of the others, where they are frames or hold some."""
    is_declared: bool = True
    """Whether the output was declared, rather than named after the function."""
    codes: tuple[Any, ...] = ()
    """Code of the function and of those written inside it."""
    may_read: bool = False
    """Whether the code names something that reads or writes data by itself."""
    plain_inputs: Inputs = ()
    """The inputs of a call without frames: the same each time."""

    @property
    def has_defaults(self) -> bool:
        """Whether a parameter that is not given may be a frame."""
        return bool(self.defaults or self.undeclared_defaults)

    @property
    def plain_results(self) -> Inputs:
        """The result of a call without frames."""
        return ((self.output, None),)

    def output_of(self, key: str) -> DatasetUrn:
        """Name one frame of a result: those in a tuple or dict by their key, unless one output was declared."""
        return self.output if self.is_declared or not key else f"{self.output}/{key}"

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        inputs: Mapping[str, DatasetUrn],
        output: DatasetUrn | None,
        job: str | None,
    ) -> Spec:
        """Read a function's signature.

        Raises:
            TypeError: `inputs` names a parameter that the function does not have.
        """
        named = function if hasattr(function, "__qualname__") else type(function)
        name = job or f"{named.__module__}.{named.__qualname__}"
        try:
            parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
        except ValueError:
            # some functions written in C show none
            parameters = {}
        defaults = {each: p.default for each, p in parameters.items() if p.default is not p.empty}
        unknown = sorted(set(inputs) - set(parameters))
        if unknown:
            raise TypeError(f"{name} has no parameter {unknown[0]!r}; it has: {', '.join(parameters)}")
        positions = {each: -1 if p.kind is p.KEYWORD_ONLY else i for i, (each, p) in enumerate(parameters.items())}
        codes = tuple(_codes(getattr(inspect.unwrap(function), "__code__", None)))
        return cls(
            job=name,
            output=output or f"python://{name}",
            inputs=tuple((each, positions[each], urn) for each, urn in inputs.items()),
            lazy=frozenset(each for each in inputs if "LazyFrame" in str(parameters[each].annotation)),
            defaults={each: v for each, v in defaults.items() if each in inputs and kind_of(v) != "other"},
            undeclared_defaults=tuple(
                value for each, value in defaults.items() if each not in inputs and kind_of(value) != "other"
            ),
            is_declared=output is not None,
            codes=codes,
            may_read=any(not READERS_AND_WRITERS.isdisjoint(code.co_names) for code in codes),
            plain_inputs=tuple((urn, None) for urn in inputs.values()),
        )

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn DataFrames into LazyFrames where the function asks for those."""
        if not self.lazy:
            return args, kwargs
        for name, position, _ in self.inputs:
            if name in self.lazy:
                if name in kwargs:
                    if is_eager(kwargs[name]):
                        kwargs = {**kwargs, name: kwargs[name].lazy()}
                elif 0 <= position < len(args) and is_eager(args[position]):
                    args = (*args[:position], args[position].lazy(), *args[position + 1 :])
        return args, kwargs

    def inputs_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
        """Pick the values of the declared parameters, and every other frame that a traced step returned."""
        if are_plain(args) and not self.has_defaults and (not kwargs or are_plain(kwargs.values())):
            return self.plain_inputs
        given = len(args)
        found: list[tuple[DatasetUrn, Any]] = []
        for name, at, urn in self.inputs:
            value = kwargs[name] if name in kwargs else args[at] if 0 <= at < given else self.defaults.get(name)
            if kind_of(value) == "box":
                found += [(urn, each) for _, each in frames_in(value)] or [(urn, None)]
            else:
                found.append((urn, value))
        for value in (*args, *kwargs.values(), *self.undeclared_defaults):
            if kind_of(value) != "other":
                found += _linked(value, found)
        return tuple(found)


def _codes(code: Any) -> Iterator[Any]:
    if code is not None:
        yield code
        for each in code.co_consts:
            if inspect.iscode(each):
                yield from _codes(each)


def libraries_of(inputs: Inputs) -> tuple[str, ...] | None:
    """The libraries other than polars whose tables a call was given; None for a call without frames."""
    found, is_any = [], False
    for _, each in inputs:
        kind = kind_of(each)
        if kind == "table":
            found.append(type(each).__module__.partition(".")[0].lstrip("_"))
        is_any = is_any or kind in ("lazy", "eager", "table")
    return tuple(dict.fromkeys(found)) if is_any else None


def _linked(value: Any, known: Sequence[tuple[DatasetUrn, Any]]) -> Inputs:
    """Find frames that traced steps returned, and that are not declared inputs."""
    frames = [each for _, each in frames_in(value) if not any(each is other for _, other in known)]
    return tuple([(urn, each) for each in frames if (urn := VALUES.urn_of(each)) is not None])


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, as the hot path saw it."""

    spec: Spec
    run_id: str
    inputs: Inputs
    started_at: float
    results: Inputs = ()
    error: str | None = None
    error_type: str = ""
    ended_at: float = 0.0
    has_frames: bool = False
    trail: Trail | None = None
    """What was done on the way."""
    token: hooks.Token | None = None

    def watch(self) -> None:
        """Note what is done to frames from now on, in this thread or task, if the call may do anything to one."""
        libraries = libraries_of(self.inputs) if self.inputs is not self.spec.plain_inputs else None
        if libraries is None and not self.spec.may_read:
            return
        self.trail = Trail(self.inputs, self.spec.codes)
        self.token = hooks.start(self.trail, libraries or ())

    def unwatch(self) -> Sequence[Exception]:
        """Note no more; returns what went wrong in noting."""
        if self.token is None:
            return ()
        hooks.stop(self.token)
        self.token = None
        return self.trail.faults if self.trail is not None else ()

    def finish(self, results: Sequence[Any], error: BaseException | None, ended_at: float) -> None:
        """Note the end; of what the call handled only frames stay, and tables of other libraries by their columns.

        Frames are kept until their plan is read, an instant later in the writer's thread.
        """
        self.ended_at = ended_at
        if error is not None:
            self.error_type = type(error).__name__
            self.error = f"{self.error_type}: {told(str(error))}"
        has_own = self.trail is not None and bool(self.trail.reads or self.trail.writes)
        if not has_own and self.inputs is self.spec.plain_inputs and are_plain(results):
            self.results = self.spec.plain_results if results else ()
            return
        frames = [(key, each) for result in results for key, each in frames_in(result)]
        if not has_own and not frames and not any(kind_of(each) != "other" for _, each in self.inputs):
            self.results = ((self.spec.output, None),) if results else ()
            self.forget_frames()
            return
        self.has_frames = True
        named = [(self.spec.output_of(key), each) for key, each in frames]
        written = _written(self.trail) if error is None else ()
        has_output = bool(results) and (self.spec.is_declared or not written)
        self.results = (*[(urn, _kept(each, self.trail)) for urn, each in named], *written)
        if not named and has_output:
            # without a frame it is known only that there is a result
            self.results = ((self.spec.output, None), *written)
        # after what it was made of was looked up: a frame that was handed on may be the result of another step
        for urn, each in named:
            VALUES.note(each, urn)
        self.inputs = tuple([(urn, _kept(each)) for urn, each in self.inputs])

    def forget_frames(self) -> None:
        """Let all frames go: what is left says which datasets took part, and no more."""
        self.results = tuple([(urn, None) for urn, _ in self.results])
        self.inputs = tuple([(urn, None) for urn, _ in self.inputs])
        self.trail = None
        self.has_frames = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What is kept of a table of another library: its columns, and what was seen to reach them."""

    columns: tuple[Column, ...]
    flow: Flow | None = None


def _kept(value: Any, trail: Trail | None = None) -> Any:
    """A polars frame as it is, the columns of another table, and nothing of what is no frame."""
    kind = kind_of(value)
    if kind == "table":
        columns = tuple([Column(name=name, type=type_) for name, type_ in columns_of_table(value)])
        return Shape(columns, trail.flow_of(value, [each.name for each in columns]) if trail is not None else None)
    return value if kind in ("lazy", "eager") or isinstance(value, Shape) else None


def _written(trail: Trail | None) -> Inputs:
    """The files and tables a call wrote by itself, and what is kept of what went into them."""
    if trail is None:
        return ()
    return tuple([(urn, _shape(each)) for urn, values in trail.writes.items() for each in values])


def _shape(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    columns, found = value
    return Shape(tuple([Column(name=name, type=kind) for name, kind in columns]), found)


def to_run(call: Call) -> Run:
    """Read the plans of a call; does not collect."""
    own = call.trail.reads if call.trail is not None else {}
    given = [Dataset(urn=urn, columns=schema_of(value)) for urn, value in call.inputs]
    given += [Dataset(urn=urn, columns=tuple(Column(name=each) for each in names)) for urn, names in own.items()]
    reads = united([given])
    if call.error is not None:
        return Run(
            id=call.run_id, job=call.spec.job, state="FAIL", started_at=call.started_at, ended_at=call.ended_at,
            reads=reads, error=call.error,
        )  # fmt: skip
    edges: set[Edge] = set()
    readings = Readings(call.trail, _polars(call.inputs))
    inputs = (*call.inputs, *((urn, None) for urn in own))
    for urn, result in call.results:
        edges.update(edges_of(result, inputs, readings, output=urn, job=call.spec.job))
    scanned = {edge.source for edge in edges} - {each.urn for each in reads}
    return Run(
        id=call.run_id,
        job=call.spec.job,
        started_at=call.started_at,
        ended_at=call.ended_at,
        reads=reads + tuple(Dataset(urn=urn) for urn in sorted(scanned)),
        writes=united([[Dataset(urn=urn, columns=schema_of(result)) for urn, result in call.results]]),
        edges=tuple(sorted(edges)),
    )


def edges_of(result: Any, inputs: Inputs, readings: Readings, *, output: DatasetUrn, job: str) -> tuple[Edge, ...]:
    """Find the edges of one result: from its plan, or what was seen of it; else between whole datasets."""
    if isinstance(result, Shape) and result.flow is not None:
        found = flow.substituted(result.flow, readings.known())
        return tuple(flow.edges(found, target=output, names=list(found.columns), method="watched", job=job))
    if not is_lazy(result) and not is_eager(result):
        return whole(dict(inputs), output=output, job=job)
    captured = capture(result.lazy(), readings.inputs, output=output, job=job, readings=readings)
    if readings.is_complete:
        return captured.edges
    # an input of another library whose values were not followed
    known = {urn for urn, _ in readings.inputs}
    return captured.edges + whole({urn: None for urn, _ in inputs if urn not in known}, output=output, job=job)


def _polars(inputs: Inputs) -> list[tuple[DatasetUrn, Any]]:
    return [(urn, value.lazy()) for urn, value in inputs if is_lazy(value) or is_eager(value)]


def schema_of(value: Any) -> tuple[Column, ...]:
    """Name the columns of a frame; nothing for other values."""
    if is_lazy(value):
        return columns_of(value.collect_schema())
    if is_eager(value):
        return columns_of(value.schema)
    return value.columns if isinstance(value, Shape) else ()


def told(text: str) -> str:
    """A text of the user's as it may leave this process: without secrets, and not too long."""
    short = text if len(text) <= _TOLD_CHARS else f"{text[:_TOLD_CHARS]}... ({len(text)} characters)"
    return redact(short)


def keep(seen: list[Any], value: Any, spec: Spec) -> None:
    """Keep one of the first frames of a generator; eager ones without their rows."""
    for key, each in frames_in(value):
        # noted here, because the consumer hands it on before the generator ends
        VALUES.note(each, spec.output_of(key))
    if len(seen) < _KEPT_FRAMES:
        seen.append(value.clear() if is_eager(value) else value)


def is_lazy(value: Any) -> bool:
    """Whether a value is a polars LazyFrame, without importing polars."""
    return kind_of(value) == "lazy"


def is_eager(value: Any) -> bool:
    """Whether a value is a polars DataFrame, without importing polars."""
    return kind_of(value) == "eager"
