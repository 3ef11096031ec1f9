"""Run a sync: stream the plan, copy while listing, note what is done, delete last and within limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from tidemill_core.errors import ObjectNotFound, TidemillError, TransientError
from tidemill_core.lifecycle import Stopped, StopToken
from tidemill_core.lineage_hooks import DataEvent, announce
from tidemill_core.storage import KeyRefused, ObjectInfo, ObjectStore, Page, list_pages, pages_of
from tidemill_core.telemetry import get_logger

from tidemill_sync import metrics
from tidemill_sync.config import SyncConfig
from tidemill_sync.errors import (
    ListingUnsorted,
    SourceEmpty,
    SyncIncomplete,
    SyncInterrupted,
    TooManyDeletes,
)
from tidemill_sync.filters import everything
from tidemill_sync.listing import ahead
from tidemill_sync.manifests._base import RunRecord
from tidemill_sync.ordering import sorted_on_disk
from tidemill_sync.plan import Action, decide, plan_pages, taking
from tidemill_sync.result import Progress, SyncResult
from tidemill_sync.session import Session, opened
from tidemill_sync.transfer import Transferred
from tidemill_sync.workers import Done, Workers

log = get_logger(__name__)
_DELETE_AT_ONCE = 1_000
_COMMIT_S = 2.0


def sync(
    config: SyncConfig,
    *,
    source: ObjectStore | None = None,
    target: ObjectStore | None = None,
    run_id: str | None = None,
    stop: StopToken | None = None,
    progress: Progress | None = None,
) -> SyncResult:
    """Make the target hold what the source holds.

    Objects that neither side has changed since an earlier run cost nothing but their line in
    a listing. A killed run leaves whole objects only, and the next one goes on after the
    last committed notes. Deletes come last, only if every listing and copy succeeded.

    Args:
        config: What to mirror.
        source: An open store to use instead of `config.source`.
        target: An open store to use instead of `config.target`.
        run_id: Name of the run in the manifest; default a random one.
        stop: Ends the run after the objects in flight.
        progress: Watches the run.

    Raises:
        SyncBusy: Another process runs the same sync.
        SyncIncomplete: Some objects cannot be copied; the others were.
        SyncInterrupted: Some objects could not be copied now.
        SourceEmpty: The source is empty and pruning would empty the target.
        TooManyDeletes: More deletes than the limits allow.
        Stopped: `stop` was set.
        TidemillError: A store or the manifest failed.
    """
    with opened(config, source=source, target=target, stop=stop, progress=progress, run_id=run_id) as session:
        return recorded(session, _run)


def sync_keys(
    config: SyncConfig,
    keys: Iterable[str],
    *,
    source: ObjectStore | None = None,
    target: ObjectStore | None = None,
    run_id: str | None = None,
    stop: StopToken | None = None,
) -> SyncResult:
    """Reconcile single keys, whatever happened to them: an event is only a hint that a key is dirty.

    Both sides are asked for their state, so that repeated, late and reordered events are
    harmless. Deletes happen only with `config.prune`.

    Raises:
        SyncIncomplete: Some objects cannot be copied; the others were.
        TidemillError: A store or the manifest failed.
    """
    takes = config.key_filter()
    wanted = sorted({key for key in keys if takes(key)})

    def run(session: Session) -> None:
        carry_out(session, (action for key in wanted if (action := _decided(session, key)) is not None))
        settle(session)

    with opened(config, source=source, target=target, stop=stop, run_id=run_id) as session:
        return recorded(session, run)


def plan_actions(
    config: SyncConfig, *, source: ObjectStore | None = None, target: ObjectStore | None = None
) -> Iterator[Action]:
    """Yield what `sync` would do, ascending by key, and do nothing.

    Raises:
        TidemillError: A store or the manifest failed.
    """
    with opened(config, source=source, target=target, is_exclusive=False) as session:
        yield from planned(session, is_sorting=True)


def recorded(session: Session, run: Callable[[Session], None]) -> SyncResult:
    """Run, and keep a line about it whatever happens."""
    began, started_at, run_id = time.monotonic(), time.time(), session.run_id

    def record(state: str, ended_at: float | None) -> None:
        session.manifest.record(
            RunRecord(
                run_id=run_id,
                job=session.job,
                source=session.source.url,
                target=session.target.url,
                state=state,
                started_at=started_at,
                ended_at=ended_at,
                result=_result(session, run_id, time.monotonic() - began).as_dict(),
            )
        )

    record("running", None)
    state = "failed"
    try:
        run(session)
        state = "done"
    except Stopped:
        state = "stopped"
        raise
    finally:
        record(state, time.time())
        metrics.observe(session.counts, state, time.monotonic() - began)
    result = _result(session, run_id, time.monotonic() - began)
    log.info("sync_done", **{name: value for name, value in result.as_dict().items() if value})
    _announce(result)
    return result


def _run(session: Session) -> None:
    session.uploads().sweep(session.config.orphan_after_s)
    try:
        carry_out(session, planned(session, in_bulk=True))
    except ListingUnsorted as unsorted:
        log.warning("listing_unsorted", place=unsorted.place, before=unsorted.before, after=unsorted.after)
        session.deletes.clear()
        session.counts.skipped = 0
        carry_out(session, planned(session, is_sorting=True))
    settle(session)


def planned(session: Session, *, is_sorting: bool = False, in_bulk: bool = False) -> Iterator[Action]:
    """Plan from fresh listings, through the filters, counting what they show.

    Args:
        session: The open sync.
        is_sorting: Sort both listings on disk first, for stores that list in another order.
        in_bulk: Count unchanged keys where they come in rows, in place of an action for each.
    """
    config, counts = session.config, session.counts
    takes = config.key_filter()
    counts.source_objects = counts.target_objects = 0

    def listed(store: ObjectStore, counter: str) -> Iterator[Page]:
        pages = pages_of(sorted_on_disk(store.list())) if is_sorting else ahead(list_pages(store))
        for page in pages if takes is everything else taking(pages, takes):
            setattr(counts, counter, getattr(counts, counter) + len(page.keys))
            yield page

    def unchanged(count: int) -> None:
        session.stop.raise_if_set()
        counts.skipped += count
        session.progress.moved(counts)

    notes = session.manifest.entries(session.job)
    limits = (config.min_size_bytes, config.max_size_bytes, config.min_age_s, config.max_age_s)
    is_limited = any(each is not None for each in limits)
    now = datetime.now(UTC)
    actions = plan_pages(
        listed(session.source, "source_objects"),
        listed(session.target, "target_objects"),
        notes if takes is everything else (each for each in notes if takes(each.key)),
        prune=config.prune,
        names=(session.source.url, session.target.url),
        unchanged=unchanged if in_bulk and not is_limited else None,
    )
    for action in actions:
        if _is_within(config, action, now):
            yield _trusted(config, action)


def _trusted(config: SyncConfig, action: Action) -> Action:
    """Turn a comparison into what the configuration wants for unknown pairs."""
    if action.kind != "compare" or config.unknown == "compare":
        return action
    kind, reason = ("replace", "not known yet") if config.unknown == "copy" else ("skip", "same size")
    return Action(kind=kind, key=action.key, reason=reason, source=action.source, target=action.target)  # type: ignore[arg-type]


def _is_within(config: SyncConfig, action: Action, now: datetime) -> bool:
    """Tell whether the source's object is of a size and an age that take part; one that does not is left alone."""
    if action.source is None:
        return True
    size, age_s = action.source.size_bytes, (now - action.source.modified_at).total_seconds()
    return (
        (config.min_size_bytes is None or size >= config.min_size_bytes)
        and (config.max_size_bytes is None or size <= config.max_size_bytes)
        and (config.min_age_s is None or age_s >= config.min_age_s)
        and (config.max_age_s is None or age_s <= config.max_age_s)
    )


