"""Follow the event log from one cursor: each run, step, materialization and check result is counted once."""

import re
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

import dagster as dg
from dagster import DagsterEventType as Type
from dagster import EventLogEntry

from tidemill_core.defs._dagster import PARENT_RUN_ID_TAG, RunsFilter, SqliteEventLogStorage
from tidemill_core.defs.metrics.families import Families

RUNS_ENDED = {Type.RUN_SUCCESS: "success", Type.RUN_FAILURE: "failure", Type.RUN_CANCELED: "canceled"}
STEPS_ENDED = {Type.STEP_SUCCESS: "success", Type.STEP_FAILURE: "failure", Type.STEP_SKIPPED: "skipped"}
STEP_TYPES = {Type.STEP_START, Type.STEP_RESTARTED, Type.STEP_OUTPUT, *STEPS_ENDED}
OTHER_TYPES = {
    *(Type.RUN_ENQUEUED, Type.RUN_STARTING, Type.RUN_START, *RUNS_ENDED),
    *(Type.ASSET_MATERIALIZATION, Type.ASSET_CHECK_EVALUATION),
}
PAGE = 1000
_REMEMBERED = 20_000
_MAX_DETAILS = 5_000
_DETAIL_TRIES = 3
_DYNAMIC = re.compile(r"\[[^\]]*\]")


class Moments(OrderedDict[tuple[str, str], float]):
    """When things began, by run and step; the oldest are forgotten where too many never end."""

    def begin(self, run_id: str, step: str, moment: float) -> None:
        """Remember a beginning."""
        self[run_id, step] = moment
        if len(self) > _REMEMBERED:
            self.popitem(last=False)

    def end(self, run_id: str, step: str, moment: float) -> float | None:
        """Forget a beginning and give the seconds since, None if it is not known."""
        began = self.pop((run_id, step), None)
        return None if began is None else max(0.0, moment - began)


