"""Compare source and target wholly, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from tidemill_core.errors import ObjectNotFound, PreconditionFailed
from tidemill_core.lifecycle import StopToken
from tidemill_core.storage import ObjectStore

from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import planned
from tidemill_sync.plan import SIZE_DIFFERS, Action
from tidemill_sync.session import Session, opened
from tidemill_sync.throttle import Throttle
from tidemill_sync.transfer import same_bytes

KEPT_DIFFERENCES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key whose two sides are not the same: missing, extra or different in the target."""

    key: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """How two places compare. Extra objects are listed, and are a fault only of a mirror that prunes."""

    source: str
    target: str
    same: int
    read: int
    """Objects whose bytes were read on both sides and are the same."""
    missing: int
    different: int
    extra: int
    differences: tuple[Difference, ...]
    """The first hundred."""

    @property
    def is_complete(self) -> bool:
        """Whether the target holds all that the source holds."""
        return not (self.missing or self.different)

    @property
    def is_exact(self) -> bool:
        """Whether the target holds that and nothing else."""
        return self.is_complete and not self.extra

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Say it in one line, for people."""
        return (
            f"{self.same} same ({self.read} read), {self.missing} missing, "
            f"{self.different} different, {self.extra} extra"
        )


def verify(
    config: SyncConfig,
    *,
    content: bool = False,
    source: ObjectStore | None = None,
    target: ObjectStore | None = None,
    stop: StopToken | None = None,
) -> VerifyReport:
    """Compare every key of both places.

    Args:
        config: Which places and keys.
        content: Read every object on both sides; else only those whose etags no run has noted.
        source: An open store to use instead of `config.source`.
        target: An open store to use instead of `config.target`.
        stop: Ends the work early.

    Raises:
        TidemillError: A store or the manifest failed.
        Stopped: `stop` was set.
    """
    counts = dict.fromkeys(("same", "read", "missing", "different", "extra"), 0)
    differences: list[Difference] = []
    wide = config.model_copy(update={"prune": True, "unknown": "compare"})
    with opened(wide, source=source, target=target, stop=stop, is_exclusive=False) as session:
        for action, is_same in _judged(session, content=content):
            session.stop.raise_if_set()
            kind = "same" if is_same else _KINDS[action.kind]
            counts[kind] += 1
            counts["read"] += is_same and action.kind == "compare"
            if not is_same and len(differences) < KEPT_DIFFERENCES:
                differences.append(Difference(key=action.key, kind=kind, reason=action.reason))
        urls = session.source.url, session.target.url
    return VerifyReport(source=urls[0], target=urls[1], **counts, differences=tuple(differences))


_KINDS = {"copy": "missing", "replace": "different", "compare": "different", "delete": "extra"}


def _judged(session: Session, *, content: bool) -> Iterator[tuple[Action, bool]]:
    """Pair every action with whether both sides are the same, reading what must be read in batches."""
    throttle = Throttle(session.config.bytes_per_s)

    def is_same(action: Action) -> bool:
        if action.kind == "compare":
            return _reads_same(session, action, throttle)
        return action.kind == "skip"

    batch: list[Action] = []
    with ThreadPoolExecutor(session.config.workers, thread_name_prefix="verify") as pool:
        for action in planned(session, is_sorting=True):
            if action.kind != "forget":
                batch.append(_strict(action) if content else action)
            if len(batch) == session.config.workers * 8:
                yield from zip(batch, pool.map(is_same, batch), strict=True)
                batch.clear()
        yield from zip(batch, pool.map(is_same, batch), strict=True)


def _strict(action: Action) -> Action:
    """Compare by content what would be believed, or be replaced for its etags alone."""
    is_pair = action.source is not None and action.target is not None
    if is_pair and action.kind in {"skip", "replace"} and action.reason != SIZE_DIFFERS:
        return replace(action, kind="compare", reason="the bytes differ")
    return action


def _reads_same(session: Session, action: Action, throttle: Throttle) -> bool:
    assert action.source is not None
    assert action.target is not None
    try:
        return same_bytes(session.source, action.source, session.target, action.target, throttle)
    except (PreconditionFailed, ObjectNotFound):
        return False