def carry_out(session: Session, actions: Iterable[Action], copy: Callable[[Action], Transferred] | None = None) -> None:
    """Copy what must be copied, a bounded number at once; collect what must be deleted.

    Args:
        session: The open sync.
        actions: What to do.
        copy: Does one copy, replace or compare; default the session's transfer.
    """
    at_once = session.config.workers
    workers = Workers(copy or session.transfer().apply, threads=at_once, most=at_once * 4)
    committed_at = time.monotonic()
    try:
        for action in actions:
            session.stop.raise_if_set()
            session.progress.planned(action)
            if action.kind == "skip":
                session.counts.skipped += 1
            elif action.kind == "delete":
                session.deletes.append(action.key)
            elif action.kind == "forget":
                session.forgets.append(action.key)
                session.log.add("gone", action.key, reason=action.reason)
            else:
                workers.give(action)
                _collect(session, workers.take(waiting=workers.is_full))
                _check_failures(session, session.config.max_failures)
            if len(session.entries) >= session.config.commit_rows or time.monotonic() - committed_at > _COMMIT_S:
                _commit(session)
                committed_at = time.monotonic()
        while not workers.is_idle:
            session.stop.raise_if_set()
            _collect(session, workers.take(waiting=True))
            _check_failures(session, session.config.max_failures)
            if len(session.entries) >= session.config.commit_rows:
                _commit(session)
    finally:
        _collect(session, workers.end())
        _commit(session)


