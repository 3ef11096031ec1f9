"""Open a sync: both stores, the notes of earlier runs, and the lease on them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tidemill_core.lifecycle import StopToken
from tidemill_core.settings import Settings
from tidemill_core.storage import ObjectStore, open_store
from tidemill_core.storage.file import FileStore

from tidemill_sync.budget import Budget
from tidemill_sync.change_log import ChangeLog
from tidemill_sync.config import SyncConfig
from tidemill_sync.errors import PlacesOverlap, SourceMissing, SyncBusy
from tidemill_sync.manifests._base import Manifest, RunRecord, job_id
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.plan import Entry
from tidemill_sync.result import Counts, Progress, Silence
from tidemill_sync.throttle import Throttle
from tidemill_sync.transfer import Transfer
from tidemill_sync.trash import Trash
from tidemill_sync.uploads import Uploads


@dataclass(slots=True, kw_only=True)
class Session:
    """An open sync: both stores, the notes, and the lease on them."""

    config: SyncConfig
    source: ObjectStore
    target: ObjectStore
    manifest: Manifest
    job: str
    stop: StopToken
    progress: Progress
    run_id: str
    log: ChangeLog
    trash: Trash | None
    counts: Counts = field(default_factory=Counts)
    deletes: list[str] = field(default_factory=list)
    forgets: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    is_transient: bool = True
    """Whether every failure so far may pass by itself."""

    def uploads(self) -> Uploads:
        """The uploads that this job has begun."""
        return Uploads(self.manifest, self.job, self.target, least_bytes=self.config.resume_bytes)

    def transfer(self, *, looks_again: bool = True) -> Transfer:
        """Make the copier of this session; see `Transfer`."""
        return Transfer(
            self.source,
            self.target,
            retry=self.config.retry,
            throttle=Throttle(self.config.bytes_per_s),
            budget=Budget(self.config.memory_bytes),
            large_bytes=self.config.large_bytes,
            keeps_metadata=self.config.metadata,
            trash=self.trash,
            uploads=self.uploads(),
            looks_again=looks_again,
        )


@contextmanager
def opened(
    config: SyncConfig,
    *,
    source: ObjectStore | None = None,
    target: ObjectStore | None = None,
    stop: StopToken | None = None,
    progress: Progress | None = None,
    run_id: str | None = None,
    is_exclusive: bool = True,
) -> Iterator[Session]:
    """Open both stores and the manifest, and hold the lease unless only reading.

    Raises:
        PlacesOverlap: One place contains the other.
        SourceMissing: The source is a local folder that is not there.
        SyncBusy: Another process holds the lease.
        LogUnwritable: The log of changed keys cannot be opened.
    """
    run_id = run_id or uuid.uuid4().hex
    source = source or open_store(config.source)
    target = target or open_store(config.target)
    check_apart(source.url, target.url)
    if isinstance(source, FileStore) and not source.root.is_dir():
        raise SourceMissing(source.root)
    manifest = open_manifest(manifest_url(config))
    job = job_id(source.url, target.url)
    log_path, trash = config.change_log, config.trash_prefix
    session = Session(
        config=config,
        source=source,
        target=target,
        manifest=manifest,
        job=job,
        stop=stop or StopToken(),
        progress=progress or Silence(),
        run_id=run_id,
        log=ChangeLog(None, run_id),
        trash=None if trash is None else Trash(target, trash, run_id, datetime.now(UTC)),
    )
    try:
        if not is_exclusive:
            yield session
            return
        with manifest.lease(job) as is_ours:
            if not is_ours:
                raise SyncBusy(source.url, target.url)
            session.log = ChangeLog(log_path, run_id)
            yield session
    finally:
        manifest.close()
        session.log.close()
        session.progress.close()


def manifest_url(config: SyncConfig) -> str:
    """The manifest's URL, with its password: never log it."""
    if config.manifest is not None:
        return config.manifest.get_secret_value()
    settings = Settings.from_env()
    if settings.postgres_url is not None:
        return settings.postgres_url.get_secret_value()
    return f"sqlite:///{settings.home.absolute() / 'sync.db'}"


def current_runs(manifest: Manifest, limit: int) -> list[RunRecord]:
    """The latest runs, newest first; one that says running but holds no lease is told as lost."""
    return [
        replace(run, state="lost") if run.state == "running" and not _is_held(manifest, run.job) else run
        for run in manifest.runs(limit)
    ]


def _is_held(manifest: Manifest, job: str) -> bool:
    with manifest.lease(job) as is_free:
        return not is_free


def check_apart(source: str, target: str) -> None:
    """Refuse two places of which one contains the other.

    Raises:
        PlacesOverlap: A run would copy what it has just written.
    """
    one, other = source.rstrip("/") + "/", target.rstrip("/") + "/"
    if one.startswith(other) or other.startswith(one):
        raise PlacesOverlap(source, target)
