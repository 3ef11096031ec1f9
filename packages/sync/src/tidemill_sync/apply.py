"""Carry out a plan that was kept in a file: what it shows and nothing else, and nothing that has changed since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill_core.errors import ObjectNotFound, PreconditionFailed
from tidemill_core.lifecycle import StopToken
from tidemill_core.storage import ObjectInfo, ObjectStore

from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import carry_out, planned, recorded, seen, settle
from tidemill_sync.errors import ChangedSincePlan, PlanElsewhere, PlanOutdated
from tidemill_sync.plan import Action
from tidemill_sync.plan_file import PlanAbout, PlanFile, PlanWriter
from tidemill_sync.result import Progress, SyncResult
from tidemill_sync.session import Session, opened
from tidemill_sync.throttle import Throttle
from tidemill_sync.transfer import Transferred, entry_of, same_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A plan that was kept: how many keys need what."""

    path: str
    source: str
    target: str
    unchanged: int
    copy: int
    replace: int
    compare: int
    delete: int
    bytes: int
    """Bytes that copies and replacements move."""

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """What it says, in one line."""
        return (
            f"{self.copy} to copy, {self.replace} to replace, {self.compare} to compare, {self.delete} to delete, "
            f"{self.unchanged} unchanged; {self.bytes} bytes to move"
        )


def keep_plan(
    config: SyncConfig, path: Path, *, source: ObjectStore | None = None, target: ObjectStore | None = None
) -> PlanResult:
    """Write what `sync` would do to a Parquet file, and do nothing.

    Args:
        config: What to mirror.
        path: The file; it appears when it is whole.
        source: An open store to use instead of `config.source`.
        target: An open store to use instead of `config.target`.

    Raises:
        PlanFileWrong: The file cannot be written.
        TidemillError: A store or the manifest failed.
    """
    counts = dict.fromkeys(("skip", "copy", "replace", "compare", "delete", "forget"), 0)
    moved = 0

    def counted(actions: Iterator[Action]) -> Iterator[Action]:
        nonlocal moved
        for action in actions:
            counts[action.kind] += 1
            if action.kind in {"copy", "replace"}:
                moved += action.size_bytes
            if action.kind != "skip":
                yield action

    with opened(config, source=source, target=target, is_exclusive=False) as session:
        source_url, target_url = session.source.url, session.target.url
        writer = PlanWriter(path)
        try:
            writer.write(counted(planned(session, is_sorting=True)))
            writer.finish(
                PlanAbout(
                    config=config,
                    source=source_url,
                    target=target_url,
                    source_objects=session.counts.source_objects,
                    target_objects=session.counts.target_objects,
                    made_at=datetime.now(UTC).isoformat(),
                )
            )
        finally:
            writer.discard()
    return PlanResult(
        path=str(path),
        source=source_url,
        target=target_url,
        unchanged=counts["skip"],
        copy=counts["copy"],
        replace=counts["replace"],
        compare=counts["compare"],
        delete=counts["delete"],
        bytes=moved,
    )


def apply_plan(
    path: Path,
    *,
    changes: dict[str, Any] | None = None,
    source: ObjectStore | None = None,
    target: ObjectStore | None = None,
    run_id: str | None = None,
    stop: StopToken | None = None,
    progress: Progress | None = None,
) -> SyncResult:
    """Do what a kept plan shows, key by key, and refuse each key that has changed since on either side.

    A plan can be applied again: what an earlier, perhaps killed, attempt has done is found
    done. Deletes come last, within the plan's limits, and only if every copy succeeded.

    Args:
        path: A file of `keep_plan`. Rows may have been taken out; the others keep their order.
        changes: Fields of the plan's configuration to replace, such as `workers`.
        source: An open store to use instead of the plan's source.
        target: An open store to use instead of the plan's target.
        run_id: Name of the run in the manifest; default a random one.
        stop: Ends the run after the objects in flight.
        progress: Watches the run.

    Raises:
        PlanFileWrong: The file is no plan.
        PlanElsewhere: Its places are not those that their names lead to now.
        SyncIncomplete: Some objects could not be copied, or have changed; nothing was deleted.
        PlanOutdated: Some objects to delete have changed and were left; all else was done.
        TidemillError: As for `sync`.
    """
    plan = PlanFile(path)
    config = plan.about.config.model_copy(update=changes or {})
    with opened(config, source=source, target=target, stop=stop, progress=progress, run_id=run_id) as session:
        for wanted, found in ((plan.about.source, session.source.url), (plan.about.target, session.target.url)):
            if wanted != found:
                raise PlanElsewhere(path, wanted, found)
        return recorded(session, lambda session: _carry_out(session, plan))


