"""The loop of a run on threads: start what is ready, take what the threads tell, watch the clock."""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from tidemill_core.defs._dagster import (
    DagsterEvent,
    DagsterExecutionInterruptedError,
    EngineEventData,
    PlanExecutionContext,
    SerializableErrorInfo,
    StepFailureData,
)
from tidemill_core.defs.executor import steps
from tidemill_core.defs.executor.deadlines import Due
from tidemill_core.defs.executor.pools import PoolClaims
from tidemill_core.defs.executor.scheduler import Scheduler
from tidemill_core.defs.executor.steps import Ended, Message, Messages, Prints, RunningStep

POLL_S = 0.2
RAISE_AGAIN_S = 0.01
"""Until it is tried again to stop a thread that could not be disturbed."""
ASK_S = 5.0
"""Seconds that a step which looks at its stop token has before an exception is raised in it."""
TIMEOUT_GRACE_S = 5.0
"""Seconds after the exception until the thread of a step that is past its timeout is left behind."""


class ThreadLoop:
    """Runs one plan.

    Args:
        executor: Gives limits and retries.
        job_context: Of the run.
        scheduler: Knows what is ready.
        pools: The run's claims.
    """

    def __init__(
        self, executor: Any, job_context: PlanExecutionContext, scheduler: Scheduler, pools: PoolClaims
    ) -> None:
        self.executor, self.job_context, self.scheduler, self.pools = executor, job_context, scheduler, pools
        self.deadlines = scheduler.deadlines
        self.running: dict[str, RunningStep] = {}
        self.messages: Messages = SimpleQueue()
        self.is_stopping = False
        self.error: BaseException | None = None

    def run(self) -> Iterator[DagsterEvent]:
        """Run until every step has ended, or until the run is interrupted.

        Raises:
            RunStuck: The plan can neither go on nor be over.
        """
        yield from self._advance()
        while self.running or not (self.is_stopping or self.scheduler.is_complete):
            if self.scheduler.check_for_interrupts():
                yield from self._interrupt()
            is_changed = False
            for running, message in self._receive():
                is_changed = is_changed or isinstance(message, Ended)
                yield from self._handle(running, message)
            yield from self._watch_clock()
            yield from self._reap()
            if is_changed or self._is_due() or not self.running:
                yield from self._advance()
        if self.error is not None:
            raise self.error
        if self.is_stopping and not self.scheduler.is_complete:
            yield DagsterEvent.engine_event(self.job_context, "Threads executor: all running steps have stopped")
            raise DagsterExecutionInterruptedError
        self.scheduler.check_whole()

    def _advance(self) -> Iterator[DagsterEvent]:
        """Settle the plan and start what is ready; make sure that something goes on."""
        if self.is_stopping:
            return
        yield from self.scheduler.settle(self.job_context)
        free = self.executor.max_concurrent - len(self.running)
        for step in self.scheduler.get_steps_to_execute(limit=free):
            self._start(step)
        yield from self.scheduler.concurrency_event_iterator(self.job_context)
        if not self.running:
            self.scheduler.check_alive()

    def _start(self, step: Any) -> None:
        known = self.scheduler.get_known_state()
        # A copy: the scheduler's own set grows while the step's thread reads it.
        known = known._replace(ready_outputs=set(known.ready_outputs))
        context = self.job_context.for_step(step, known)
        limit = step.tags.get(steps.TIMEOUT_TAG)
        running = RunningStep(step.key, context, float(limit) if limit else None)
        running.output = steps.step_output(self.job_context, context, running, self.messages)
        self.running[step.key] = running
        self.deadlines.begin(step.key, now=time.monotonic(), timeout_s=running.timeout_s)
        steps.start(running, self.messages)

    def _receive(self) -> Iterator[tuple[RunningStep, Message]]:
        """Wait for a message as long as nothing else can happen, then take all there are."""
        try:
            yield self.messages.get(timeout=self._wait_s())
            while True:
                yield self.messages.get_nowait()
        except Empty:
            return

    def _wait_s(self) -> float:
        waits = [POLL_S]
        retry_at, claim_s = self.scheduler.next_retry_at, self.pools.next_claim_s
        if retry_at is not None:
            waits.append(retry_at - time.time())
        if claim_s is not None:
            waits.append(claim_s)
        due_at = self.deadlines.next_at()
        if due_at is not None:
            # A thread that shares something is outside of it for moments only: look often.
            waits.append(max(due_at - time.monotonic(), RAISE_AGAIN_S))
        return max(0.005, min(waits))

    def _is_due(self) -> bool:
        claim_s = self.pools.next_claim_s
        return self.scheduler.is_retry_due or (claim_s is not None and claim_s <= 0)

    def _handle(self, running: RunningStep, message: Message) -> Iterator[DagsterEvent]:
        if running.is_abandoned:
            return
        if isinstance(message, Prints):
            yield DagsterEvent.capture_logs(self.job_context, [running.key], message.log_key, message.captured)
            return
        if isinstance(message, DagsterEvent):
            yield message
            if message.is_step_up_for_retry:
                # The next try must not start while the thread of this one still goes on.
                running.retry = message
            else:
                self.scheduler.handle_event(message)
            return
        self._forget(running)
        if message.error is not None and self.scheduler.is_in_flight(running.key):
            event = self.executor.log_failure_or_retry_event_after_error(
                self.job_context.for_step(running.context.step), message.error, self.scheduler.get_known_state()
            )
            yield event
            self.scheduler.handle_event(event)
        elif message.error is not None and not message.is_interrupt:
            self.is_stopping, self.error = True, message.exception
        self.scheduler.verify_complete(self.job_context, running.key)

    def _watch_clock(self) -> Iterator[DagsterEvent]:
        for key, what in self.deadlines.due(time.monotonic()):
            running = self.running[key]
            if what is Due.ASK:
                self._time_out(running)
            elif what is Due.LEAVE:
                yield from self._abandon(running)
            elif running.make_stop():
                self.deadlines.raised(key)

    def _time_out(self, running: RunningStep) -> None:
        assert running.timeout_s is not None
        grace_s = min(self.executor.stop_grace_s, TIMEOUT_GRACE_S)
        patience_s = self._patience_s(running)
        self.deadlines.ask(running.key, now=time.monotonic(), patience_s=patience_s, leave_s=patience_s + grace_s)
        running.ask_to_stop(steps.timed_out(running.key, running.timeout_s))

    def _patience_s(self, running: RunningStep) -> float:
        """Only a step that has looked for its token gets time before the exception."""
        return ASK_S if running.stop.is_watched else 0.0

    def _forget(self, running: RunningStep) -> None:
        del self.running[running.key]
        self.deadlines.end(running.key)
        if running.retry is not None:
            self.scheduler.handle_event(running.retry)

    def _abandon(self, running: RunningStep) -> Iterator[DagsterEvent]:
        """Fail a step whose thread does not stop; whatever it still logs is dropped."""
        running.is_abandoned = True
        running.context.log.disabled = True
        self._forget(running)
        if not self.scheduler.is_in_flight(running.key):
            return  # it has ended; only a hook of it hangs
        reason = running.reason()
        error = SerializableErrorInfo(
            message=f"{type(reason).__name__}: {reason}; its thread did not stop and was left behind\n",
            stack=[],
            cls_name=type(reason).__name__,
        )
        event = DagsterEvent.step_failure_event(
            step_context=self.job_context.for_step(running.context.step),
            step_failure_data=StepFailureData(error, None),  # type: ignore[no-untyped-call]
        )
        self.scheduler.handle_event(event)
        yield event

    def _interrupt(self) -> Iterator[DagsterEvent]:
        """First interrupt: ask every step to stop. Second: leave them all behind."""
        is_first, self.is_stopping = not self.is_stopping, True
        if is_first:
            yield DagsterEvent.engine_event(
                self.job_context,
                "Threads executor: received termination signal - stopping running steps",
                EngineEventData.interrupted(list(self.running)),
            )
        self.scheduler.mark_interrupted()
        leave_s = self.executor.stop_grace_s if is_first else 0.0
        for running in self.running.values():
            patience_s = self._patience_s(running) if is_first else 0.0
            if self.deadlines.ask(running.key, now=time.monotonic(), patience_s=patience_s, leave_s=leave_s):
                running.ask_to_stop(DagsterExecutionInterruptedError)

    def _reap(self) -> Iterator[DagsterEvent]:
        """Notice threads that ended without a word (stopped in their very last instruction)."""
        if not self.messages.empty():
            return
        for running in list(self.running.values()):
            if running.thread is not None and not running.thread.is_alive() and self.messages.empty():
                yield from self._handle(running, Ended())
