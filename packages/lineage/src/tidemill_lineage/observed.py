"""One observed call of a traced function, and how it becomes a run with edges."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill_core.telemetry.redact import redact

from tidemill_lineage.capture.polars import capture, whole
from tidemill_lineage.graph import columns_of
from tidemill_lineage.model import Column, Dataset, DatasetUrn, Edge, Run

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
        name = job or f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"
        parameters = inspect.signature(function).parameters
        unknown = sorted(set(inputs) - set(parameters))
        if unknown:
            raise TypeError(f"{name} has no parameter {unknown[0]!r}; it has: {', '.join(parameters)}")
        positions = {each: -1 if p.kind is p.KEYWORD_ONLY else i for i, (each, p) in enumerate(parameters.items())}
        return cls(
            job=name,
            output=output or f"python://{name}",
            inputs=tuple((each, positions[each], urn) for each, urn in inputs.items()),
            lazy=frozenset(each for each in inputs if "LazyFrame" in str(parameters[each].annotation)),
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

    def inputs_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[DatasetUrn, Any], ...]:
        """Pick the values of the traced parameters."""
        if not kwargs:
            given = len(args)
            return tuple([(urn, args[at] if 0 <= at < given else None) for _, at, urn in self.inputs])
        return tuple(
            [
                (urn, kwargs[name] if name in kwargs else args[at] if 0 <= at < len(args) else None)
                for name, at, urn in self.inputs
            ]
        )


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, as the hot path saw it."""

    spec: Spec
    run_id: str
    inputs: tuple[tuple[DatasetUrn, Any], ...]
    started_at: float
    results: Sequence[Any] = ()
    error: str | None = None
    error_type: str = ""
    ended_at: float = 0.0
    has_frames: bool = False

    def finish(self, results: Sequence[Any], error: BaseException | None, ended_at: float) -> None:
        """Note the end; of what the call handled only frames stay, eager ones without their rows.

        An eager frame keeps its rows only while a lazy result may stand on them.
        """
        self.ended_at = ended_at
        if error is not None:
            self.error_type = type(error).__name__
            self.error = f"{self.error_type}: {told(str(error))}"
        self.results = results
        known = _KINDS
        kinds = [known.get(type(each)) or _kind(each) for each in results]
        held = [known.get(type(each)) or _kind(each) for _, each in self.inputs]
        if "lazy" not in kinds and "eager" not in kinds and "lazy" not in held and "eager" not in held:
            self.forget_frames()
            return
        self.has_frames = True
        self.results = tuple([_light(each, kind) for each, kind in zip(results, kinds, strict=True)])
        if "lazy" not in kinds:
            pairs = zip(self.inputs, held, strict=True)
            self.inputs = tuple([(urn, _light(each, kind)) for (urn, each), kind in pairs])

    def forget_frames(self) -> None:
        """Let all frames go: what is left says which datasets took part, and no more."""
        self.results = (None,) if self.results else ()
        self.inputs = tuple([(urn, None) for urn, _ in self.inputs])
        self.has_frames = False


_KINDS: dict[type, str] = {}
"""Whether values of a type are lazy or eager frames, or something else; most types are met often."""
_KNOWN_TYPES = 1_000


def _kind(value: Any) -> str:
    kind = "lazy" if is_lazy(value) else "eager" if is_eager(value) else "other"
    if len(_KINDS) < _KNOWN_TYPES:
        _KINDS[type(value)] = kind
    return kind


def _light(value: Any, kind: str) -> Any:
    """A frame without its rows; None for what is no frame."""
    if kind == "eager":
        return value.clear()
    return value if kind == "lazy" else None


def to_run(call: Call) -> Run:
    """Read the plans of a call; does not collect."""
    reads = tuple(Dataset(urn=urn, columns=schema_of(value)) for urn, value in call.inputs)
    if call.error is not None:
        return Run(
            id=call.run_id, job=call.spec.job, state="FAIL", started_at=call.started_at, ended_at=call.ended_at,
            reads=reads, error=call.error,
        )  # fmt: skip
    edges: set[Edge] = set()
    columns: tuple[Column, ...] = ()
    for result in call.results:
        edges.update(edges_of(result, call.inputs, output=call.spec.output, job=call.spec.job))
        columns = columns or schema_of(result)
    scanned = {edge.source for edge in edges} - {urn for urn, _ in call.inputs}
    return Run(
        id=call.run_id,
        job=call.spec.job,
        started_at=call.started_at,
        ended_at=call.ended_at,
        reads=reads + tuple(Dataset(urn=urn) for urn in sorted(scanned)),
        writes=(Dataset(urn=call.spec.output, columns=columns),),
        edges=tuple(sorted(edges)),
    )


def edges_of(
    result: Any, inputs: Sequence[tuple[DatasetUrn, Any]], *, output: DatasetUrn, job: str
) -> tuple[Edge, ...]:
    """Find the edges of one result: from its plan if it has one, else between whole datasets."""
    frames = {urn: value.lazy() for urn, value in inputs if is_lazy(value) or is_eager(value)}
    if not is_lazy(result):
        return whole(dict(inputs), output=output, job=job)
    others = {urn: None for urn, _ in inputs if urn not in frames}
    return capture(result, frames, output=output, job=job).edges + whole(others, output=output, job=job)


def schema_of(value: Any) -> tuple[Column, ...]:
    """Name the columns of a frame; nothing for other values."""
    if is_lazy(value):
        return columns_of(value.collect_schema())
    if is_eager(value):
        return columns_of(value.schema)
    return ()


def told(text: str) -> str:
    """A text of the user's as it may leave this process: without secrets, and not too long."""
    short = text if len(text) <= _TOLD_CHARS else f"{text[:_TOLD_CHARS]}... ({len(text)} characters)"
    return redact(short)


def keep(seen: list[Any], value: Any) -> None:
    """Keep one of the first frames of a generator; eager ones without their rows."""
    if len(seen) < _KEPT_FRAMES:
        seen.append(value.clear() if is_eager(value) else value)


def is_lazy(value: Any) -> bool:
    """Whether a value is a polars LazyFrame, without importing polars."""
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(value, polars.LazyFrame)


def is_eager(value: Any) -> bool:
    """Whether a value is a polars DataFrame, without importing polars."""
    polars = sys.modules.get("polars")
    return polars is not None and isinstance(value, polars.DataFrame)