def _carry_out(session: Session, plan: PlanFile) -> None:
    exactly = _Exactly(session)
    session.counts.source_objects = plan.about.source_objects
    session.counts.target_objects = plan.about.target_objects
    carry_out(session, exactly.watched(plan.actions()), exactly.apply)
    settle(session, exactly.still)
    if session.counts.failed:
        raise PlanOutdated(session.counts.failures, session.counts.failed)


class _Exactly:
    """Does an action only if both sides are as the plan saw them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transfer = session.transfer(looks_again=False)
        self._deletes: dict[str, ObjectInfo | None] = {}

    def watched(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Note what was to be deleted, on the way."""
        for action in actions:
            if action.kind == "delete":
                self._deletes[action.key] = action.target
            if action.kind != "forget":
                yield action

    def apply(self, action: Action) -> Transferred:
        """Do a copy, replace or compare.

        Raises:
            ChangedSincePlan: A side has changed.
        """
        try:
            self._check(action)
            done = self._transfer.apply(action)
        except PreconditionFailed as error:
            return self._done_before(action, error)
        if done.outcome == "vanished":
            raise ChangedSincePlan(self._session.source.url, action.key)
        return done

    def still(self, keys: Sequence[str]) -> list[str]:
        """Choose the keys whose deletion is still what the plan meant; the others fail."""
        with ThreadPoolExecutor(self._session.config.workers, thread_name_prefix="look") as pool:
            places = list(pool.map(self._changed_place, keys))
        for key, place in zip(keys, places, strict=True):
            if place is not None:
                error = str(ChangedSincePlan(place, key))
                self._session.counts.fail(key, error)
                self._session.log.add("failed", key, error=error)
        return [key for key, place in zip(keys, places, strict=True) if place is None]

    def _changed_place(self, key: str) -> str | None:
        source, target = self._session.source, self._session.target
        if seen(source, key) is not None:
            return source.url
        found = seen(target, key)
        return None if found is None or _is_same(found, self._deletes[key]) else target.url

    def _check(self, action: Action) -> None:
        """Look where no condition of the request itself would notice, or an old version would be kept in vain."""
        session = self._session
        reads, writes = session.source.capabilities, session.target.capabilities
        is_pinned = reads.get_if_match and action.source is not None and action.source.etag is not None
        if not is_pinned and not _is_same(seen(session.source, action.key), action.source):
            raise PreconditionFailed(session.source.url, action.key)
        if action.target is None:
            is_guarded = writes.put_if_absent
        else:
            is_guarded = writes.put_if_match and action.target.etag is not None and session.trash is None
        if not is_guarded and not _is_same(seen(session.target, action.key), action.target):
            raise PreconditionFailed(session.target.url, action.key)

    def _done_before(self, action: Action, error: PreconditionFailed) -> Transferred:
        """Find that an earlier attempt did this already, or raise."""
        session = self._session
        source, target = seen(session.source, action.key), seen(session.target, action.key)
        if source is not None and target is not None and _is_same(source, action.source):
            note = session.manifest.entry(session.job, action.key)
            if note is not None and note.describes(source, target):
                return Transferred(key=action.key, outcome="adopted", entry=note)
            if source.size_bytes == target.size_bytes:
                throttle = Throttle(session.config.bytes_per_s)
                try:
                    is_same = same_bytes(session.source, source, session.target, target, throttle)
                except (PreconditionFailed, ObjectNotFound):
                    is_same = False
                if is_same:
                    return Transferred(key=action.key, outcome="adopted", entry=entry_of(source, target))
        raise ChangedSincePlan(error.url, action.key) from error


def _is_same(found: ObjectInfo | None, planned: ObjectInfo | None) -> bool:
    """Tell whether an object is the one of the plan; without etags, by its size and time."""
    if found is None or planned is None:
        return found is planned
    if found.etag is not None or planned.etag is not None:
        return (found.etag, found.size_bytes) == (planned.etag, planned.size_bytes)
    return (found.modified_at, found.size_bytes) == (planned.modified_at, planned.size_bytes)
