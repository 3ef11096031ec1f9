"""Follow the event log from cursors: each run, step, materialization and check result is counted once."""

import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

import dagster as dg
from dagster import DagsterEventType as Type
from dagster import EventLogRecord
from dagster._core.event_api import EventRecordsFilter, RunStatusChangeRecordsFilter
from dagster._core.storage.dagster_run import RunRecord, RunsFilter
from dagster._core.storage.tags import PARENT_RUN_ID_TAG

from tidemill_core.defs.metrics.families import Families

ENDED = {Type.RUN_SUCCESS: "success", Type.RUN_FAILURE: "failure", Type.RUN_CANCELED: "canceled"}
RUN_TYPES = (Type.RUN_ENQUEUED, Type.RUN_STARTING, *ENDED)
DETAILS = {
    Type.STEP_START: "",
    Type.STEP_RESTARTED: "",
    Type.STEP_SUCCESS: "success",
    Type.STEP_FAILURE: "failure",
    Type.STEP_SKIPPED: "skipped",
    Type.STEP_UP_FOR_RETRY: "",
    Type.ASSET_CHECK_EVALUATION: "",
}
PAGE = 200
_REMEMBERED = 20_000
_MAX_DETAILS = 5_000
_DETAIL_TRIES = 3
_DYNAMIC = re.compile(r"\[[^\]]*\]")


