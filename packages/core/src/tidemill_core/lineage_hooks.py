"""What the packages announce about data they read and wrote; lineage subscribes.

Announcing costs a tuple lookup when nobody listens. A subscriber that raises is
counted and logged, and never fails the work it watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

DatasetUrn = str
"""``scheme://authority/name``: ``postgres://host:port/db/schema.table``, ``s3://bucket/key``, ``kafka://host:port/topic``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a dataset: its name, its type in the words of its store, and where it came from."""

    name: str
    type: str = ""
    sources: tuple[tuple[DatasetUrn, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEvent:
    """A job read or wrote a dataset.

    `inputs` of a write are the datasets it was made from. `asset_key` is the Dagster
    key where there is one (``raw/weather``).
    """

    kind: Literal["read", "wrote"]
    dataset: DatasetUrn
    job: str
    run_id: str | None = None
    inputs: tuple[DatasetUrn, ...] = ()
    columns: tuple[Column, ...] = ()
    rows: int | None = None
    bytes: int | None = None
    asset_key: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


Subscriber = Callable[[DataEvent], None]

_subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Hear every event of this process from now on; call the result to stop."""
    global _subscribers  # noqa: PLW0603  # read on a hot path: one tuple look-up
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603
        _subscribers = tuple(each for each in _subscribers if each is not subscriber)

    return unsubscribe


@contextmanager
def subscribed(subscriber: Subscriber) -> Iterator[None]:
    """Hear every event inside the block."""
    unsubscribe = subscribe(subscriber)
    try:
        yield
    finally:
        unsubscribe()


def announce(event: DataEvent) -> None:
    """Tell every subscriber; their errors are logged and never raised."""
    for subscriber in _subscribers:
        try:
            subscriber(event)
        except Exception as error:  # noqa: BLE001  # the watcher must never fail the watched
            from tidemill_core.telemetry import get_logger

            get_logger(__name__).warning("lineage_subscriber_failed", error=repr(error), dataset=event.dataset)


def announce_read(dataset: DatasetUrn, *, job: str, columns: Sequence[Column] = (), rows: int | None = None) -> None:
    """Announce that `job` read `dataset`."""
    if _subscribers:
        announce(DataEvent(kind="read", dataset=dataset, job=job, columns=tuple(columns), rows=rows))


def announce_wrote(
    dataset: DatasetUrn,
    *,
    job: str,
    inputs: Sequence[DatasetUrn] = (),
    columns: Sequence[Column] = (),
    rows: int | None = None,
    asset_key: str | None = None,
) -> None:
    """Announce that `job` wrote `dataset` from `inputs`."""
    if _subscribers:
        announce(
            DataEvent(
                kind="wrote",
                dataset=dataset,
                job=job,
                inputs=tuple(inputs),
                columns=tuple(columns),
                rows=rows,
                asset_key=asset_key,
            )
        )
