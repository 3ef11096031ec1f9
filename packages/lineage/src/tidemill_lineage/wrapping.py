"""Wrap a function so that its calls are watched, whatever kind of function it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from tidemill_lineage.observed import Call, Spec, keep


class Watch(Protocol):
    """Who is told that a call begins and ends."""

    def begin(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Call | None, tuple[Any, ...], dict[str, Any]]:
        """Note the call; returns the arguments to go on with."""

    def end(self, call: Call | None, results: Sequence[Any], error: BaseException | None = None) -> None:
        """Note what it returned or yielded, or the error that ended it."""


def wrap(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """Choose the wrapper that keeps what kind of function it is."""
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(watch, function, spec)
    if inspect.iscoroutinefunction(function):
        return _wrap_coroutine(watch, function, spec)
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(watch, function, spec)
    return _wrap_plain(watch, function, spec)


def _wrap_plain(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise
        watch.end(call, (result,))
        return result

    return traced


def _wrap_coroutine(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise
        watch.end(call, (result,))
        return result

    return traced


def _wrap_generator(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        seen: list[Any] = []
        inner = function(*args, **kwargs)
        try:
            returned = yield from _watched(inner, seen)
        except GeneratorExit:  # the consumer had enough; what was yielded is good
            watch.end(call, seen)
            raise
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise
        watch.end(call, seen)
        return returned

    return traced


def _wrap_async_generator(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        seen: list[Any] = []
        inner = function(*args, **kwargs)
        try:
            async for each in inner:
                keep(seen, each)
                yield each
        except GeneratorExit:
            await inner.aclose()
            watch.end(call, seen)
            raise
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise
        watch.end(call, seen)

    return traced


def _watched(inner: Any, seen: list[Any]) -> Any:
    """Pass a generator through, with what is sent and thrown into it, keeping a few of its frames."""
    try:
        value = next(inner)
        while True:
            keep(seen, value)
            try:
                sent = yield value
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:  # noqa: BLE001  # handed to the generator, as `yield from` would
                value = inner.throw(error)
            else:
                value = inner.send(sent)
    except StopIteration as stop:
        return stop.value