class EventFollower:
    """Reads new events of an instance into metrics.

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
        self._since = since
        self._cursors: dict[Type, int] = {}
        self._queued: OrderedDict[str, float] = OrderedDict()
        self._detail: deque[tuple[str, str, int]] = deque()

    def follow(self, deadline: float) -> bool:
        """Read page after page, at least one, until nothing is new or `deadline` (monotonic) has passed.

        Returns:
            True if everything was read.
        """
        while True:
            more = self._runs()
            more = self._materializations() or more
            while self._detail and time.monotonic() < deadline:
                self._next_details()
            if not more or time.monotonic() > deadline:
                return not more and not self._detail

    def _runs(self) -> bool:
        """Count one page of run status changes; True if there may be more."""
        if len(self._detail) > _MAX_DETAILS:
            return True  # the details of runs already counted come first
        pages = {kind: self._page(kind) for kind in RUN_TYPES}
        full = [page[-1].storage_id for page in pages.values() if len(page) == PAGE]
        horizon = min(full, default=None)
        events = sorted((each for page in pages.values() for each in page), key=lambda each: each.storage_id)
        settled = self._settled(events, horizon)
        records = self._records(settled)
        for event in settled:
            self._run_event(event, records.get(event.run_id))
        for kind in RUN_TYPES:
            seen = [each.storage_id for each in settled if _type(each) is kind]
            self._cursors[kind] = max(seen, default=self._cursors[kind])
        return horizon is not None and bool(settled)

    def _page(self, kind: Type) -> Sequence[EventLogRecord]:
        return self._read(kind, after=self._cursor(kind), limit=PAGE)

    def _cursor(self, kind: Type) -> int:
        if kind not in self._cursors:
            self._cursors[kind] = first_after(lambda after: self._read(kind, after=after, limit=1), self._since)
        return self._cursors[kind]

    def _read(self, kind: Type, *, after: int, limit: int) -> Sequence[EventLogRecord]:
        if kind is Type.ASSET_MATERIALIZATION:
            chosen = EventRecordsFilter(event_type=kind, after_cursor=after)
            return self.instance.event_log_storage.get_event_records(chosen, limit=limit, ascending=True)
        changes = RunStatusChangeRecordsFilter(event_type=kind, after_storage_id=after)  # type: ignore[arg-type]
        return self.instance.fetch_run_status_changes(changes, limit=limit, ascending=True).records

    def _settled(self, events: Sequence[EventLogRecord], horizon: int | None) -> list[EventLogRecord]:
        """Take events in order, up to the horizon and to the first that is too young."""
        youngest = time.time() - self.settle_s
        taken = []
        for event in events:
            if event.timestamp > youngest or (horizon is not None and event.storage_id > horizon):
                break
            taken.append(event)
        return taken

    def _records(self, events: Iterable[EventLogRecord]) -> dict[str, RunRecord]:
        ids = [each.run_id for each in events if _type(each) in ENDED]
        if not ids:
            return {}
        records = self.instance.get_run_records(RunsFilter(run_ids=ids))
        return {each.dagster_run.run_id: each for each in records}

    def _run_event(self, event: EventLogRecord, record: RunRecord | None) -> None:
        kind, job = _type(event), event.event_log_entry.job_name or ""
        if kind is Type.RUN_ENQUEUED:
            self._queued[event.run_id] = event.timestamp
            if len(self._queued) > _REMEMBERED:
                self._queued.popitem(last=False)
            return
        queued = self._queued.pop(event.run_id, None)
        if kind is Type.RUN_STARTING:
            if queued is not None and not is_hidden(job):
                self.families.queue_seconds.at(job).observe(max(0.0, event.timestamp - queued))
            return
        self._detail.append((event.run_id, job, 0))
        if is_hidden(job):
            return
        status = ENDED[kind]
        self.families.runs.at(job, status).inc()
        if record is not None and PARENT_RUN_ID_TAG in record.dagster_run.tags:
            self.families.run_retries.at(job).inc()
        if record is not None and record.start_time and record.end_time:
            self.families.run_seconds.at(job, status).observe(max(0.0, record.end_time - record.start_time))

    def _materializations(self) -> bool:
        kind = Type.ASSET_MATERIALIZATION
        page = self._page(kind)
        settled = self._settled(page, None)
        for event in settled:
            if event.asset_key is not None:
                name = event.asset_key.to_user_string()
                self.families.materializations.at(name).inc()
                self.materialized[name] = max(event.timestamp, self.materialized.get(name, 0.0))
            self._cursors[kind] = event.storage_id
        return len(settled) == PAGE

    def _next_details(self) -> None:
        """Count the details of the next run; one that cannot be read is tried again after the others."""
        run_id, job, tries = self._detail.popleft()
        try:
            self._run_details(run_id, job)
        except Exception:
            if tries < _DETAIL_TRIES - 1:
                self._detail.append((run_id, job, tries + 1))
            raise

    def _run_details(self, run_id: str, job: str) -> None:
        """Count the steps and check results of one run that ended."""
        cursor: str | None = None
        events: list[EventLogRecord] = []
        while True:
            page = self.instance.get_records_for_run(run_id, cursor=cursor, of_type=set(DETAILS), limit=1000)
            events += page.records
            cursor = page.cursor
            if not page.has_more:
                break
        started: dict[str, float] = {}
        for event in events:
            if _type(event) is Type.ASSET_CHECK_EVALUATION:
                self._check(event)
            elif not is_hidden(job):
                self._step(event, job, started)

    def _step(self, event: EventLogRecord, job: str, started: dict[str, float]) -> None:
        kind, key = _type(event), event.event_log_entry.step_key or ""
        step = _DYNAMIC.sub("", key)
        if kind in {Type.STEP_START, Type.STEP_RESTARTED}:
            started[key] = event.timestamp
            if kind is Type.STEP_RESTARTED:
                self.families.step_retries.at(job, step).inc()
        elif DETAILS[kind]:
            self.families.steps.at(job, step, DETAILS[kind]).inc()
            if key in started:
                self.families.step_seconds.at(job, step).observe(max(0.0, event.timestamp - started.pop(key)))

    def _check(self, event: EventLogRecord) -> None:
        assert event.event_log_entry.dagster_event is not None
        evaluation = event.event_log_entry.dagster_event.asset_check_evaluation_data
        asset, check = evaluation.asset_key.to_user_string(), evaluation.check_name
        result = "passed" if evaluation.passed else evaluation.severity.value.lower()
        self.families.checks.at(asset, check, result).inc()
        self.families.check_passed.at(asset, check).set(float(evaluation.passed))


def is_hidden(job: str) -> bool:
    """Tell whether Dagster made the job itself (``__ASSET_JOB``), or the event has none."""
    return not job or job.startswith("__")


def first_after(read_one: Callable[[int], Sequence[EventLogRecord]], since: float) -> int:
    """Find the cursor whose next event is the first after `since`, by bisection.

    Args:
        read_one: Reads the first event after a cursor, if there is one.
        since: Seconds since the epoch; events are taken to be in order of time.

    Returns:
        0 if every event is after `since`.
    """
    first = read_one(0)
    if not first or first[0].timestamp > since:
        return 0
    low, high = first[0].storage_id, 2 * first[0].storage_id
    while (found := read_one(high)) and found[0].timestamp <= since:
        low, high = found[0].storage_id, 2 * found[0].storage_id
    while high - low > 1:
        middle = (low + high) // 2
        found = read_one(middle)
        if found and found[0].timestamp <= since:
            low = found[0].storage_id
            high = max(high, low)
        else:
            high = middle
    return low


def _type(event: EventLogRecord) -> Type:
    kind = event.event_log_entry.dagster_event_type
    assert kind is not None
    return kind
