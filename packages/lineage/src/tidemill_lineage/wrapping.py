"""Wrap a function so that its calls are watched, whatever kind of function it is."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from tidemill_lineage.observed import Call, Spec, keep


class Watch(Protocol):
    """Who is told that a call begins and ends."""

    def begin(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_whole: bool = True
    ) -> tuple[Call | None, tuple[Any, ...], dict[str, Any]]:
        """Note the call; returns the arguments to go on with. One that is not whole runs with pauses."""

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
    @functools.wraps(function, updated=())
    def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise
        later = _LATER.get(type(result))
        if later is not None:
            # the work has not begun: what runs it reports its end
            return later(watch, call, result, spec)
        watch.end(call, (result,))
        return result

    return traced


def _wrap_coroutine(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs)
        return await _coroutine(watch, call, function(*args, **kwargs), spec)

    return traced


def _wrap_generator(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        call, args, kwargs = watch.begin(spec, args, kwargs, is_whole=False)
        return (yield from _generator(watch, call, function(*args, **kwargs), spec))

    return traced


def _wrap_async_generator(watch: Watch, function: Callable[..., Any], spec: Spec) -> Callable[..., Any]:
    """Pass an async generator through, with what is sent and thrown into it, and report its end."""

    @functools.wraps(function)
    async def traced(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        call, args, kwargs = watch.begin(spec, args, kwargs, is_whole=False)
        inner = function(*args, **kwargs)
        seen: list[Any] = []
        try:
            value = await anext(inner)
            while True:
                keep(seen, value, spec)
                try:
                    sent = yield value
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # handed to the generator, which may catch it
                    value = await inner.athrow(error)
                else:
                    value = await inner.asend(sent)
        except StopAsyncIteration:
            watch.end(call, seen)
        except GeneratorExit:  # the consumer had enough; what was yielded is good
            watch.end(call, seen)
            raise
        except BaseException as error:  # recorded and raised again
            watch.end(call, (), error)
            raise

    return traced


async def _coroutine(watch: Watch, call: Call | None, inner: Any, _: Spec) -> Any:
    """Await a coroutine, and report its end."""
    try:
        result = await inner
    except BaseException as error:  # recorded and raised again
        watch.end(call, (), error)
        raise
    watch.end(call, (result,))
    return result


def _generator(watch: Watch, call: Call | None, inner: Any, spec: Spec) -> Any:
    """Pass a generator through, and report its end."""
    seen: list[Any] = []
    try:
        returned = yield from _watched(inner, seen, spec)
    except GeneratorExit:  # the consumer had enough; what was yielded is good
        watch.end(call, seen)
        raise
    except BaseException as error:  # recorded and raised again
        watch.end(call, (), error)
        raise
    watch.end(call, seen)
    return returned


def _async_generator(watch: Watch, call: Call | None, inner: Any, spec: Spec) -> Any:
    """Pass on an async generator that a plain function returned: its call has begun already."""
    return _wrap_async_generator(_Begun(watch, call), lambda: inner, spec)()


class _Begun:
    """A watch of one call that has begun."""

    def __init__(self, watch: Watch, call: Call | None) -> None:
        self._call, self.end = call, watch.end

    def begin(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_whole: bool = True
    ) -> tuple[Call | None, tuple[Any, ...], dict[str, Any]]:
        del spec, is_whole
        return self._call, args, kwargs


def _watched(inner: Any, seen: list[Any], spec: Spec) -> Any:
    """Pass a generator through, with what is sent and thrown into it, keeping a few of its frames."""
    try:
        value = next(inner)
        while True:
            keep(seen, value, spec)
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


_LATER: dict[type, Callable[..., Any]] = {
    types.CoroutineType: _coroutine,
    types.GeneratorType: _generator,
    types.AsyncGeneratorType: _async_generator,
}
"""What a plain function may return that does its work later."""
