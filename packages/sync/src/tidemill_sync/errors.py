"""What a sync raises.

SyncError
├── SourceMissing      (Config)    the local source folder does not exist
├── SourceEmpty        (Permanent) the source has nothing, the target would be emptied
├── TooManyDeletes     (Permanent) more would be deleted than allowed
├── PlacesOverlap      (Permanent) source and target hold each other
├── ListingUnsorted    (Permanent) a store listed keys out of order
├── SyncIncomplete     (Permanent) some objects could not be copied
├── SyncInterrupted    (Transient) some objects may be copied at another try
├── SyncBusy           (Transient) another run of the same sync goes on
├── ObjectMoved        (Transient) an object changed while it was copied
├── LogUnwritable      (Permanent) the log of changed keys cannot be written
├── PlanFileWrong      (Config)    a file is no plan
├── PlanElsewhere      (Config)    a plan was made for other places
├── ChangedSincePlan   (Permanent) an object is not as the plan saw it
├── PlanOutdated       (Permanent) some of a plan was refused, all else was done
├── EventsUndone       (Transient) what a notification names is not reconciled
└── JobNotFound        (Permanent) the service knows no such job
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill_core.errors import ConfigError, PermanentError, TidemillError, TransientError


class SyncError(TidemillError):
    """A sync went wrong."""


class SourceMissing(SyncError, ConfigError):
    """The local source folder does not exist: a wrong path, or a disk that is not mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"the source folder {folder} does not exist; correct the path, or make the folder")


class SourceEmpty(SyncError, PermanentError):
    """The source is empty; going on would delete the whole target."""

    def __init__(self, source: str, target: str, objects: int) -> None:
        self.source, self.target, self.objects = source, target, objects
        super().__init__(
            f"{source} is empty, so all {objects} objects of {target} would be deleted; "
            "check the URL, or set allow_empty_source"
        )


class TooManyDeletes(SyncError, PermanentError):
    """The plan deletes more than the limits allow; nothing was deleted."""

    def __init__(self, target: str, deletes: int, objects: int, limit: str) -> None:
        self.target, self.deletes, self.objects = target, deletes, objects
        super().__init__(
            f"{deletes} of {objects} objects of {target} would be deleted, the limit is {limit}; nothing was "
            "deleted. Look at `tidemill sync plan`, then raise max_delete_percent or max_delete"
        )


class PlacesOverlap(SyncError, PermanentError):
    """One place lies inside the other, so a sync would never end or delete its source."""

    def __init__(self, source: str, target: str) -> None:
        self.source, self.target = source, target
        super().__init__(f"{source} and {target} overlap; choose places that do not contain each other")


class ListingUnsorted(SyncError, PermanentError):
    """A listing was not ascending, so that a merge would miss objects."""

    def __init__(self, place: str, before: str, after: str) -> None:
        self.place, self.before, self.after = place, before, after
        super().__init__(f"{place} listed {after!r} after {before!r}, which is not the order of UTF-8 keys")


class SyncIncomplete(SyncError, PermanentError):
    """Some objects could not be copied; all others were, and nothing was deleted."""

    def __init__(self, failures: Sequence[tuple[str, str]], total: int) -> None:
        self.failures, self.total = tuple(failures), total
        super().__init__(_told(failures, total))


class SyncInterrupted(SyncError, TransientError):
    """Some objects could not be copied for now; run again to go on where this run stopped."""

    def __init__(self, failures: Sequence[tuple[str, str]], total: int) -> None:
        self.failures, self.total = tuple(failures), total
        super().__init__(_told(failures, total))


class SyncBusy(SyncError, TransientError):
    """Another run of the same sync goes on."""

    retry_after_s = 10.0

    def __init__(self, source: str, target: str) -> None:
        super().__init__(f"{source} is being mirrored to {target} by another process; try again when it is done")


class ObjectMoved(SyncError, TransientError):
    """An object changed while it was copied; the next attempt takes its new version."""

    retry_after_s = 0.0

    def __init__(self, place: str, key: str) -> None:
        self.place, self.key = place, key
        super().__init__(f"{key!r} in {place} changed while it was copied")


class LogUnwritable(SyncError, PermanentError):
    """The log of changed keys cannot be written; nothing more is changed."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path = path
        super().__init__(f"the log of changed keys {path} cannot be written: {error.strerror or error}")


class PlanFileWrong(SyncError, ConfigError):
    """A file is no plan, or cannot be read or written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path} {reason}")


class PlanElsewhere(SyncError, ConfigError):
    """A plan was made for places that its names do not lead to any more."""

    def __init__(self, path: Path, wanted: str, found: str) -> None:
        self.path, self.wanted, self.found = path, wanted, found
        super().__init__(
            f"{path} was made for {wanted}, but its configuration leads to {found} here; "
            "apply it in the folder and with the settings it was made with"
        )


class ChangedSincePlan(SyncError, PermanentError):
    """An object is not as the plan saw it, so it was left alone."""

    def __init__(self, place: str, key: str) -> None:
        self.place, self.key = place, key
        super().__init__(f"{key!r} in {place} has changed since the plan")


class PlanOutdated(SyncError, PermanentError):
    """Some objects that a plan deletes have changed; they were left, and all else was done."""

    def __init__(self, failures: Sequence[tuple[str, str]], total: int) -> None:
        self.failures, self.total = tuple(failures), total
        shown = "; ".join(reason for _, reason in failures[:5])
        super().__init__(f"{total} objects were not deleted, all else was done; make a new plan: {shown}")


class EventsUndone(SyncError, TransientError):
    """What a notification names is not reconciled; it must come again."""


class JobNotFound(SyncError, PermanentError):
    """The service knows no such job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no sync job {job_id!r}")


def _told(failures: Sequence[tuple[str, str]], total: int) -> str:
    shown = "; ".join(f"{key!r}: {reason}" for key, reason in failures[:5])
    more = f" and {total - 5} more" if total > 5 else ""  # noqa: PLR2004  # as many as are shown
    return f"{total} objects were not copied, and nothing was deleted: {shown}{more}"
