"""Retries wait as the policy and the other side say, and give up in time; the clock is ours."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.errors import PermanentError, Stopped, TransientError
from tidemill_core.lifecycle import StopToken
from tidemill_core.retry import Retry, RetryPolicy


class Busy(TransientError):
    def __init__(self, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("busy")


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    now_s: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


def failing(times: int, error: Callable[[], BaseException] = Busy) -> Callable[..., str]:
    left = [times]

    def call(*args: object, **kwargs: object) -> str:
        if left[0]:
            left[0] -= 1
            raise error()
        return f"{args}{kwargs}"

    return call


def test_arguments_and_result_pass_through() -> None:
    assert RetryPolicy().call(failing(0), 1, key=2) == "(1,){'key': 2}"


def test_waits_grow_by_the_factor_up_to_the_longest() -> None:
    clock = Clock()
    policy = RetryPolicy(attempts=6, delay_s=1, factor=3, max_delay_s=10, jitter=False)

    policy.call(failing(5), sleep=clock.sleep, clock=clock)

    assert clock.sleeps == [1, 3, 9, 10, 10]


def test_the_last_error_is_raised_as_it_was() -> None:
    clock = Clock()
    calls = []

    def call() -> None:
        calls.append(1)
        raise Busy

    with pytest.raises(Busy):
        RetryPolicy(attempts=3).call(call, sleep=clock.sleep, clock=clock)

    assert (len(calls), len(clock.sleeps)) == (3, 2)


@pytest.mark.parametrize("error", [PermanentError, ValueError, KeyboardInterrupt])
def test_other_errors_are_raised_at_once(error: type[BaseException]) -> None:
    clock = Clock()

    with pytest.raises(error):
        RetryPolicy().call(failing(1, error), sleep=clock.sleep, clock=clock)

    assert clock.sleeps == []


def test_what_is_tried_again_can_be_types_or_a_predicate() -> None:
    clock = Clock()

    RetryPolicy().call(failing(1, ValueError), on=(ValueError, OSError), sleep=clock.sleep, clock=clock)
    RetryPolicy().call(failing(1, ValueError), on=lambda e: isinstance(e, ValueError), sleep=clock.sleep, clock=clock)

    assert len(clock.sleeps) == 2


def test_the_other_sides_wish_is_kept_even_beyond_our_longest_wait() -> None:
    clock = Clock()
    policy = RetryPolicy(attempts=2, delay_s=1, max_delay_s=5, jitter=False)

    policy.call(failing(1, lambda: Busy(retry_after_s=120)), sleep=clock.sleep, clock=clock)

    assert clock.sleeps == [120]


def test_a_deadline_ends_it_before_a_wait_that_would_pass_it() -> None:
    clock = Clock()
    policy = RetryPolicy(attempts=100, delay_s=4, factor=1, jitter=False, deadline_s=10)

    with pytest.raises(Busy):
        policy.call(failing(99), sleep=clock.sleep, clock=clock)

    assert clock.sleeps == [4, 4]


def test_a_wish_beyond_the_deadline_is_not_waited_for() -> None:
    clock = Clock()

    with pytest.raises(Busy):
        RetryPolicy(deadline_s=10).call(failing(1, lambda: Busy(3600)), sleep=clock.sleep, clock=clock)

    assert clock.sleeps == []


def test_every_retry_is_told() -> None:
    clock, told = Clock(), list[Retry]()

    RetryPolicy(delay_s=1, jitter=False).call(failing(2), sleep=clock.sleep, clock=clock, on_retry=told.append)

    assert [(retry.attempt, retry.wait_s, str(retry.error)) for retry in told] == [(1, 1, "busy"), (2, 2, "busy")]


def test_a_stop_request_ends_the_wait() -> None:
    token = StopToken()

    with pytest.raises(Stopped, match="SIGTERM"):
        RetryPolicy(delay_s=3600, jitter=False).call(failing(9), stop=token, on_retry=lambda _: token.set("SIGTERM"))


def test_the_async_twin_waits_and_gives_up_alike() -> None:
    clock = Clock()
    policy = RetryPolicy(attempts=3, delay_s=1, jitter=False)
    left = [2]

    async def call(text: str) -> str:
        if left[0]:
            left[0] -= 1
            raise Busy
        return text

    async def forever() -> None:
        raise Busy

    assert asyncio.run(policy.call_async(call, "x", sleep=clock.sleep_async, clock=clock)) == "x"
    with pytest.raises(Busy):
        asyncio.run(policy.call_async(forever, sleep=clock.sleep_async, clock=clock))
    assert clock.sleeps == [1, 2, 1, 2]


policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 50),
    delay_s=st.floats(0, 100),
    factor=st.floats(1, 100),
    max_delay_s=st.floats(0, 1000),
    jitter=st.booleans(),
)


@given(policy=policies, attempt=st.integers(1, 5000), asked=st.none() | st.floats(0, 1e6), luck=st.floats(0, 1))
def test_a_wait_is_never_shorter_than_asked_nor_longer_than_asked_and_the_longest(
    policy: RetryPolicy, attempt: int, asked: float | None, luck: float
) -> None:
    waited = policy.wait_s(attempt, Busy(asked), lambda low, high: low + luck * (high - low))

    assert waited >= (asked or 0)
    assert waited <= (asked or 0) + policy.max_delay_s


@given(policy=policies, failures=st.integers(0, 60))
def test_calls_are_one_more_than_failures_up_to_the_allowed(policy: RetryPolicy, failures: int) -> None:
    clock = Clock()
    calls = []
    inner = failing(failures)

    def call() -> None:
        calls.append(1)
        inner()

    try:
        policy.call(call, sleep=clock.sleep, clock=clock, on_retry=lambda _: None)
        succeeded = True
    except Busy:
        succeeded = False

    assert succeeded == (failures < policy.attempts)
    assert len(calls) == min(failures + 1, policy.attempts)
    assert len(clock.sleeps) == len(calls) - 1


@given(policy=policies.map(lambda p: p.model_copy(update={"deadline_s": 30.0})), failures=st.integers(0, 60))
def test_no_attempt_begins_after_the_deadline(policy: RetryPolicy, failures: int) -> None:
    clock = Clock()
    inner = failing(failures)
    began: list[float] = []

    def call() -> None:
        began.append(clock.now_s)
        inner()

    with_error = False
    try:
        policy.call(call, sleep=clock.sleep, clock=clock, on_retry=lambda _: None)
    except Busy:
        with_error = True

    assert max(began) <= 30 + 1e-6
    assert with_error or len(began) == failures + 1


def test_waits_are_spread_by_the_random_source_that_is_given() -> None:
    asked: list[tuple[float, float]] = []
    waited: list[float] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 4

    RetryPolicy(attempts=4, delay_s=1, factor=2).call(failing(3), sleep=waited.append, uniform=uniform)

    assert asked == [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0)]
    assert waited == [0.25, 0.5, 1.0]


async def _none(_: float) -> None: ...


def test_asynchronous_waits_are_spread_as_well() -> None:
    asked: list[float] = []

    async def work() -> None:
        failing(1 if not asked else 0)()

    asyncio.run(
        RetryPolicy(delay_s=3).call_async(work, sleep=_none, uniform=lambda low, high: asked.append(high) or low)
    )

    assert asked == [3.0]
