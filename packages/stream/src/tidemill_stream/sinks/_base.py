"""The contract every sink keeps: claim partitions, commit outputs with progress, and refuse the fenced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tidemill_core.settings import Settings

from tidemill_stream.progress import Claim, Output, Partition, Progress
from tidemill_stream.sink_settings import SINKS

if TYPE_CHECKING:
    from tidemill_core.storage._base import ObjectStore

    from tidemill_stream.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a commit wrote, by output name."""

    rows: Mapping[str, int]
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who runs a pipeline as a live service, and for how long we may believe so."""

    owner: str
    seconds_left: float


class Sink(Protocol):
    """One place outputs go to. After any error it must be claimed again before the next commit."""

    name: str

    def prepare(self) -> None:
        """Create tables and check that the outputs fit the existing ones."""

    def read(self, topics: Sequence[str]) -> dict[Partition, Progress]:
        """Read the stored progress of every partition, without claiming any."""

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        """Become the owner of partitions: earlier owners are fenced; returns the progress to go on from."""

    def commit(self, outputs: Sequence[Output]) -> Written:
        """Write outputs and progress so that a reader sees, per partition, all of a commit or nothing.

        Raises:
            Fenced: Another worker has claimed one of the partitions; nothing was written.
        """

    def renew(self, partitions: Sequence[Partition]) -> None:
        """Prolong the lease of an idle service; raises `Fenced` when a partition is no longer ours."""

    def release(self, partitions: Sequence[Partition]) -> None:
        """End the lease of partitions we give up, if they are still ours."""

    def lease(self, topics: Sequence[str]) -> Lease | None:
        """Tell who else runs this pipeline as a service; None if nobody, or if this sink cannot know."""

    def tidy(self) -> int:
        """Remove what abandoned commits left behind, never anything committed; returns how many objects."""

    def close(self) -> None:
        """Release connections; uncommitted work is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLetter:
    """A dead letter as a sink holds it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    path: str
    message: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> StoredLetter:
        """Make a letter of a row of the dead letters' columns."""
        return cls(
            topic=row["topic"],
            partition=row["partition"],
            offset=row["offset"],
            key=row["key"],
            value=row["value"],
            reason=row["reason"],
            path=row["path"],
            message=row["message"],
        )

    def as_dict(self) -> dict[str, Any]:
        """The letter as plain values; bytes that are not UTF-8 are escaped."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "path": self.path,
            "message": self.message,
            "key": _text(self.key),
            "value": _text(self.value),
        }


@runtime_checkable
class CountsRows(Protocol):
    """A sink that can count what it holds; without it, `verify` says nothing of the sink."""

    def held(self) -> Mapping[str, int]:
        """Count the rows and windows of this pipeline that the sink really holds, by output it takes."""


@runtime_checkable
class KeepsLetters(Protocol):
    """A sink whose dead letters can be read again; without it, `dlq` passes the sink over."""

    def letters(self, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
        """Read this pipeline's dead letters, all or those with one of `reasons`."""


@runtime_checkable
class NamesDatasets(Protocol):
    """A sink whose outputs have names in lineage; without it, lineage does not know them."""

    def datasets(self) -> Mapping[str, str]:
        """Name the dataset of each output it takes, as a URN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkContext:
    """What a sink may need beside its own configuration.

    Attributes:
        plan: The compiled pipeline.
        owner: Names this worker in leases and manifests.
        postgres_url: Gives the database of a sink that names none.
        open_store: Opens an object store by URL.
        lease_s: Length of the service's lease in seconds; 0 takes none.
        is_fencing: False switches the epoch check off; only for tests that show what it is for.
    """

    plan: Plan
    owner: str
    postgres_url: Callable[[], str]
    open_store: Callable[[str], ObjectStore]
    lease_s: float = 0.0
    is_fencing: bool = True


def sink_context(
    plan: Plan,
    *,
    owner: str | None = None,
    postgres_url: Callable[[], str] | None = None,
    open_store: Callable[[str], ObjectStore] | None = None,
    lease_s: float = 0.0,
) -> SinkContext:
    """Make a context; what is not given comes from the settings, and from embedded servers where they say nothing."""
    return SinkContext(
        plan=plan,
        owner=owner or worker_name(),
        postgres_url=postgres_url or _settings_postgres,
        open_store=open_store or _settings_store,
        lease_s=lease_s,
    )


def open_sinks(context: SinkContext) -> list[Sink]:
    """Open the sinks of a pipeline."""
    return [SINKS.get(config.type)(config, context) for config in context.plan.config.sinks]


def worker_name() -> str:
    """Name this process: host, process id and a random part (process ids return)."""
    import os
    import secrets
    import socket

    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def _settings_postgres() -> str:
    from tidemill_core.embedded import runtime

    return runtime.postgres_url(Settings.from_env())


def _settings_store(url: str) -> ObjectStore:
    from tidemill_core.storage import open_store

    return open_store(url, Settings.from_env().storage)


def _text(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).decode("utf-8", "backslashreplace")
