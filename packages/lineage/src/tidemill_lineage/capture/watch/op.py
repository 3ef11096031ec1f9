"""One watched operation, as its rule sees it, and the doors that watch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Influences
from tidemill_lineage.capture.watch.seen import NOTHING, Seen
from tidemill_lineage.capture.watch.trail import Trail, caller, is_tabular, names_of

current: ContextVar[Trail | None] = ContextVar("tidemill_lineage_trail", default=None)
"""The trail of the traced call that this thread or task runs; None inside a watched operation, too."""
_MISSING = object()


class Op:
    """An operation that was done: on what, with what, and what it gave."""

    __slots__ = ("_code", "args", "kwargs", "me", "name", "result", "seen", "trail")

    def __init__(self, trail: Trail, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.trail, self.name, self.kwargs = trail, name, kwargs
        self.me: Any = args[0] if args else None
        self.args = args[1:]
        self.result: Any = None
        self._code: Any = _MISSING
        # as it was before: the operation may change it in place
        subject: Any = self.me
        if type(subject).__name__.endswith("Indexer"):
            subject = subject.obj
        self.seen = trail.table(subject) if subject is not None and name != "__init__" else Seen((), ())

    @property
    def code(self) -> Any:
        """The code of the user's function that called."""
        if self._code is _MISSING:
            self._code = caller()
        return self._code

    def arg(self, name: str, position: int, default: Any = None) -> Any:
        """An argument, by name or by position after the operand."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else default

    def of(self, value: Any) -> Influences:
        """What reaches an argument."""
        return self.trail.influence(value, known=self.seen.names, code=self.code)

    def of_arguments(self, *, skip: Sequence[str] = ()) -> Influences:
        """What reaches any argument."""
        if not self.args and not self.kwargs:
            return NOTHING
        return flow.combine(
            self.of(each) for each in (*self.args, *(v for k, v in self.kwargs.items() if k not in skip))
        )

    def labels(self) -> tuple[Hashable, ...]:
        """Labels of the result's columns."""
        return names_of(self.result) or ("",)

    def give(self, seen: Seen | Influences) -> None:
        """Say what the result holds; if it is no frame, it leaves the frames."""
        is_table = is_tabular(self.result)
        if is_table and not isinstance(seen, Seen):
            seen = Seen(self.labels(), (seen,) * len(self.labels()))
        if isinstance(seen, Seen):
            if is_table or seen.keys is not None:
                self.trail.note(self.result, seen)
            if type(self.result).__name__ == "ndarray" or type(self.result).__module__.startswith("polars"):
                # what numpy makes of it is not seen, and in a plan it is a literal
                self.trail.leave(self.result, seen.whole(), decides=False)
            elif not is_table and seen.keys is None:
                self.trail.leave(self.result, seen.whole())
        else:
            self.trail.leave(self.result, seen)


Rule = Callable[[Op], "Seen | Influences | None"]


@dataclass(frozen=True, slots=True)
class Door:
    """One attribute of a class or a module that is replaced while traced calls run."""

    owner: Any
    name: str
    replacement: Any

    def open(self) -> Any:
        """Put the replacement in place; returns what stood there, or a mark that nothing did."""
        before = vars(self.owner).get(self.name, _MISSING)
        setattr(self.owner, self.name, self.replacement)
        return before

    def close(self, before: Any) -> None:
        """Put back what stood there."""
        if before is _MISSING:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, before)


def method_door(owner: type, name: str, rule: Rule) -> Door | None:
    """Watch a method, a property or an accessor; None where this version has none of the name."""
    original = next((vars(each)[name] for each in owner.__mro__ if name in vars(each)), None)
    if original is None or isinstance(original, (staticmethod, classmethod)):
        return None
    if callable(original) and not isinstance(original, type):
        return Door(owner, name, watched(original, name, rule))
    return Door(owner, name, _Attribute(original, name, rule)) if hasattr(original, "__get__") else None


def function_door(module: Any, name: str, rule: Rule) -> Door | None:
    """Watch a function of a module; None where this version has none of the name."""
    original = vars(module).get(name)
    return Door(module, name, watched(original, name, rule, is_method=False)) if callable(original) else None


def watched(original: Callable[..., Any], name: str, rule: Rule, *, is_method: bool = True) -> Callable[..., Any]:
    """Wrap an operation: the same, and noted on the trail of the call that runs."""
    get, put, back = current.get, current.set, current.reset

    def door(*args: Any, **kwargs: Any) -> Any:
        trail = get()
        if trail is None:
            return original(*args, **kwargs)
        # an operation may use others inside: only the outer is the user's
        token = put(None)
        try:
            op = _begun(trail, name, args if is_method else (None, *args), kwargs)
            result = original(*args, **kwargs)
            if op is not None:
                _noted(op, rule, result)
        finally:
            back(token)
        return result

    return functools.wraps(original, updated=())(door)


class _Attribute:
    """A property or an accessor that is watched."""

    def __init__(self, original: Any, name: str, rule: Rule) -> None:
        self.original, self.name, self.rule = original, name, rule
        self.__doc__ = getattr(original, "__doc__", None)
        self.__isabstractmethod__ = False

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        trail = current.get() if instance is not None else None
        if trail is None:
            return self.original.__get__(instance, owner)
        token = current.set(None)
        try:
            result = self.original.__get__(instance, owner)
            op = _begun(trail, self.name, (instance,), {})
            if op is not None:
                _noted(op, self.rule, result)
        finally:
            current.reset(token)
        return result

    def __set__(self, instance: Any, value: Any) -> None:
        self.original.__set__(instance, value)


_NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


def _begun(trail: Trail, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Op | None:
    try:
        return Op(trail, name, args, kwargs or _NO_ARGUMENTS)
    except Exception as error:  # noqa: BLE001  # a frame of a stranger's making; the operation itself must go on
        trail.faults.append(error)
        return None


def _noted(op: Op, rule: Rule, result: Any) -> None:
    op.result = result
    try:
        found = rule(op)
        if found is not None:
            op.give(found)
    except Exception as error:  # noqa: BLE001  # a library of another version; its result is assumed to hold all
        op.trail.faults.append(error)
        op.give(assumed(op))


def assumed(op: Op) -> Influences:
    """All that an operation was given: what its result may hold where its rule is not known."""
    try:
        found = flow.combine([op.seen.whole(), op.of_arguments()])
    except Exception:  # noqa: BLE001  # as above, an argument this time
        found = dict(op.trail.everything())
    return flow.act(found, "TRANSFORMATION?")