def _collect(session: Session, finished: Iterable[Done[Action, Transferred]]) -> None:
    """Take in finished copies."""
    is_any = False
    for each in finished:
        is_any = True
        if isinstance(each.error, TidemillError):
            session.counts.fail(each.item.key, str(each.error))
            _log(session, each.item, "failed", error=str(each.error))
            session.is_transient = session.is_transient and isinstance(each.error, TransientError)
            log.warning("object_failed", key=each.item.key, error=str(each.error))
        elif each.error is not None:
            raise each.error
        elif each.result is not None:
            session.counts.add(each.result)
            _log(session, each.item, each.result.outcome, done=each.result)
            if each.result.entry is not None:
                session.entries.append(each.result.entry)
    if is_any:
        session.progress.moved(session.counts)


def _log(
    session: Session, action: Action, outcome: str, *, done: Transferred | None = None, error: str | None = None
) -> None:
    """Log what became of a copy. What was found equal is told too: a killed run may have written it."""
    if outcome == "vanished":
        return
    entry = done.entry if done else None
    session.log.add(
        outcome,
        action.key,
        bytes=done.bytes if done else None,
        reason=action.reason,
        source_etag=entry.source_etag if entry else None,
        target_etag=entry.target_etag if entry else None,
        trashed=done.trashed if done else None,
        error=error,
    )


def _commit(session: Session) -> None:
    # The log first: a key without a note is looked at again, a note without a line would never be told.
    session.log.flush()
    if session.entries or session.forgets:
        session.manifest.save(session.job, session.entries, session.forgets)
        session.entries.clear()
        session.forgets.clear()


def settle(session: Session, still: Callable[[list[str]], list[str]] = list) -> None:
    """Report failed copies, or else delete what the limits allow.

    Args:
        session: The open sync.
        still: Chooses of each batch what is to be deleted after a last look.
    """
    counts = session.counts
    _check_failures(session, 1)
    if not session.deletes:
        return
    _check_deletes(session)
    for start in range(0, len(session.deletes), _DELETE_AT_ONCE):
        session.stop.raise_if_set()
        batch = still(session.deletes[start : start + _DELETE_AT_ONCE])
        kept = session.trash.keep_all(batch, at_once=session.config.workers) if session.trash else [None] * len(batch)
        session.target.delete(batch)
        for key, trashed in zip(batch, kept, strict=True):
            session.log.add("deleted", key, trashed=trashed)
        session.log.flush()
        session.manifest.save(session.job, [], batch)
        counts.deleted += len(batch)
        session.progress.moved(counts)


def _check_failures(session: Session, most: int) -> None:
    """End the run if `most` objects have failed: a full or lost target would fail each of the rest as slowly."""
    counts = session.counts
    if counts.failed >= most:
        kind = SyncInterrupted if session.is_transient else SyncIncomplete
        raise kind(counts.failures, counts.failed)


def _check_deletes(session: Session) -> None:
    """Refuse a deletion that looks like an accident."""
    config, counts, deletes = session.config, session.counts, len(session.deletes)
    if not counts.target_objects:
        return  # single keys were asked for
    if counts.source_objects == 0 and not config.allow_empty_source:
        raise SourceEmpty(session.source.url, session.target.url, counts.target_objects)
    if deletes * 100 > config.max_delete_percent * counts.target_objects:
        limit = f"{config.max_delete_percent:g} %"
        raise TooManyDeletes(session.target.url, deletes, counts.target_objects, limit)
    if config.max_delete is not None and deletes > config.max_delete:
        raise TooManyDeletes(session.target.url, deletes, counts.target_objects, str(config.max_delete))


def _decided(session: Session, key: str) -> Action | None:
    """Look at one key on both sides and in the notes."""
    source, target = seen(session.source, key), seen(session.target, key)
    entry = session.manifest.entry(session.job, key)
    action = decide(key, source, target, entry, prune=session.config.prune)
    if action is None or not _is_within(session.config, action, datetime.now(UTC)):
        return None
    return _trusted(session.config, action)


def seen(store: ObjectStore, key: str) -> ObjectInfo | None:
    """Describe an object; None if there is none, as where the store cannot hold such a key."""
    try:
        return store.head(key)
    except (ObjectNotFound, KeyRefused):
        return None


def _result(session: Session, run_id: str, seconds: float) -> SyncResult:
    counts = session.counts
    return SyncResult(
        run_id=run_id,
        source=session.source.url,
        target=session.target.url,
        source_objects=counts.source_objects,
        target_objects=counts.target_objects,
        skipped=counts.skipped,
        copied=counts.copied,
        replaced=counts.replaced,
        adopted=counts.adopted,
        vanished=counts.vanished,
        deleted=counts.deleted,
        failed=counts.failed,
        bytes=counts.bytes,
        seconds=seconds,
    )


def _announce(result: SyncResult) -> None:
    announce(
        DataEvent(
            kind="wrote",
            dataset=result.target,
            job="sync",
            run_id=result.run_id,
            inputs=(result.source,),
            bytes=result.bytes,
            facts={"copied": result.copied, "replaced": result.replaced, "deleted": result.deleted},
        )
    )
