"""Work off the jobs: threads that claim, run and finish them, and stop at a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event, Lock, Thread

from tidemill_core.errors import PermanentError, TidemillError, TransientError
from tidemill_core.lifecycle import Stopped, StopToken
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage import open_store
from tidemill_core.telemetry import get_logger

from tidemill_sync.config import ServeConfig, SyncConfig
from tidemill_sync.engine import sync, sync_keys
from tidemill_sync.errors import SyncError
from tidemill_sync.events import DirtyKey, under
from tidemill_sync.jobs import Job, JobStore
from tidemill_sync.result import SyncResult

log = get_logger(__name__)
_MOST_TRIES = 10
_IDLE_S = 1.0
_BACKOFF = RetryPolicy(delay_s=1, factor=2, max_delay_s=300)


class PlaceRefused(SyncError, PermanentError):
    """The service may not read or write there."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"this service may not touch {url}; start it with --allow for a URL above it")


class SyncService:
    """Runs the jobs of a store in background threads.

    Args:
        config: The service's configuration.
        store: The queue; default the configured database.
    """

    def __init__(self, config: ServeConfig, store: JobStore | None = None) -> None:
        self.config = config
        self.store = store or JobStore(config.database)
        self._stop = StopToken()
        self._work = Event()
        self._running: dict[str, StopToken] = {}
        self._cancelled: set[str] = set()
        self._lock = Lock()
        self._threads: list[Thread] = []

    def start(self) -> None:
        """Take up what an earlier service left, and begin to work."""
        if found := self.store.recover():
            log.info("jobs_recovered", jobs=found)
        for number in range(self.config.runs_at_once):
            thread = Thread(target=self._loop, name=f"sync-job-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop after the objects in flight; unfinished jobs stay queued for the next start."""
        self._stop.set("service stops")
        self._work.set()
        with self._lock:
            for token in self._running.values():
                token.set("service stops")
        for thread in self._threads:
            thread.join(timeout=60)
        self.store.close()

    def is_alive(self) -> bool:
        """Whether every worker still runs."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def submit(self, config: SyncConfig) -> Job:
        """Queue a mirror.

        Raises:
            PlaceRefused: Source or target lies outside the allowed places, or a manifest or change log was named.
        """
        if config.manifest is not None:
            raise PlaceRefused("a manifest of the caller's choice")
        if config.change_log is not None:
            raise PlaceRefused("a change log of the caller's choice")
        for url in (config.source, config.target):
            check_allowed(url, self.config.allow)
        job = self.store.add(config)
        self._work.set()
        return job

    def dirty(self, keys: Iterable[DirtyKey]) -> list[Job]:
        """Queue the keys that configured mirrors care for."""
        found = list(keys)
        jobs = []
        for mirror in self.config.mirrors:
            mine = sorted(set(under(found, open_store(mirror.source).url)))
            if mine:
                jobs.append(self.store.add_keys(mirror, mine))
        self._work.set()
        return jobs

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running one ends after the objects in flight.

        Raises:
            JobNotFound: There is none of this id.
        """
        job = self.store.get(job_id)
        if not self.store.cancel_queued(job_id):
            with self._lock:
                token = self._running.get(job_id)
                if token is not None:
                    self._cancelled.add(job_id)
                    token.set("cancelled")
        return self.store.get(job.job_id)

    def _loop(self) -> None:
        while not self._stop.is_set:
            job = self.store.claim()
            if job is None:
                self._work.wait(_IDLE_S)
                self._work.clear()
                continue
            token = StopToken()
            with self._lock:
                self._running[job.job_id] = token
            if self._stop.reason is not None:
                token.set(self._stop.reason)
            try:
                self._finish(job, lambda: self._run(job, token))  # noqa: B023  # called at once
            finally:
                with self._lock:
                    del self._running[job.job_id]
                    self._cancelled.discard(job.job_id)

    def _run(self, job: Job, token: StopToken) -> SyncResult:
        config = next((each for each in self.config.mirrors if _is_same(each, job.config)), job.config)
        if job.keys is not None:
            return sync_keys(config, job.keys, run_id=job.job_id, stop=token)
        return sync(config, run_id=job.job_id, stop=token)

    def _finish(self, job: Job, run: Callable[[], SyncResult]) -> None:
        """Run a job and write how it ended; what may pass by itself is queued again."""
        try:
            result = run()
        except Stopped:
            if job.job_id in self._cancelled:
                self.store.finish(job.job_id, "cancelled")
            else:
                self.store.put_back(job.job_id, delay_s=0, error="the service was stopped")
        except TidemillError as error:
            if isinstance(error, TransientError) and job.tries < _MOST_TRIES:
                self.store.put_back(job.job_id, delay_s=_BACKOFF.wait_s(job.tries, error), error=str(error))
            else:
                self.store.finish(job.job_id, "failed", error=str(error))
            log.warning("job_failed", job=job.job_id, tries=job.tries, error=str(error))
        except Exception as error:  # a defect in one job must not end the worker
            self.store.finish(job.job_id, "failed", error=f"{type(error).__name__}: {error}")
            log.exception("job_broken", job=job.job_id)
        else:
            self.store.finish(job.job_id, "done", result=result.as_dict())


def check_allowed(url: str, allowed: Iterable[str]) -> None:
    """Refuse a place outside the allowed ones; folders are compared with links and ``..`` resolved.

    Raises:
        PlaceRefused: It lies in none of them.
    """
    asked = _real(url)
    for each in allowed:
        if each.endswith("://") and each not in {"lake://", "mirror://"}:
            if asked.startswith(each):
                return
        elif f"{asked}/".startswith(f"{_real(each)}/"):
            return
    raise PlaceRefused(url)


def _real(url: str) -> str:
    from pathlib import Path
    from urllib.parse import unquote

    found = open_store(url).url.rstrip("/")
    if found.startswith("file://"):
        return Path(unquote(found.removeprefix("file://"))).resolve().as_uri()
    return found


def _is_same(one: SyncConfig, other: SyncConfig) -> bool:
    return one.model_dump(exclude={"manifest"}) == other.model_dump(exclude={"manifest"})
