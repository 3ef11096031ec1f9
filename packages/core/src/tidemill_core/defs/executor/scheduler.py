"""What is ready, skipped, held, retried, late, and over: Dagster's bookkeeping, settled; no threads here.

Dagster decides about a step when it is asked, and moves one link of a chain at a time. Here the
plan is settled after every event: skips, held steps and new steps of a fan-out are followed until
nothing changes, and only then is it asked whether the run is over. A step is looked at again only
when something that it needs has changed, so a plan of any size costs what its edges cost.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tidemill_core.defs._dagster import ActiveExecution, DagsterEvent, ExecutionPlan
from tidemill_core.defs.executor.deadlines import Deadlines
from tidemill_core.defs.executor.triggers import TRIGGER_TAG, Decision, Needed, decide
from tidemill_core.errors import TidemillError


class RunStuck(TidemillError):
    """A run can neither go on nor end; it names the steps. Right code never raises it."""

    def __init__(self, why: str, steps: Sequence[str]) -> None:
        self.why, self.steps = why, tuple(steps)
        super().__init__(f"{why}: {', '.join(steps)}; this is a fault of the executor, please report it")


class Scheduler(ActiveExecution):
    """The state of one execution plan; `settle` it after every event.

    Args:
        execution_plan: What to run.
        clock: Seconds since the epoch; retries wait by it.
        options: As `ActiveExecution` takes them.
    """

    def __init__(
        self, execution_plan: ExecutionPlan, *, clock: Callable[[], float] = time.time, **options: Any
    ) -> None:
        self._clock = clock
        self.deadlines = Deadlines()
        self._users: dict[str, set[str]] = defaultdict(set)
        self._planned: dict[str, int] = {}
        self._fans: dict[str, frozenset[str]] = {}
        self._touched: set[str] = set()
        self._rules: dict[str, str | None] = {}
        super().__init__(execution_plan, **options)

    def settle(self, job_context: Any) -> Iterator[DagsterEvent]:
        """Skip and hold all that can be, until nothing changes; yields the events of it."""
        while True:
            yield from self.plan_events_iterator(job_context)
            self._update()
            if not (self._pending_skip or self._pending_abandon):
                return

    @property
    def is_complete(self) -> bool:
        """Whether every step has ended; steps that a fan-out has yet to bring count as not ended."""
        return not self._new_dynamic_mappings and super().is_complete

    @property
    def next_retry_at(self) -> float | None:
        """When the first waiting retry is due, by the clock; None if none waits."""
        return min(self._waiting_to_retry.values(), default=None)

    @property
    def is_retry_due(self) -> bool:
        """Whether a step that waited may be tried again."""
        at = self.next_retry_at
        return at is not None and at <= self._clock()

    def is_in_flight(self, step_key: str) -> bool:
        """Whether a step was given out and has not ended."""
        return step_key in self._in_flight

    def check_alive(self) -> None:
        """Make sure that something can still happen; call it when nothing runs and nothing was given out.

        Raises:
            RunStuck: Nothing is in flight, waits for a retry or for a slot of a pool, and yet steps are left.
        """
        claims = self._instance_concurrency_context
        if self.is_complete or self._in_flight or self._waiting_to_retry:
            return
        if claims is not None and claims.has_pending_claims():
            return
        raise RunStuck("no step can start, and some have not run", sorted({*self._pending, *self._executable}))

    def check_whole(self) -> None:
        """Make sure that a run without a failure has run or skipped its whole plan.

        Raises:
            RunStuck: It has not.
        """
        if self._failed or self._abandoned or self._unknown_state:
            return  # the run does not end as a success
        left = self._planned.keys() - self._success - self._skipped
        given = self._plan.known_state.dynamic_mappings
        for fans, handles in self._plan.resolvable_map.items():
            # What a parent run's fan-outs brought was resolved when the plan was made.
            if not fans <= given.keys():
                left |= {handle.to_key() for handle in handles if handle in self._plan.step_handles_to_execute}
        if left:
            raise RunStuck("the run would end as a success, but steps of its plan did not run", sorted(left))

    def handle_event(self, dagster_event: DagsterEvent) -> None:
        """Take note of what a step did."""
        if dagster_event.is_step_up_for_retry:
            self._retry_later(dagster_event)
            return
        super().handle_event(dagster_event)
        if dagster_event.is_successful_output and dagster_event.step_key is not None:
            # Steps that wait for outputs alone (`require_upstream_step_success` off) may start now.
            self._touched |= self._users[dagster_event.step_key]

    def _retry_later(self, event: DagsterEvent) -> None:
        """As Dagster does, but by our clock."""
        key = event.step_key
        assert key is not None
        if self._step_dependency_config.require_upstream_step_success:
            # Outputs are those of the try that succeeds; where steps wait for outputs alone they are taken already.
            self._step_outputs -= {handle for handle in self._step_outputs if handle.step_key == key}
        seconds = event.step_retry_data.seconds_to_wait
        self.mark_up_for_retry(key, self._clock() + seconds if seconds else None)
        if self._pending.pop(key, None) is not None:
            # That it may run was decided before its first try; what Dagster puts back lacks its fan-outs.
            self._executable.append(key)
        if self._instance_concurrency_context:
            self._instance_concurrency_context.free_step(key)

    def mark_failed(self, step_key: str) -> None:
        """Note a failure."""
        super().mark_failed(step_key)
        self._end_fan_out(step_key)

    def mark_abandoned(self, step_key: str) -> None:
        """Note that a step will never run."""
        super().mark_abandoned(step_key)
        self._end_fan_out(step_key)

    def _end_fan_out(self, step_key: str) -> None:
        """Give a failed fan-out no copies: who collects them is then held, or runs if its rule says so."""
        dynamic = [output.name for output in self.get_step_by_key(step_key).step_outputs if output.is_dynamic]
        if dynamic:
            self._completed_dynamic_outputs[step_key] = {name: [] for name in dynamic}
            self._new_dynamic_mappings = True

    def _mark_complete(self, step_key: str) -> None:
        super()._mark_complete(step_key)
        self._touched |= self._users[step_key]

    def _update(self) -> None:
        """Decide about the steps whose needs have changed; called by Dagster wherever it asks for steps."""
        if not self._planned:
            self._plan_steps(self._pending)
        if self._new_dynamic_mappings:
            self._new_dynamic_mappings = False
            self._resolve()
        if self._touched:
            touched, self._touched = self._touched & self._pending.keys(), set()
            for key in sorted(touched, key=self._planned.__getitem__):
                self._decide(key)
        if self._waiting_to_retry:
            now = self._clock()
            for key in [key for key, at in self._waiting_to_retry.items() if at <= now]:
                del self._waiting_to_retry[key]
                self._executable.append(key)

    def _resolve(self) -> None:
        """Add the steps that ended fan-outs bring; each also needs its fan-outs, which may have failed."""
        brought_by = {handle: keys for keys, handles in self._plan.resolvable_map.items() for handle in handles}
        resolved = dict(self._plan.resolve(self._completed_dynamic_outputs))
        for key in list(resolved):
            handle: Any = self.get_step_by_key(key).handle
            fans = brought_by.get(getattr(handle, "unresolved_form", handle), frozenset()) & self._planned.keys()
            if fans:
                self._fans[key] = frozenset(fans - resolved[key])
                resolved[key] = resolved[key] | fans
        self._pending.update(resolved)
        self._plan_steps(resolved)

    def _plan_steps(self, needs: Mapping[str, AbstractSet[str]]) -> None:
        for key, needed in needs.items():
            self._planned[key] = len(self._planned)
            self._touched.add(key)
            for each in needed:
                self._users[each].add(key)

    def _decide(self, key: str) -> None:
        rule = self._rule(key)
        decision = self._by_dagster(key) if rule is None else self._by_rule(key, rule)
        if decision == "wait":
            return
        del self._pending[key]
        places = {"run": self._executable, "skip": self._pending_skip, "hold": self._pending_abandon}
        places[decision].append(key)

    def _rule(self, key: str) -> str | None:
        if key not in self._rules:
            self._rules[key] = self.get_step_by_key(key).tags.get(TRIGGER_TAG)
        return self._rules[key]

    def _by_rule(self, key: str, rule: str) -> Decision:
        # Of a fan-out behind other steps, only these count if it brought any.
        brought = {fan for fan in self._fans.get(key, ()) if fan in self._success and self._has_copies(fan)}
        every = self._pending[key] - brought
        without = self._without_output(key)
        needed = Needed(
            every=every,
            succeeded=every & self._success - without,
            failed=(every & self._failed) | (every & self._abandoned),
            skipped=(every & self._skipped) | (every & without),
        )
        decision = decide(rule, needed)
        if decision == "skip":
            self._skipped_deps[key] = [f"its rule {rule} was not met"]
        return decision

    def _has_copies(self, fan: str) -> bool:
        return any(self._completed_dynamic_outputs.get(fan, {}).values())

    def _without_output(self, key: str) -> set[str]:
        """Name the needed steps that succeeded, but made none of what this step takes from them."""
        taken: dict[str, bool] = {}
        for handle in self._taken(key):
            if handle.step_key in self._success and not self._is_check(handle):
                taken[handle.step_key] = taken.get(handle.step_key, False) or handle in self._step_outputs
        return {step for step, is_made in taken.items() if not is_made}

    def _taken(self, key: str) -> Iterator[Any]:
        for step_input in self.get_step_by_key(key).step_inputs:
            yield from step_input.get_step_output_handle_dependencies()

    def _is_check(self, handle: Any) -> bool:
        return self._plan.get_step_output(handle).properties.asset_check_key is not None

    def _by_dagster(self, key: str) -> Decision:
        """Decide as `ActiveExecution` does: all needed steps, or (by configuration) all needed outputs."""
        if not self._step_dependency_config.require_upstream_step_success:
            return self._by_outputs(key)
        left = self._pending[key] - self._success - self._skipped
        bad = (left & self._failed) | (left & self._abandoned)
        if len(bad) < len(left):
            return "wait"
        if self._should_skip_step(key):
            return "skip"
        return "hold" if bad else "run"

    def _by_outputs(self, key: str) -> Decision:
        if self._should_skip_step(key):
            return "skip"
        if self._all_upstream_outputs_failed_or_abandoned(key) or self._fans.get(key, frozenset()) & (
            self._failed | self._abandoned
        ):
            return "hold"
        # Dagster waits for ever for the outputs that some of many sources left out; those have ended.
        ended = self._success | self._skipped
        waits = any(
            handle.step_key in self._planned and handle.step_key not in ended and handle not in self._step_outputs
            for handle in self._taken(key)
        )
        return "wait" if waits else "run"
