"""All the sinks of one tracer: which outbox leads to each, and a courier for each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tidemill_lineage.delivery.courier import Courier
from tidemill_lineage.delivery.faults import Faults
from tidemill_lineage.delivery.outbox import Outbox, Sink
from tidemill_lineage.emitters._base import Emitter
from tidemill_lineage.model import Run

T = TypeVar("T")


class _Road:
    """One outbox and the couriers that go from it."""

    def __init__(self, box: Outbox, emitters: Sequence[Emitter], faults: Faults) -> None:
        self.box = box
        self.sinks = [
            Sink(key=each.identity or f"{each.name} {uuid.uuid4()}", wholes=each.traits.whole_runs) for each in emitters
        ]
        self.couriers = [Courier(each, sink.key, box, faults) for each, sink in zip(emitters, self.sinks, strict=True)]
        self.channel: int | None = None

    def number(self) -> int:
        """The channel's number, found once a process: a file set aside meanwhile has other numbers."""
        if self.channel is None:
            self.channel = self.box.channel(self.sinks)
            self.box.expire()
        return self.channel

    @property
    def wants_wholes(self) -> bool:
        return any(sink.wholes for sink in self.sinks)

    def begin(self, run_id: str) -> None:
        self.box.begin(self.number(), run_id)

    def wake(self) -> None:
        for each in self.couriers:
            each.start()
            each.wake()

    def close(self) -> None:
        if self.box.path is not None:
            self.box.close()


class Dispatch:
    """Puts runs into the outboxes and drives the couriers.

    Sinks that live in this process only have an outbox in memory; all others share the one on disk.

    Args:
        emitters: The sinks.
        path: The outbox on disk; made when it is first needed.
        faults: Who counts what goes wrong.
    """

    def __init__(self, emitters: Sequence[Emitter], path: Path, faults: Faults) -> None:
        self.path, self._faults = path, faults
        lasting = [each for each in emitters if each.identity is not None]
        passing = [each for each in emitters if each.identity is None]
        self._roads = [
            _Road(Outbox(place), found, faults) for place, found in ((path, lasting), (None, passing)) if found
        ]

    def after_fork(self) -> None:
        """Begin without threads in a forked child; an outbox in memory begins empty."""
        for road in self._roads:
            if road.box.path is None:
                road.channel = None
            for courier in road.couriers:
                courier.after_fork()

    def begin(self, run_id: str) -> None:
        """Take part in a run."""
        for road in self._roads:
            if road.wants_wholes:
                self._guarded(partial(road.begin, run_id), None)

    def end(self, run_ids: Sequence[str] | None = None, *, but: Sequence[str] = ()) -> None:
        """Take no further part in runs; see `Outbox.end`."""
        for road in self._roads:
            if road.wants_wholes:
                self._guarded(partial(road.box.end, run_ids, but=but), None)
                road.wake()

    def put(self, runs: Sequence[Run], *, keys: Sequence[bytes] | None = None) -> None:
        """Keep runs in every outbox, and wake the couriers; see `Outbox.put`.

        Raises:
            sqlite3.Error: An outbox cannot be written, as on a full disk.
            OSError: As above.
        """
        for road in self._roads:
            road.box.put(road.number(), runs, keys=keys)
            road.wake()

    def wait(self, deadline: float, *, local_only: bool = False, attempts: int | None = None) -> bool:
        """Wait until sinks have what is in the outboxes now; see `Courier.wait`.

        Args:
            deadline: Give up then (monotonic).
            local_only: Wait only for files of this machine.
            attempts: Give up a sink, too, after so many failures.
        """
        waits: list[tuple[Courier, int]] = []
        for road in self._roads:
            couriers = [each for each in road.couriers if each.emitter.traits.local or not local_only]
            last = self._guarded(road.box.last, 0) if couriers else 0
            for each in couriers:
                # all start before any is waited for: a hung one must not hold up the others
                each.start()
                each.wake(hurry=True)
                waits.append((each, last))
        arrived = [
            self._guarded(partial(each.wait, last, deadline, attempts=attempts), otherwise=False)
            for each, last in waits
        ]
        return all(arrived)

    def waits_for(self, emitter: Emitter) -> int:
        """Count what one sink has not taken yet."""
        found = [
            self._guarded(partial(road.box.waiting, each.key), 0)
            for road in self._roads for each in road.couriers if each.emitter is emitter
        ]  # fmt: skip
        return sum(found)

    def waiting(self) -> dict[str, int]:
        """Count what each sink has not taken yet."""
        return {
            sink.key: self._guarded(partial(road.box.waiting, sink.key), 0)
            for road in self._roads if road.channel is not None for sink in road.sinks
        }  # fmt: skip

    def stop(self, deadline: float) -> None:
        """Stop the couriers; each closes its emitter. One that hangs is left behind."""
        for road in self._roads:
            for each in road.couriers:
                each.stop()
        for road in self._roads:
            ended = [each for each in road.couriers if each.join(deadline)]
            if len(ended) == len(road.couriers):
                self._guarded(road.close, None)
            for each in ended:
                each.after_fork()

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # a full disk, a damaged file: counted; the traced work goes on
            self._faults.count("outbox", error)
            return otherwise