class EventFollower:
    """Reads new events of an instance into metrics.

    SQLite storage keeps the events of steps in a file per run, which is read when the run
    has ended; every other event, and with PostgreSQL steps too, comes in the order of the log.

    Args:
        instance: What is followed.
        families: Where it is counted.
        since: Begin with the events after this time (seconds since the epoch).
        settle_s: Leave events younger than this for the next turn: a database may commit
            an event after one with a higher number.
    """

    def __init__(
        self, instance: dg.DagsterInstance, families: Families, *, since: float, settle_s: float = 1.0
    ) -> None:
        self.instance, self.families = instance, families
        self.settle_s = settle_s
        self.materialized: dict[str, float] = {}
        self._storage = instance.event_log_storage
        self._has_run_files = isinstance(self._storage, SqliteEventLogStorage)
        self._types = OTHER_TYPES if self._has_run_files else OTHER_TYPES | STEP_TYPES
        self._since = since
        self._cursor: int | None = None
        self._queued, self._runs, self._steps, self._outputs = Moments(), Moments(), Moments(), Moments()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._detail: deque[tuple[str, int]] = deque()

    def follow(self, deadline: float) -> bool:
        """Read page after page, at least one, until nothing is new or `deadline` (monotonic) has passed.

        Returns:
            True if everything was read.
        """
        while True:
            more = len(self._detail) > _MAX_DETAILS or self._page()
            while self._detail and time.monotonic() < deadline:
                self._next_details()
            if not more or time.monotonic() > deadline:
                return not more and not self._detail

    def _page(self) -> bool:
        """Count one page of events; True if there may be more."""
        if self._cursor is None:
            self._cursor = first_after(lambda after: self._read(after, 1, None), self._since)
        page = self._read(self._cursor, PAGE, self._types)
        youngest = time.time() - self.settle_s
        settled: dict[int, EventLogEntry] = {}
        for number, event in page.items():
            if event.timestamp > youngest:
                break
            settled[number] = event
        retries = self._retries(settled)
        for number, event in settled.items():
            self._count(event, retries)
            self._cursor = number
        return len(settled) == PAGE

    def _read(self, after: int, limit: int, types: set[Type] | None) -> Mapping[int, EventLogEntry]:
        with warnings.catch_warnings():
            # One query for several types is what makes this cheap; a query per type would cost a connection each.
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._storage.get_logs_for_all_runs_by_log_id(after, types, limit)

    def _retries(self, events: Mapping[int, EventLogEntry]) -> set[str]:
        """Find which of the runs that ended here were retries of another."""
        ids = [each.run_id for each in events.values() if each.dagster_event_type in RUNS_ENDED]
        if not ids:
            return set()
        runs = self.instance.get_runs(RunsFilter(run_ids=ids))
        return {each.run_id for each in runs if PARENT_RUN_ID_TAG in each.tags}

    def _count(self, event: EventLogEntry, retries: set[str]) -> None:
        kind = event.dagster_event_type
        if kind is Type.ASSET_MATERIALIZATION:
            self._materialization(event)
        elif kind is Type.ASSET_CHECK_EVALUATION:
            self._check(event)
        elif kind in RUNS_ENDED:
            self._run_ended(event, RUNS_ENDED[kind], is_retry=event.run_id in retries)
        elif not is_hidden(event.job_name):
            self._run_or_step(event)

    def _run_or_step(self, event: EventLogEntry) -> None:
        kind, job = event.dagster_event_type, event.job_name or ""
        if kind is Type.RUN_ENQUEUED:
            self._queued.begin(event.run_id, "", event.timestamp)
        elif kind is Type.RUN_STARTING:
            waited = self._queued.end(event.run_id, "", event.timestamp)
            if waited is not None:
                self.families.queue_seconds.at(job).observe(waited)
        elif kind is Type.RUN_START:
            self._runs.begin(event.run_id, "", event.timestamp)
        else:
            self._step(event)

    def _run_ended(self, event: EventLogEntry, status: str, *, is_retry: bool) -> None:
        if is_hidden(event.job_name) or self._has_ended_before(event):
            return
        job = event.job_name or ""
        self.families.runs.at(job, status).inc()
        self._queued.pop((event.run_id, ""), None)
        took = self._runs.end(event.run_id, "", event.timestamp)
        if took is not None:
            self.families.run_seconds.at(job, status).observe(took)
        if is_retry:
            self.families.run_retries.at(job).inc()
        if self._has_run_files:
            self._detail.append((event.run_id, 0))

    def _has_ended_before(self, event: EventLogEntry) -> bool:
        """Tell whether this is not the first end of its run.

        A run that fails while it is being cancelled, or that run monitoring and its own process both
        report, has several; the first one decides.
        """
        run_id = event.run_id
        if run_id in self._ended:
            return True
        self._ended[run_id] = None
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if (run_id, "") in self._runs:
            return False
        # We have not seen it start, so it may have ended before we looked for the first time.
        page = self._storage.get_records_for_run(run_id, of_type=set(RUNS_ENDED), limit=1)
        return any(each.event_log_entry.timestamp < event.timestamp for each in page.records)

    def _next_details(self) -> None:
        """Count the steps of the next run; one that cannot be read is tried again after the others."""
        run_id, tries = self._detail.popleft()
        try:
            cursor: str | None = None
            events: list[EventLogEntry] = []
            has_more = True
            while has_more:
                page = self._storage.get_records_for_run(run_id, cursor=cursor, of_type=STEP_TYPES, limit=PAGE)
                events += (each.event_log_entry for each in page.records)
                cursor, has_more = page.cursor, page.has_more
        except Exception:  # kept for another try, and raised again
            if tries < _DETAIL_TRIES - 1:
                self._detail.append((run_id, tries + 1))
            raise
        for event in events:
            self._step(event)

    def _step(self, event: EventLogEntry) -> None:
        kind, job, key = event.dagster_event_type, event.job_name or "", event.step_key or ""
        step = _DYNAMIC.sub("", key)
        if kind is Type.STEP_OUTPUT:
            self._outputs.begin(event.run_id, key, event.timestamp)
            return
        if kind not in STEPS_ENDED:
            self._steps.begin(event.run_id, key, event.timestamp)
            if kind is Type.STEP_RESTARTED:
                self.families.step_retries.at(job, step).inc()
            return
        has_output = self._outputs.end(event.run_id, key, event.timestamp) is not None
        status = STEPS_ENDED[kind]
        # A task of a DAG file whose condition is false succeeds without output: Dagster has no other way to skip.
        if status == "success" and not has_output and key.startswith(f"{job}__"):
            status = "skipped"
        self.families.steps.at(job, step, status).inc()
        took = self._steps.end(event.run_id, key, event.timestamp)
        if took is not None:
            self.families.step_seconds.at(job, step).observe(took)

    def _materialization(self, event: EventLogEntry) -> None:
        asset_key = event.dagster_event.asset_key if event.dagster_event else None
        if asset_key is not None:
            name = asset_key.to_user_string()
            self.families.materializations.at(name).inc()
            self.materialized[name] = max(event.timestamp, self.materialized.get(name, 0.0))

    def _check(self, event: EventLogEntry) -> None:
        assert event.dagster_event is not None
        evaluation = event.dagster_event.asset_check_evaluation_data
        asset, check = evaluation.asset_key.to_user_string(), evaluation.check_name
        result = "passed" if evaluation.passed else evaluation.severity.value.lower()
        self.families.checks.at(asset, check, result).inc()
        self.families.check_passed.at(asset, check).set(float(evaluation.passed))


def is_hidden(job: str | None) -> bool:
    """Tell whether Dagster made the job itself (``__ASSET_JOB``), or the event has none."""
    return not job or job.startswith("__")


def first_after(read_one: Callable[[int], Mapping[int, EventLogEntry]], since: float) -> int:
    """Find the cursor whose next event is the first after `since`, by bisection.

    Args:
        read_one: Reads the first event after a cursor, by its number, if there is one.
        since: Seconds since the epoch; events are taken to be in order of time.

    Returns:
        0 if every event is after `since`.
    """

    def before(after: int) -> int | None:
        for number, event in read_one(after).items():
            return number if event.timestamp <= since else None
        return None

    low, step = 0, 1
    while (found := before(low + step)) is not None or (low == 0 and (found := before(0)) is not None):
        low, step = found, step * 2
    high = low + step
    while low < high:
        found = before((low + high) // 2)
        if found is None:
            high = (low + high) // 2
        else:
            low = found
    return low
