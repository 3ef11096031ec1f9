"""Keep what a run deletes or replaces: a copy below a prefix of the target, in a folder of the run."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tidemill_core.errors import ObjectNotFound
from tidemill_core.storage import ObjectInfo, ObjectStore


class Trash:
    """Copies objects of the target aside, on the server where it can, before they are overwritten or deleted.

    Args:
        target: Whose objects are kept.
        prefix: Where, ending in a slash; takes no part in the sync.
        run_id: The run, whose copies stand in a folder named by its start and id.
        now: When the run began.
    """

    def __init__(self, target: ObjectStore, prefix: str, run_id: str, now: datetime) -> None:
        self._target = target
        self._folder = f"{prefix}{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run_id[:8]}"

    def keep(self, key: str, *, time: int = 1) -> str | None:
        """Copy one object aside; gives the key of the copy, or None if the object has gone.

        Args:
            key: The object.
            time: Which version of it in this run: a second one does not take the place of the first.

        Raises:
            TidemillError: It could not be copied, so it must not be overwritten or deleted.
        """
        folder = self._folder if time == 1 else f"{self._folder}.{time}"
        kept = f"{folder}/{key}"
        try:
            self._target.copy(key, kept)
        except ObjectNotFound:
            return None
        return kept

    def keep_all(self, keys: Iterable[str], *, at_once: int) -> list[str | None]:
        """Copy several aside; the first error ends it."""
        with ThreadPoolExecutor(at_once, thread_name_prefix="trash") as pool:
            return list(pool.map(self.keep, keys))


class Keeper:
    """Keeps the versions of one key that attempts to replace it meet, each once.

    Args:
        trash: Where; None keeps nothing.
    """

    def __init__(self, trash: Trash | None) -> None:
        self._trash = trash
        self._etag: str | None = None
        self._times = 0
        self.kept: str | None = None

    def before_replacing(self, target: ObjectInfo) -> None:
        """Keep this version, unless an earlier attempt has."""
        if self._trash is None or (self._etag is not None and self._etag == target.etag):
            return
        self._times += 1
        self.kept = self._trash.keep(target.key, time=self._times) or self.kept
        self._etag = target.etag
