"""Runs on disk until every sink has them: one table of runs, and a place a sink.

A *channel* is the set of sinks that one tracer writes to; each sink of a channel has its own place in
it, so none waits for another, and a tracer of another program that shares the file does not get what
was never meant for it. Runs are kept as *parts*, written as the work goes on, for sinks that merge;
when the run ends, its parts become one *whole* a job, for sinks that want a job's end only once.

A run ends when the processes that take part in it say so, or when they are gone: see `Holders`.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import orjson

from tidemill_lineage.delivery import forks
from tidemill_lineage.delivery.database import is_damage, open_database, set_aside, transaction
from tidemill_lineage.delivery.faults import say
from tidemill_lineage.delivery.folding import fold
from tidemill_lineage.delivery.holders import Holders
from tidemill_lineage.document import dump_run, parse_runs
from tidemill_lineage.model import Run

T = TypeVar("T")

KEEP_S = 14 * 86_400.0
"""A sink that has not come back after this long loses what waits for it; that is told."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS channels (id INTEGER PRIMARY KEY, sinks TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS places (
  channel INTEGER NOT NULL, sink TEXT NOT NULL, wholes INTEGER NOT NULL, seq INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (channel, sink)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, channel INTEGER NOT NULL, whole INTEGER NOT NULL, at REAL NOT NULL,
  run TEXT NOT NULL, job TEXT NOT NULL, is_open INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS runs_of_channel ON runs (channel, whole, seq);
