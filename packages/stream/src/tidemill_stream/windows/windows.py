"""Event-time windows of one partition: pure, and the same whatever way the stream is cut into batches.

The watermark is the largest event time seen so far in the partition. Whether a record
is late is decided by the watermark before it, record by record; closed windows only
leave the state when they are taken. So neither batch cuts nor restarts change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tidemill_stream.windows.aggregates import Reducer

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedWindow:
    """One window's final result; `start_us` and `end_us` bound it as [start, end)."""

    start_us: int
    end_us: int
    key: Key
    values: tuple[Any, ...]


class Windows(Protocol):
    """The windows of one partition."""

    watermark_us: int | None

    def add(self, time_us: int, key: Key, record: Any) -> bool:
        """Count a record in; False if a window it belongs to has closed."""

    def take_closed(self) -> list[ClosedWindow]:
        """Remove and return the windows the watermark has closed, in order of start, end and key."""

    def flush(self) -> list[ClosedWindow]:
        """Advance the watermark so far that every open window closes; remove and return them."""

    def dump(self) -> list[Any]:
        """Write the state as plain lists."""

    def restore(self, state: list[Any]) -> None:
        """Read what `dump` wrote."""

    def __len__(self) -> int: ...


class FixedWindows:
    """Tumbling and hopping windows; a tumbling one hops by its size."""

    def __init__(self, reducer: Reducer, *, size_us: int, hop_us: int, grace_us: int = 0, offset_us: int = 0) -> None:
        self._reducer, self._size, self._hop = reducer, size_us, hop_us
        self._grace, self._offset = grace_us, offset_us
        self._open: dict[tuple[int, Key], list[Any]] = {}
        self.watermark_us: int | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, time_us: int, key: Key, record: Any) -> bool:
        """Count a record into each window that holds its time and is open."""
        watermark = self.watermark_us
        if watermark is None:
            watermark = self.watermark_us = time_us
        elif time_us > watermark:
            self.watermark_us = time_us
        start = time_us - (time_us - self._offset) % self._hop
        first_open = watermark - self._grace - self._size  # a window is open while start is above this
        in_time = True
        while start > time_us - self._size:
            if start <= first_open:
                in_time = False
                break
            place = (start, key)
            accumulator = self._open.get(place)
            if accumulator is None:
                accumulator = self._open[place] = self._reducer.create()
            self._reducer.update(accumulator, record)
            start -= self._hop
        return in_time

    def take_closed(self) -> list[ClosedWindow]:
        """Remove and return the windows whose end and grace the watermark has reached."""
        if self.watermark_us is None:
            return []
        last = self.watermark_us - self._grace - self._size
        return self._take([place for place in self._open if place[0] <= last])

    def flush(self) -> list[ClosedWindow]:
        """Close every window."""
        if self._open:
            last = max(start for start, _ in self._open) + self._size + self._grace
            self.watermark_us = max(last, self.watermark_us if self.watermark_us is not None else last)
        return self._take(list(self._open))

    def _take(self, places: list[tuple[int, Key]]) -> list[ClosedWindow]:
        places.sort(key=lambda place: (place[0], _order(place[1])))
        return [
            ClosedWindow(
                start_us=start,
                end_us=start + self._size,
                key=key,
                values=self._reducer.finish(self._open.pop((start, key))),
            )
            for start, key in places
        ]

    def dump(self) -> list[Any]:
        """Write the open windows as ``[start, key, accumulator]``."""
        return [[start, list(key), accumulator] for (start, key), accumulator in self._open.items()]

    def restore(self, state: list[Any]) -> None:
        """Read what `dump` wrote."""
        self._open = {(start, tuple(key)): list(accumulator) for start, key, accumulator in state}


@dataclass(slots=True)
class _Session:
    first_us: int
    last_us: int
    accumulator: list[Any]


class SessionWindows:
    """Windows that end after a gap without records; a record may join two of them."""

    def __init__(self, reducer: Reducer, *, gap_us: int, grace_us: int = 0) -> None:
        self._reducer, self._gap, self._grace = reducer, gap_us, grace_us
        self._open: dict[Key, list[_Session]] = {}
        self.watermark_us: int | None = None

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def add(self, time_us: int, key: Key, record: Any) -> bool:
        """Count a record into the session it belongs to, joining sessions it bridges."""
        watermark = self.watermark_us
        if watermark is None:
            watermark = self.watermark_us = time_us
        elif time_us > watermark:
            self.watermark_us = time_us
        first_open = watermark - self._gap - self._grace  # a session is open while its last record is not before this
        sessions = self._open.get(key, [])
        touching = [
            session
            for session in sessions
            if session.last_us >= first_open and session.first_us - self._gap <= time_us <= session.last_us + self._gap
        ]
        if not touching and time_us < first_open:
            return False
        joined = _Session(time_us, time_us, self._reducer.create())
        for session in touching:  # oldest first, so that sums do not depend on how they were stored
            joined.first_us = min(joined.first_us, session.first_us)
            joined.last_us = max(joined.last_us, session.last_us)
            self._reducer.merge(joined.accumulator, session.accumulator)
        self._reducer.update(joined.accumulator, record)
        kept = [session for session in sessions if session not in touching]
        kept.append(joined)
        kept.sort(key=lambda session: session.first_us)
        self._open[key] = kept
        return True

    def take_closed(self) -> list[ClosedWindow]:
        """Remove and return the sessions the watermark has left behind by the gap and the grace."""
        if self.watermark_us is None:
            return []
        first_open = self.watermark_us - self._gap - self._grace
        return self._take(lambda session: session.last_us < first_open)

    def flush(self) -> list[ClosedWindow]:
        """Close every session."""
        if self._open:
            last = max(session.last_us for sessions in self._open.values() for session in sessions)
            beyond = last + self._gap + self._grace + 1
            self.watermark_us = max(beyond, self.watermark_us if self.watermark_us is not None else beyond)
        return self._take(lambda _: True)

    def _take(self, is_closed: Callable[[_Session], bool]) -> list[ClosedWindow]:
        closed = []
        for key, sessions in list(self._open.items()):
            kept = [session for session in sessions if not is_closed(session)]
            if len(kept) == len(sessions):
                continue
            closed += [
                ClosedWindow(
                    start_us=session.first_us,
                    end_us=session.last_us + self._gap,
                    key=key,
                    values=self._reducer.finish(session.accumulator),
                )
                for session in sessions
                if is_closed(session)
            ]
            if kept:
                self._open[key] = kept
            else:
                del self._open[key]
        return sorted(closed, key=lambda window: (window.start_us, window.end_us, _order(window.key)))

    def dump(self) -> list[Any]:
        """Write the open sessions as ``[first, last, key, accumulator]``."""
        return [[each.first_us, each.last_us, list(key), each.accumulator] for key, each in self._sessions()]

    def _sessions(self) -> Iterator[tuple[Key, _Session]]:
        for key, sessions in self._open.items():
            for session in sessions:
                yield key, session

    def restore(self, state: list[Any]) -> None:
        """Read what `dump` wrote."""
        self._open = {}
        for first, last, key, accumulator in state:
            self._open.setdefault(tuple(key), []).append(_Session(first, last, list(accumulator)))


def _order(key: Key) -> tuple[tuple[bool, str, Any], ...]:
    """Order keys of mixed types and nulls the same way every time."""
    return tuple((part is None, type(part).__name__, part if part is not None else 0) for part in key)
