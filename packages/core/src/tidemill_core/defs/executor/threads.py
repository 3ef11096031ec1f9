"""`threads`: a Dagster executor that runs steps on threads of the run's own process.

A step costs no process start, so many small or waiting steps run close to their ideal
time. Everything semi-internal of Dagster that we need is imported in this file only.

Decisions (order, retries, skips, tag limits, priorities, pools) stay with Dagster's own
`ActiveExecution`; here are threads, faster pool claims, timeouts, cancelling, and the
trigger rules of DAG files. What a step does when it must stop:

* an exception is raised inside its thread at its next Python instruction, never while
  an event is being written;
* a thread that waits in C code (a socket, `time.sleep`) does not notice; after a grace
  period its step is marked failed, whatever the thread still writes to the log is
  dropped, and the thread is left behind as a daemon. It cannot be killed.
"""

import contextvars
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext, StepExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import _trigger_hook, dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.step_dependency_config import StepDependencyConfig, get_step_dependency_config_field
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_shared.error import SerializableErrorInfo

from tidemill_core.defs.executor.kept_connections import kept_connections
from tidemill_core.errors import ConfigError

TIMEOUT_TAG = "tidemill/timeout_s"
TRIGGER_TAG = "tidemill/trigger"
POLL_S = 0.2
CLAIM_FIRST_S = 0.1
CLAIM_LONGEST_S = 1.0
_NOT_WITHIN = (
    "/logging/",
    "/sqlalchemy/",
    "/dagster/_core/storage/",
    "/dagster/_core/instance/",
    "/dagster/_core/events/",
    "/kept_connections.py",
)
"""Code that holds locks which other threads need: no exception is raised in a thread inside it."""


def default_max_concurrent() -> int:
    """Threads of a run that names no number: steps mostly wait, so more than there are cores."""
    return max(8, 2 * (os.cpu_count() or 1))