CREATE INDEX IF NOT EXISTS open_parts ON runs (run) WHERE is_open;
CREATE TABLE IF NOT EXISTS holders (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS takes_part (
  run TEXT NOT NULL, holder INTEGER NOT NULL, PRIMARY KEY (run, holder)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endings (
  channel INTEGER NOT NULL, run TEXT NOT NULL, job TEXT NOT NULL, times INTEGER NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (channel, run, job)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
  channel INTEGER NOT NULL, key BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (channel, key)) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A sink as the outbox knows it.

    Attributes:
        key: The same in every process, such as ``json file:///lake/lineage.json``.
        wholes: It wants a run once, when it has ended, rather than its parts.
    """

    key: str
    wholes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One row on its way to a sink."""

    seq: int
    channel: int
    runs: tuple[Run, ...]


class Outbox:
    """A file of runs that wait for sinks; any number of processes may use it at once.

    Args:
        path: The SQLite file; None keeps it in memory, for sinks that live in this process only.
        clock: Seconds since the epoch.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self._connections = forks.PerProcess(self._open)
        self._holders = Holders(path.with_name(f"{path.name}.holders")) if path else None
        self._holder, self._holder_pid = 0, 0
        self._has_opened = False

    def channel(self, sinks: Sequence[Sink]) -> int:
        """Find or make the channel to these sinks."""
        name = orjson.dumps(sorted((each.key, each.wholes) for each in sinks)).decode()

        def work(db: sqlite3.Connection) -> int:
            found = db.execute("SELECT id FROM channels WHERE sinks = ?", (name,)).fetchone()
            if found is not None:
                return int(found[0])
            number = int(db.execute("INSERT INTO channels (sinks) VALUES (?) RETURNING id", (name,)).fetchone()[0])
            rows = [(number, each.key, each.wholes) for each in sinks]
            db.executemany("INSERT INTO places (channel, sink, wholes) VALUES (?, ?, ?)", rows)
            return number

        return self._write(work)

    def put(self, channel: int, runs: Sequence[Run], *, keys: Sequence[bytes] | None = None) -> None:
        """Keep parts of runs; on return they survive this process.

        Args:
            channel: Which sinks they are for.
            runs: What they are.
            keys: One a run; a run whose key was put into the channel before is left out.
        """

        def work(db: sqlite3.Connection) -> None:
            wholes = self._wants_wholes(db, channel)
            for number, run in enumerate(runs):
                if keys is not None and not self._is_new(db, channel, keys[number]):
                    continue
                row = (channel, self._clock(), run.id, run.job, wholes, b"[" + dump_run(run) + b"]")
                db.execute(
                    "INSERT INTO runs (channel, whole, at, run, job, is_open, body) VALUES (?, 0, ?, ?, ?, ?, ?)", row
                )
            if wholes:
                self._take_part(db, {run.id for run in runs})

        self._write(work)

    def begin(self, channel: int, run_id: str) -> None:
        """Take part in a run, so that it does not end before this process says so or is gone."""

        def work(db: sqlite3.Connection) -> None:
            if self._wants_wholes(db, channel):
                self._take_part(db, {run_id})

        self._write(work)

    def end(self, run_ids: Sequence[str] | None = None, *, but: Sequence[str] = ()) -> None:
        """Take no further part in runs, default in all; those nobody takes part in become wholes.

        Args:
            run_ids: Which runs.
            but: Not these.
        """

        def work(db: sqlite3.Connection) -> None:
            mine = db.execute("SELECT run FROM takes_part WHERE holder = ?", (self._holder,))
            ended = {row[0] for row in mine if (run_ids is None or row[0] in run_ids) and row[0] not in but}
            rows = [(run, self._holder) for run in ended]
            db.executemany("DELETE FROM takes_part WHERE run = ? AND holder = ?", rows)
            self._end_abandoned(db)

        self._write(work)

    def reap(self) -> None:
        """End the runs whose processes are gone, such as by a kill."""
        if self._read(lambda db: db.execute("SELECT 1 FROM runs WHERE is_open LIMIT 1").fetchone()) is not None:
            self._write(self._end_abandoned)

    def next(self, sink: str, limit: int = 256) -> list[Parcel]:
        """Read what a sink has not taken yet, oldest first, from every channel that leads to it."""
        rows = self._read(lambda db: db.execute(
            "SELECT r.seq, r.channel, r.body FROM places p JOIN runs r ON r.channel = p.channel "
            "AND r.whole = p.wholes AND r.seq > p.seq WHERE p.sink = ? ORDER BY r.seq LIMIT ?", (sink, limit),
        ).fetchall())  # fmt: skip
        return [Parcel(seq=seq, channel=channel, runs=parse_runs(body)) for seq, channel, body in rows]

    def advance(self, sink: str, parcels: Sequence[Parcel]) -> None:
        """Move a sink's place past parcels that it took; what no sink waits for any more goes."""
        places: dict[int, int] = {each.channel: each.seq for each in sorted(parcels, key=lambda each: each.seq)}

        def work(db: sqlite3.Connection) -> None:
            for channel, seq in places.items():
                db.execute(
                    "UPDATE places SET seq = ? WHERE channel = ? AND sink = ? AND seq < ?", (seq, channel, sink, seq)
                )
                _forget(db, channel)

        self._write(work)

    def waiting(self, sink: str, *, upto: int | None = None) -> int:
        """Count what a sink has not taken yet, of the rows up to `upto`."""
        return int(self._read(lambda db: db.execute(
            "SELECT count(*) FROM places p JOIN runs r ON r.channel = p.channel AND r.whole = p.wholes "
            "AND r.seq > p.seq WHERE p.sink = ? AND r.seq <= ?", (sink, 2**62 if upto is None else upto),
        ).fetchone()[0]))  # fmt: skip

    def last(self) -> int:
        """The number of the newest row ever put."""
        found = self._read(lambda db: db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'runs'").fetchone())
        return int(found[0]) if found else 0

    def expire(self) -> int:
        """Drop what has waited longer than `KEEP_S`, and say so; returns how many rows."""
        limit = self._clock() - KEEP_S

        def work(db: sqlite3.Connection) -> int:
            lost = db.execute("DELETE FROM runs WHERE at < ? AND NOT is_open", (limit,)).rowcount
            db.execute("DELETE FROM endings WHERE at < ?", (limit,))
            db.execute("DELETE FROM seen WHERE at < ?", (limit,))
            return lost

        oldest = self._read(lambda db: db.execute("SELECT min(at) FROM runs").fetchone())[0]
        lost = self._write(work) if oldest is not None and oldest < limit else 0
        if lost:
            say("lineage_expired", runs=lost, outbox=str(self.path), days=KEEP_S / 86_400)
        return lost

    def lock_path(self, sink: str) -> Path | None:
        """Name the file whose lock says who delivers to a sink; None for an outbox in memory."""
        if self.path is None:
            return None
        return self.path.with_name(f"{self.path.name}.{hashlib.sha256(sink.encode()).hexdigest()[:16]}.lock")

    def close(self) -> None:
        """Close this process's connection; the outbox opens again when it is used again."""
        with forks.guard():
            connection = self._connections.take()
            if connection is not None:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return open_database(self.path, _SCHEMA, version=_VERSION)
        except (OSError, sqlite3.Error) as error:
            if self.path is None or self._has_opened:
                raise
            # a home that cannot be written: what is captured still reaches the sinks that are well
            note = "runs wait in memory, and are lost with this process if a sink does not take them"
            say("lineage_no_outbox", file=str(self.path), error=str(error), note=note)
            self.path, self._holders = None, None
            return open_database(None, _SCHEMA, version=_VERSION)
        finally:
            self._has_opened = True

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self._mended(lambda: work(self._connections.get()))

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole() -> T:
            db = self._connections.get()
            self._be_alive(db)
            with transaction(db):
                return work(db)

        return self._mended(whole)

    def _mended(self, work: Callable[[], T]) -> T:
        """Do the work; a file found damaged is set aside, and the work done on a new one."""
        with forks.guard():
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if self.path is None or not is_damage(error):
                    raise
                self.close()
                self._holder_pid = 0
                set_aside(self.path)
                return work()

    def _be_alive(self, db: sqlite3.Connection) -> None:
        """Take a number for this process; it is alive as long as the kernel says so."""
        while self._holder_pid != os.getpid():
            # a transaction of its own: a number must not be given twice because later work was rolled back
            with transaction(db):
                query = "INSERT INTO holders (at) VALUES (?) RETURNING id"
                number = int(db.execute(query, (self._clock(),)).fetchone()[0])
            if self._holders is None or self._holders.hold(number):
                self._holder, self._holder_pid = number, os.getpid()

    def _take_part(self, db: sqlite3.Connection, run_ids: set[str]) -> None:
        rows = [(run, self._holder) for run in sorted(run_ids)]
        db.executemany("INSERT OR IGNORE INTO takes_part (run, holder) VALUES (?, ?)", rows)

    def _is_new(self, db: sqlite3.Connection, channel: int, key: bytes) -> bool:
        query = "INSERT OR IGNORE INTO seen (channel, key, at) VALUES (?, ?, ?)"
        return db.execute(query, (channel, key, self._clock())).rowcount > 0

    @staticmethod
    def _wants_wholes(db: sqlite3.Connection, channel: int) -> bool:
        query = "SELECT max(wholes) FROM places WHERE channel = ?"
        return bool(db.execute(query, (channel,)).fetchone()[0])

    def _end_abandoned(self, db: sqlite3.Connection) -> None:
        """Make wholes of the open parts whose run nobody alive takes part in."""
        for (holder,) in db.execute("SELECT DISTINCT holder FROM takes_part").fetchall():
            if holder != self._holder and (self._holders is None or not self._holders.is_alive(holder)):
                db.execute("DELETE FROM takes_part WHERE holder = ?", (holder,))
        rows = db.execute(
            "SELECT seq, channel, run, job, body FROM runs WHERE is_open AND run NOT IN (SELECT run FROM takes_part) "
            "ORDER BY seq"
        ).fetchall()
        parts: dict[tuple[int, str, str], list[Run]] = {}
        for _, channel, run, job, body in rows:
            parts.setdefault((channel, run, job), []).extend(parse_runs(body))
        for (channel, run, job), found in parts.items():
            self._put_whole(db, channel, run, job, fold(found))
        db.executemany("UPDATE runs SET is_open = 0 WHERE seq = ?", [(row[0],) for row in rows])
        for channel in {channel for channel, _, _ in parts}:
            _forget(db, channel)

    def _put_whole(self, db: sqlite3.Connection, channel: int, run: str, job: str, found: Sequence[Run]) -> None:
        times = db.execute(
            "INSERT INTO endings (channel, run, job, times, at) VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE "
            "SET times = times + 1, at = excluded.at RETURNING times", (channel, run, job, self._clock()),
        ).fetchone()[0]  # fmt: skip
        body = b"[" + b",".join(dump_run(replace(each, attempt=times - 1)) for each in found) + b"]"
        db.execute(
            "INSERT INTO runs (channel, whole, at, run, job, is_open, body) VALUES (?, 1, ?, ?, ?, 0, ?)",
            (channel, self._clock(), run, job, body),
        )


def _forget(db: sqlite3.Connection, channel: int) -> None:
    """Delete what every sink of a channel has; a kind of row that no sink wants has done its duty."""
    for wholes in (0, 1):
        db.execute(
            "DELETE FROM runs WHERE channel = ? AND whole = ? AND NOT is_open AND seq <= coalesce((SELECT min(seq) "
            "FROM places WHERE channel = ? AND wholes = ?), ?)", (channel, wholes, channel, wholes, 2**62),
        )  # fmt: skip


def facts(waiting: Mapping[str, int]) -> str:
    """Say in words what waits, such as ``3 for neo4j bolt://host:7687``."""
    return ", ".join(f"{count} for {sink}" for sink, count in waiting.items() if count)
