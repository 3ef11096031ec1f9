"""Try again what may succeed later: exponential backoff with full jitter, as one config value.

    RetryPolicy(attempts=5).call(fetch, url)

The other side's wish (`TransientError.retry_after_s`) is a lower bound of the wait. The
loop is tenacity's; clocks, sleeps and randomness are passed in by tests.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import Field

from tidemill_core.config import Config
from tidemill_core.errors import TransientError
from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["On", "Retry", "RetryPolicy"]

P = ParamSpec("P")
T = TypeVar("T")

On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Which errors are tried again: types, or a predicate."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt failed, and another follows in `wait_s` seconds; `attempt` counts from 1."""

    attempt: int
    error: BaseException
    wait_s: float


class RetryPolicy(Config):
    """How often and how long to try again."""

    attempts: int = Field(default=5, ge=1)
    """Calls in all, the first included."""
    delay_s: float = Field(default=0.5, ge=0)
    """Seconds before the second attempt."""
    factor: float = Field(default=2.0, ge=1)
    """How much longer each further wait is."""
    max_delay_s: float = Field(default=60.0, ge=0)
    """Longest wait of our own choosing; the other side may ask for more."""
    jitter: bool = True
    """Wait a random time between 0 and the delay, so that many clients do not return at once."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Give up when the next attempt would begin later than this many seconds after the first."""

    def call(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        on: On = TransientError,
        stop: StopToken | None = None,
        on_retry: Callable[[Retry], None] | None = None,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        **kwargs: Any,
    ) -> T:
        """Call `fn` until it returns, or the last allowed attempt has failed.

        Args:
            fn: What to call.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            on: Errors worth another attempt; any other is raised at once.
            stop: Ends a wait early; then `Stopped` is raised.
            on_retry: Told before every wait; default logs it.
            sleep: Waits that many seconds.
            clock: Monotonic seconds, for the deadline.
            uniform: Chooses the random part of a wait, between two numbers of seconds.

        Raises:
            BaseException: The error of the last attempt, as it was raised.
            Stopped: `stop` was set while waiting.
        """
        from tenacity import Retrying

        pause = sleep if stop is None else _stoppable(stop)
        retrying = Retrying(sleep=pause, **self._rules(on, on_retry, clock, uniform))
        return retrying(fn, *args, **kwargs)

    async def call_async(
        self,
        fn: Callable[..., Awaitable[T]],
        /,
        *args: Any,
        on: On = TransientError,
        on_retry: Callable[[Retry], None] | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        **kwargs: Any,
    ) -> T:
        """Await `fn` as `call` calls it; cancel the task to stop.

        Raises:
            BaseException: The error of the last attempt, as it was raised.
        """
        from tenacity import AsyncRetrying

        retrying = AsyncRetrying(sleep=sleep, **self._rules(on, on_retry, clock, uniform))
        return await retrying(fn, *args, **kwargs)

    def wait_s(
        self,
        attempt: int,
        error: BaseException | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float:
        """Seconds to wait after `attempt` (from 1) failed with `error`."""
        try:
            delay = min(self.max_delay_s, self.delay_s * self.factor ** (attempt - 1))
        except OverflowError:
            delay = self.max_delay_s
        asked = getattr(error, "retry_after_s", None) or 0.0
        if not self.jitter:
            return max(asked, delay)
        return float(asked + uniform(0.0, delay)) if asked else uniform(0.0, delay)

    def _rules(
        self,
        on: On,
        on_retry: Callable[[Retry], None] | None,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> dict[str, Any]:
        began = clock()
        tell = on_retry or _log_retry

        def is_over(state: RetryCallState) -> bool:
            if state.attempt_number >= self.attempts:
                return True
            return self.deadline_s is not None and clock() - began + state.upcoming_sleep > self.deadline_s

        def before_sleep(state: RetryCallState) -> None:
            error = _error(state)
            assert error is not None
            tell(Retry(attempt=state.attempt_number, error=error, wait_s=state.upcoming_sleep))

        return {
            "retry": lambda state: (error := _error(state)) is not None and _matches(error, on),
            "wait": lambda state: self.wait_s(state.attempt_number, _error(state), uniform),
            "stop": is_over,
            "before_sleep": before_sleep,
            "reraise": True,
        }


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _matches(error: BaseException, on: On) -> bool:
    return isinstance(error, on) if isinstance(on, (type, tuple)) else bool(on(error))


def _stoppable(stop: StopToken) -> Callable[[float], None]:
    def pause(seconds: float) -> None:
        stop.wait(seconds)
        stop.raise_if_set()

    return pause


def _log_retry(retry: Retry) -> None:
    log.warning("retrying", attempt=retry.attempt, wait_s=round(retry.wait_s, 3), error=repr(retry.error))