@dg.executor(
    name="threads",
    config_schema={
        "max_concurrent": dg.Field(dg.Noneable(int), default_value=None, description="Steps that run at once."),
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "step_dependency_config": get_step_dependency_config_field(),  # type: ignore[no-untyped-call]
        "stop_grace_s": dg.Field(
            float, default_value=30.0, description="Seconds a step may take to stop before its thread is left behind."
        ),
    },
)
def threads_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Run steps on threads of the run's process.

    Resources are made once and shared by all steps, as with `in_process`. Use it as
    ``dg.Definitions(executor=threads_executor)``, on a job, or configured:
    ``threads_executor.configured({"max_concurrent": 20})``.
    """
    config: Mapping[str, Any] = context.executor_config
    retries = RetryMode.from_config(config["retries"])
    assert retries is not None
    return ThreadsExecutor(
        retries=retries,
        max_concurrent=config.get("max_concurrent") or default_max_concurrent(),
        tag_concurrency_limits=config.get("tag_concurrency_limits"),
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
        stop_grace_s=config["stop_grace_s"],
    )


def executor_by_name(
    name: str, max_concurrent: int | None = None, tag_limits: Sequence[Mapping[str, Any]] = ()
) -> dg.ExecutorDefinition:
    """Choose an executor by the name that settings and DAG files use.

    Args:
        name: ``in_process``, ``threads``, ``multiprocess``, ``celery`` or ``k8s``.
        max_concurrent: Steps at once; `in_process` and `celery` have no such limit.
        tag_limits: Mappings of ``key``, perhaps ``value``, and ``limit``.

    Raises:
        ConfigError: No such executor, or its package is not installed.
    """
    config: dict[str, Any] = {"max_concurrent": max_concurrent} if max_concurrent else {}
    if tag_limits:
        config["tag_concurrency_limits"] = [dict(each) for each in tag_limits]
    if name == "in_process":
        return dg.in_process_executor
    if name == "threads":
        return threads_executor.configured(config, name="threads") if config else threads_executor
    if name == "multiprocess":
        return dg.multiprocess_executor.configured(config, name="multiprocess") if config else dg.multiprocess_executor
    packages = {"celery": ("dagster_celery", "celery_executor"), "k8s": ("dagster_k8s", "k8s_job_executor")}
    if name not in packages:
        raise ConfigError(f"unknown executor {name!r}; known: in_process, threads, multiprocess, celery, k8s")
    module, attribute = packages[name]
    try:
        found: dg.ExecutorDefinition = getattr(__import__(module), attribute)
    except ImportError as error:
        raise ConfigError(f"executor {name!r} needs the package {module.replace('_', '-')}: {error}") from error
    return found.configured(config, name=found.name) if config and name == "k8s" else found


class StepTimedOut(Exception):
    """A step took longer than its `tidemill/timeout_s` tag allows."""


@dataclass(slots=True, eq=False)
class _Running:
    """One try of a step on its thread."""

    key: str
    context: StepExecutionContext
    timeout_s: float | None
    started: float = field(default_factory=time.monotonic)
    thread: threading.Thread | None = None
    reason: type[BaseException] | None = None
    """Raised in the thread, once it is time to stop."""
    is_raised: bool = False
    give_up_at: float | None = None
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    """A thread is done with its step; `error` is set if an exception escaped."""

    error: SerializableErrorInfo | None = None
    is_interrupt: bool = False
    exception: BaseException | None = None


class ThreadsExecutor(dg.Executor):
    """The executor behind `threads_executor`."""

    def __init__(
        self,
        *,
        retries: RetryMode,
        max_concurrent: int,
        tag_concurrency_limits: list[dict[str, Any]] | None = None,
        step_dependency_config: StepDependencyConfig | None = None,
        stop_grace_s: float = 30.0,
    ) -> None:
        self._retries = retries
        self._step_dependency_config = step_dependency_config or StepDependencyConfig.default()
        self.max_concurrent = max_concurrent
        self.tag_concurrency_limits = tag_concurrency_limits or []
        self.stop_grace_s = stop_grace_s

    @property
    def retries(self) -> RetryMode:
        """Whether steps are tried again."""
        return self._retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """Whether a step waits for upstream steps, or only for their outputs."""
        return self._step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Run all steps of the plan; yields every event, each already in the event log."""
        pid, keys = os.getpid(), execution_plan.step_keys_to_execute
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps on up to {self.max_concurrent} threads (pid: {pid})",
            EngineEventData.in_process(pid, keys),
        )
        started = time.monotonic()
        yield from ExecuteRunWithPlanIterable(
            execution_plan=execution_plan,
            iterator=self._run_steps,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )
        yield DagsterEvent.engine_event(
            plan_context,
            f"Finished steps on threads (pid: {pid}) in {time.monotonic() - started:.2f} s",
            EngineEventData.in_process(pid, keys),
        )

    def _run_steps(self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        with ExitStack() as stack:
            stack.enter_context(kept_connections(job_context.instance))
            pools = stack.enter_context(_Pools(job_context.instance, job_context.dagster_run))
            active = stack.enter_context(
                _TriggeredExecution(
                    execution_plan,
                    retry_mode=self.retries,
                    max_concurrent=self.max_concurrent,
                    tag_concurrency_limits=self.tag_concurrency_limits,
                    instance_concurrency_context=pools,
                    step_dependency_config=self.step_dependency_config,
                )
            )
            yield from _capture_logs(stack, job_context, execution_plan)
            yield from _Loop(self, job_context, active, pools).run()


class _Loop:
    """Starts steps, takes their events from the threads, and watches the clock."""

    def __init__(
        self, executor: ThreadsExecutor, job_context: PlanExecutionContext, active: ActiveExecution, pools: "_Pools"
    ) -> None:
        self.executor, self.job_context, self.active, self.pools = executor, job_context, active, pools
        self.running: dict[str, _Running] = {}
        self.messages: SimpleQueue[tuple[_Running, DagsterEvent | _Ended]] = SimpleQueue()
        self.is_stopping = False
        self.error: BaseException | None = None

    def run(self) -> Iterator[DagsterEvent]:
        """Run until every step has ended, or until the run is interrupted."""
        is_changed = True
        while self.running or not (self.is_stopping or self.active.is_complete):
            if self.active.check_for_interrupts():
                yield from self._interrupt()
            if not self.is_stopping and (is_changed or self._is_due()):
                yield from self.active.plan_events_iterator(self.job_context)
                yield from self._start_ready()
            is_changed = False
            for running, message in self._receive():
                is_changed = is_changed or isinstance(message, _Ended)
                yield from self._handle(running, message)
            yield from self._watch_clock()
            yield from self._reap()
        if self.error is not None:
            raise self.error
        if self.is_stopping and not self.active.is_complete:
            yield DagsterEvent.engine_event(self.job_context, "Threads executor: all running steps have stopped")
            raise DagsterExecutionInterruptedError

    def _start_ready(self) -> Iterator[DagsterEvent]:
        for step in self.active.get_steps_to_execute(limit=self.executor.max_concurrent - len(self.running)):
            known = self.active.get_known_state()
            known = known._replace(ready_outputs=set(known.ready_outputs))
            context = self.job_context.for_step(step, known)
            limit = step.tags.get(TIMEOUT_TAG)
            running = _Running(step.key, context, float(limit) if limit else None)
            work = contextvars.copy_context().run
            running.thread = threading.Thread(
                target=work, args=(_work, running, self.messages), name=f"step {step.key}", daemon=True
            )
            self.running[step.key] = running
            running.thread.start()
        yield from self.active.concurrency_event_iterator(self.job_context)

    def _receive(self) -> Iterator[tuple[_Running, DagsterEvent | _Ended]]:
        """Wait for a message as long as nothing else can happen, then take all there are."""
        try:
            yield self.messages.get(timeout=self._wait_s())
            while True:
                yield self.messages.get_nowait()
        except Empty:
            return

    def _wait_s(self) -> float:
        waits = [POLL_S]
        if self.active._waiting_to_retry:  # noqa: SLF001 - there is no public question for it
            waits.append(min(self.active._waiting_to_retry.values()) - time.time())  # noqa: SLF001 - as above
        if self.pools.has_pending_claims():
            waits.append(self.pools.next_claim_s())
        now = time.monotonic()
        waits += [each.started + each.timeout_s - now for each in self.running.values() if each.timeout_s]
        return max(0.005, min(waits))

    def _is_due(self) -> bool:
        retries = self.active._waiting_to_retry.values()  # noqa: SLF001 - as above
        return any(at <= time.time() for at in retries) or (
            self.pools.has_pending_claims() and self.pools.next_claim_s() <= 0
        )

    def _handle(self, running: _Running, message: "DagsterEvent | _Ended") -> Iterator[DagsterEvent]:
        if running.is_abandoned:
            return
        if isinstance(message, DagsterEvent):
            yield message
            self.active.handle_event(message)
            return
        del self.running[running.key]
        if message.error is not None and running.key in self.active._in_flight:  # noqa: SLF001 - no public question
            event = self.executor.log_failure_or_retry_event_after_error(
                self.job_context.for_step(running.context.step), message.error, self.active.get_known_state()
            )
            yield event
            self.active.handle_event(event)
        elif message.error is not None and not message.is_interrupt:
            self.is_stopping, self.error = True, message.exception
        self.active.verify_complete(self.job_context, running.key)

    def _watch_clock(self) -> Iterator[DagsterEvent]:
        now = time.monotonic()
        for running in list(self.running.values()):
            if running.reason is None and running.timeout_s and now > running.started + running.timeout_s:
                running.reason = _timed_out(running)
                running.give_up_at = now + min(self.executor.stop_grace_s, 5.0)
            if running.reason is not None and not running.is_raised:
                running.is_raised = _raise_in(running.thread, running.reason)
            if running.give_up_at is not None and now > running.give_up_at:
                yield self._abandon(running)

    def _abandon(self, running: _Running) -> DagsterEvent:
        """Fail a step whose thread does not stop; whatever it still logs is dropped."""
        running.is_abandoned = True
        running.context.log.disabled = True
        del self.running[running.key]
        reason = running.reason() if running.reason else DagsterExecutionInterruptedError()
        error = SerializableErrorInfo(
            message=f"{type(reason).__name__}: {reason}; its thread did not stop and was left behind\n",
            stack=[],
            cls_name=type(reason).__name__,
        )
        event = DagsterEvent.step_failure_event(
            step_context=self.job_context.for_step(running.context.step),
            step_failure_data=StepFailureData(error, None),  # type: ignore[no-untyped-call]
        )
        self.active.handle_event(event)
        return event

    def _interrupt(self) -> Iterator[DagsterEvent]:
        """First interrupt: ask every step to stop. Second: leave them all behind."""
        give_up_at = time.monotonic() + (0 if self.is_stopping else self.executor.stop_grace_s)
        if not self.is_stopping:
            yield DagsterEvent.engine_event(
                self.job_context,
                "Threads executor: received termination signal - stopping running steps",
                EngineEventData.interrupted(list(self.running)),
            )
        self.is_stopping = True
        self.active.mark_interrupted()
        for running in self.running.values():
            running.reason = running.reason or DagsterExecutionInterruptedError
            running.give_up_at = give_up_at

    def _reap(self) -> Iterator[DagsterEvent]:
        """Notice threads that ended without a word (stopped in their very last instruction)."""
        if not self.messages.empty():
            return
        for running in list(self.running.values()):
            if running.thread is not None and not running.thread.is_alive() and self.messages.empty():
                yield from self._handle(running, _Ended())


class _TriggeredExecution(ActiveExecution):
    """Dagster's bookkeeping, and the trigger rules `all_done` and `one_failed` of DAG files."""

    def __init__(self, execution_plan: ExecutionPlan, **options: Any) -> None:
        tagged = {step.key: step.tags.get(TRIGGER_TAG) for step in execution_plan.get_steps_to_execute_in_topo_order()}
        self._triggers: Mapping[str, str] = {key: rule for key, rule in tagged.items() if rule}
        super().__init__(execution_plan, **options)

    def _update(self) -> None:
        if self._triggers:
            self._decide_triggers()
        super()._update()

    def _decide_triggers(self) -> None:
        failed = self._failed | self._abandoned
        ended = failed | self._success | self._skipped
        for key in [key for key in self._triggers if key in self._pending]:
            needed = self._pending[key]
            if self._triggers[key] == "one_failed" and not needed & failed:
                if needed <= ended:
                    self._skipped_deps[key] = ["none of the needed steps failed"]
                    self._pending_skip.append(key)
                    del self._pending[key]
            elif needed <= ended or self._triggers[key] == "one_failed":
                self._executable.append(key)
                del self._pending[key]


class _Pools(InstanceConcurrencyContext):
    """Dagster's pool claims, asked for again as soon as this run frees a slot."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        super().__init__(instance, run)
        self._waiting: dict[str, dict[str, int]] = {}
        self._pool_of: dict[str, str] = {}

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Ask for a slot; a refused step asks again after 0.1 s, later up to 1 s."""
        asked = self._pending_claim_counts[step_key]
        is_claimed = super().claim(concurrency_key, step_key, step_priority)
        waiting = self._waiting.setdefault(concurrency_key, {})
        if is_claimed:
            waiting.pop(step_key, None)
            self._pool_of[step_key] = concurrency_key
        elif self._pending_claim_counts[step_key] > asked:
            longest = CLAIM_LONGEST_S * max(1.0, len(waiting) / 50)
            self._pending_timeouts[step_key] = time.time() + min(longest, CLAIM_FIRST_S * 1.2**asked)
            waiting[step_key] = step_priority
        return is_claimed

    def free_step(self, step_key: str) -> None:
        """Give a slot back and let the next step of this run ask at once."""
        super().free_step(step_key)
        waiting = self._waiting.get(self._pool_of.get(step_key, ""), {})
        if waiting:
            first = max(waiting, key=waiting.__getitem__)
            self._pending_timeouts[first] = 0.0

    def next_claim_s(self) -> float:
        """Seconds until a refused step may ask again."""
        return min(self._pending_timeouts.values(), default=0.0) - time.time()


def _work(running: _Running, messages: "SimpleQueue[tuple[_Running, DagsterEvent | _Ended]]") -> None:
    """Run one step on this thread; everything that happens goes to the loop."""
    ended = _Ended()
    try:
        events = []
        for event in dagster_event_sequence_for_step(running.context):
            if running.is_abandoned:
                return
            events.append(event)
            messages.put((running, event))
        for event in _trigger_hook(running.context, events):
            messages.put((running, event))
    except BaseException as error:  # noqa: BLE001 - the loop decides; nothing may end a thread silently
        is_interrupt = isinstance(error, DagsterExecutionInterruptedError | KeyboardInterrupt)
        ended = _Ended(serializable_error_info_from_exc_info(sys.exc_info()), is_interrupt, error)
    finally:
        messages.put((running, ended))


def _timed_out(running: _Running) -> type[BaseException]:
    """Make the exception for one step; only a class can be raised in another thread."""
    text = f"step {running.key} took longer than its {running.timeout_s:g} s"

    def init(self: TimeoutError) -> None:
        TimeoutError.__init__(self, text)

    return type("StepTimedOut", (StepTimedOut, TimeoutError), {"__init__": init})


def _raise_in(thread: threading.Thread | None, reason: type[BaseException]) -> bool:
    """Raise `reason` in a thread at its next Python instruction; False while it logs or writes an event."""
    if thread is None or thread.ident is None:
        return False
    time.sleep(0)  # a fresh time slice, so that the thread stands still between the look and the raise
    frame = sys._current_frames().get(thread.ident)  # noqa: SLF001 - the documented way to see another thread
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in _NOT_WITHIN):
            return False
        frame = frame.f_back
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(reason))
    return True


def _capture_logs(
    stack: ExitStack, job_context: PlanExecutionContext, execution_plan: ExecutionPlan
) -> Iterator[DagsterEvent]:
    """Capture stdout and stderr of the process for the whole run, as `in_process` does."""
    manager = job_context.instance.compute_log_manager
    keys = [step.key for step in execution_plan.get_steps_to_execute_in_topo_order()]
    file_key = create_compute_log_file_key()  # type: ignore[no-untyped-call]
    log_key = manager.build_log_key_for_run(job_context.run_id, file_key)
    try:
        captured = stack.enter_context(manager.capture_logs(log_key))
        yield DagsterEvent.capture_logs(job_context, keys, log_key, captured)
    except Exception:  # noqa: BLE001 - a run must not fail because its output cannot be kept
        error = serializable_error_info_from_exc_info(sys.exc_info())
        yield DagsterEvent.engine_event(
            job_context, "Exception while setting up compute log capture", EngineEventData(error=error)
        )
