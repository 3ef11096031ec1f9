"""The graph in a SQLite file: a run is merged at the cost of the run, a question read at the cost of its answer.

``entries`` and ``bodies`` hold what runs said (see `merging`); the other tables are derived from them
and hold what is in force. Links between assets, folders and jobs are found when they are asked for.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from tidemill_lineage import merging
from tidemill_lineage.delivery import forks
from tidemill_lineage.delivery.database import is_damage, open_database, set_aside, transaction
from tidemill_lineage.graph import Graph, derived, stored_names
from tidemill_lineage.merging import Entry, Subject, Touch
from tidemill_lineage.model import DatasetUrn, Edge, Run
from tidemill_lineage.stored_queries import StoredQueries

T = TypeVar("T")

_VERSION = 1
_REVISION = "revision"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS subjects (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, about TEXT NOT NULL, more TEXT NOT NULL, UNIQUE (kind, about, more));
CREATE TABLE IF NOT EXISTS entries (
  subject INTEGER NOT NULL, run TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (subject, run)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_of_run ON entries (run);
CREATE INDEX IF NOT EXISTS entries_of_body ON entries (body);
CREATE TABLE IF NOT EXISTS bodies (digest BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS datasets (
  id INTEGER PRIMARY KEY, urn TEXT NOT NULL UNIQUE, asset_key TEXT NOT NULL DEFAULT '',
  columns TEXT NOT NULL DEFAULT '[]');
CREATE INDEX IF NOT EXISTS datasets_of_asset ON datasets (asset_key) WHERE asset_key <> '';
CREATE TABLE IF NOT EXISTS in_force (
  subject INTEGER PRIMARY KEY, job TEXT NOT NULL, run TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS edges (
  subject INTEGER NOT NULL, source INTEGER NOT NULL, source_column TEXT NOT NULL, target INTEGER NOT NULL,
  target_column TEXT NOT NULL, kind TEXT NOT NULL, subtype TEXT NOT NULL, method TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS edges_of_subject ON edges (subject);
CREATE INDEX IF NOT EXISTS edges_of_source ON edges (source, source_column);
CREATE INDEX IF NOT EXISTS edges_of_target ON edges (target, target_column);
CREATE TABLE IF NOT EXISTS reads (subject INTEGER NOT NULL, dataset INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS reads_of_subject ON reads (subject);
CREATE INDEX IF NOT EXISTS reads_of_dataset ON reads (dataset);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""


class StoredGraph(StoredQueries):
    """A graph on disk; any number of processes may write and ask at once.

    Args:
        path: The SQLite file, made when it is first written; None keeps it in memory.
        on_damage: Called with an empty store when the file was damaged and has been set aside.
    """

    def __init__(self, path: Path | None, *, on_damage: Callable[[StoredGraph], None] | None = None) -> None:
        self.file, self._on_damage, self._is_emptied = path, on_damage, False
        self._connections = forks.PerProcess(self._open)
        super().__init__(self._rows)

    def add(self, runs: Iterable[Run]) -> bool:
        """Merge runs into the graph, all or none of them.

        Returns:
            Whether anything changed but the time at which it was last said.
        """
        grouped = merging.grouped(runs)
        return self._write(partial(self._add, grouped)) if grouped else False

    def add_state(self, state: merging.State) -> bool:
        """Merge what another graph has been told, such as that of a document."""
        return self._write(partial(self._add, {subject: list(entries) for subject, entries in state.items()}))

    def replace(self, runs: Iterable[Run]) -> None:
        """Forget everything, and begin anew with these runs."""
        grouped = merging.grouped(runs)

        def work(db: sqlite3.Connection) -> None:
            for table in ("entries", "bodies", "subjects", "edges", "reads", "in_force", "datasets"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608  # names of our own
            self._add(grouped, db)
            _count_change(db)  # forgetting is a change, too

        self._write(work)

    def revision(self) -> int:
        """Count the changes so far that were more than a later time; every process counts on."""
        return int(self.note(_REVISION) or 0)

    def note(self, name: str) -> str | None:
        """Read what was noted beside the graph, such as what was exported."""
        rows = self._rows("SELECT value FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def keep_note(self, name: str, value: str) -> None:
        """Note something beside the graph."""
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", (name, value)))

    def asset_names(self) -> dict[DatasetUrn, DatasetUrn]:
        """Map ``asset://key`` to the stored dataset of that asset, where there is one and no more."""
        rows = self._rows("SELECT asset_key, urn FROM datasets WHERE asset_key <> ''", ())
        return stored_names((str(key), str(urn)) for key, urn in rows)

    def graph(self) -> Graph:
        """Read the whole graph into memory, for an export."""
        return derived(self._mended(self._state))

    def is_empty(self) -> bool:
        """Whether no run was ever merged."""
        return not self._rows("SELECT 1 FROM entries LIMIT 1", ())

    def close(self) -> None:
        """Close this process's connection; the store opens again when it is used again."""
        with forks.guard():
            connection = self._connections.take()
            if connection is not None:
                connection.close()

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        return self._mended(lambda db: db.execute(query, values).fetchall())

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(db: sqlite3.Connection) -> T:
            with transaction(db):
                return work(db)

        return self._mended(whole)

    def _mended(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work; a damaged file is set aside and told, and the work done on a new one."""
        with forks.guard():
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if self.file is None or not is_damage(error):
                    raise
                self.close()
                set_aside(self.file)
                self._is_emptied = True
            return work(self._opened())

    def _open(self) -> sqlite3.Connection:
        def emptied() -> None:
            self._is_emptied = True

        return open_database(self.file, _SCHEMA, version=_VERSION, on_damage=emptied)

    def _opened(self) -> sqlite3.Connection:
        db = self._connections.get()
        if self._is_emptied:
            self._is_emptied = False
            if self._on_damage is not None:
                self._on_damage(self)
        return db

    def _state(self, db: sqlite3.Connection) -> merging.State:
        found: dict[Subject, list[Entry]] = {}
        query = (
            "SELECT s.kind, s.about, s.more, e.run, e.at, b.data FROM entries e JOIN subjects s ON s.id = e.subject "
            "JOIN bodies b ON b.digest = e.body ORDER BY e.subject, e.at DESC, e.run DESC"
        )
        for kind, about, more, run, at, data in db.execute(query):
            found.setdefault((kind, about, more), []).append(merging.parsed([run, at, orjson.loads(data)]))
        return {subject: tuple(entries) for subject, entries in found.items()}

    def _add(self, grouped: dict[Subject, list[Entry]], db: sqlite3.Connection) -> bool:
        work = _Work(db)
        changed = [subject for subject, entries in grouped.items() if work.unite(subject, entries)]
        differs = work.derive(changed)
        if differs:
            _count_change(db)
        return differs


def _count_change(db: sqlite3.Connection) -> None:
    """Count one change in the transaction that makes it, so that no reader sees the one without the other."""
    query = "INSERT INTO notes VALUES (?, '1') ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1"
    db.execute(query, (_REVISION,))


class _Work:
    """One transaction: entries first, then what they put in force."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self._subjects: dict[Subject, int] = {}
        self._datasets: dict[DatasetUrn, int] = {}
        self._touches: dict[tuple[str, str], Touch] = {}

    def unite(self, subject: Subject, more: Iterable[Entry]) -> bool:
        """Add entries to a subject; whether there was anything new in them."""
        number = self.subject(subject)
        known = self.entries(number)
        after = merging.united(known, more)
        if after == known:
            return False
        old = {entry.run: entry for entry in known}
        for entry in after:
            if old.pop(entry.run, None) != entry:
                self.db.execute(
                    "INSERT OR REPLACE INTO entries (subject, run, at, body) VALUES (?, ?, ?, ?)",
                    (number, entry.run, entry.at, self._body(entry)),
                )
        for run in old:
            self.db.execute("DELETE FROM entries WHERE subject = ? AND run = ?", (number, run))
            if subject[0] == merging.EDGES:
                self._forget_touch(subject[1], run)
        self._forget_bodies(known)
        return True

    def derive(self, changed: Iterable[Subject]) -> bool:
        """Put in force what changed subjects say; whether that differs in more than time."""
        edges: dict[int, tuple[str, DatasetUrn]] = {}
        differs = False
        for subject in changed:
            kind, about, more = subject
            number = self.subject(subject)
            if kind == merging.EDGES:
                edges[number] = about, more
            elif kind == merging.TOUCHED:
                edges.update(self._spoken_in(about, more))
                differs |= self._derive_touched(about, more)
            else:
                differs |= self._derive_dataset(about)
        for number, (job, target) in edges.items():
            differs |= self._derive_edges(number, job, target)
        return differs

    def subject(self, subject: Subject) -> int:
        """The number of a subject; given when it is first spoken of."""
        number = self._subjects.get(subject)
        if number is None:
            number = self._one("SELECT id FROM subjects WHERE kind = ? AND about = ? AND more = ?", *subject)
            if number is None:
                query = "INSERT INTO subjects (kind, about, more) VALUES (?, ?, ?) RETURNING id"
                number = self._one(query, *subject)
            assert number is not None
            self._subjects[subject] = number
        return number

    def dataset(self, urn: DatasetUrn) -> int:
        """The number of a dataset; given when it is first named."""
        number = self._datasets.get(urn)
        if number is None:
            number = self._one("SELECT id FROM datasets WHERE urn = ?", urn)
            if number is None:
                number = self._one("INSERT INTO datasets (urn) VALUES (?) RETURNING id", urn)
            assert number is not None
            self._datasets[urn] = number
        return number

    def entries(self, number: int) -> tuple[Entry, ...]:
        """What was said of a subject, the newest first."""
        rows = self.db.execute(
            "SELECT e.run, e.at, b.data FROM entries e JOIN bodies b ON b.digest = e.body WHERE e.subject = ? "
            "ORDER BY e.at DESC, e.run DESC", (number,),
        )  # fmt: skip
        return tuple(merging.parsed([run, at, orjson.loads(data)]) for run, at, data in rows)

    def touch(self, job: str, run: str) -> Touch:
        """What a job touched in a run."""
        if (job, run) not in self._touches:
            self._touches[job, run] = merging.touch_of(self.entries(self.subject((merging.TOUCHED, job, run))))
        return self._touches[job, run]

    def _derive_edges(self, number: int, job: str, target: DatasetUrn) -> bool:
        entries = self.entries(number)
        if not entries:
            return False
        touches = {entry.run: self.touch(job, entry.run) for entry in entries}
        entry = merging.in_force(entries, touches) or entries[0]
        here = touches[entry.run]
        edges = merging.edges_in_force(job, target, entry, here)
        reads = sorted(here.reads)
        told = (target, here.names.get(target, target), reads, [(e.source, *_columns_of(e)) for e in edges])
        digest = _digest(orjson.dumps(told))
        old = self.db.execute("SELECT body FROM in_force WHERE subject = ?", (number,)).fetchone()
        self.db.execute(
            "INSERT OR REPLACE INTO in_force (subject, job, run, at, body) VALUES (?, ?, ?, ?, ?)",
            (number, job, entry.run, entry.at, digest),
        )
        if old is not None and old[0] == digest:
            return False
        self.dataset(here.names.get(target, target))
        self.db.execute("DELETE FROM edges WHERE subject = ?", (number,))
        self.db.executemany(
            "INSERT INTO edges (subject, source, source_column, target, target_column, kind, subtype, method) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(number, self.dataset(e.source), e.source_column, self.dataset(e.target), e.target_column, e.kind,
              e.subtype, e.method) for e in edges],
        )  # fmt: skip
        self._replace_reads(number, reads)
        return True

    def _derive_touched(self, job: str, run: str) -> bool:
        """Name what a run touched; what a job that only reads, reads."""
        touched = self.touch(job, run)
        before = self._one("SELECT count(*) FROM datasets")
        for urn in (*touched.reads, *touched.writes, *touched.aliases):
            self.dataset(urn)
        only_reads = self._one("SELECT 1 FROM subjects WHERE kind = ? AND about = ?", merging.EDGES, job) is None
        reads: Subject = ("reads", job, "")
        is_new = self._one("SELECT 1 FROM subjects WHERE kind = ? AND about = ? AND more = ?", *reads) is None
        number = self.subject(reads)
        old = [row[0] for row in self.db.execute("SELECT dataset FROM reads WHERE subject = ?", (number,))]
        wanted: list[DatasetUrn] = []
        if only_reads:
            newest = self._newest_touches(job)
            wanted = sorted(self.touch(job, newest[0]).reads) if newest else []
            for gone in newest[merging.KEPT_RUNS :]:
                self._forget_touch(job, gone)
        if sorted(old) != sorted(map(self.dataset, wanted)):
            self._replace_reads(number, wanted)
            return True
        return is_new or before != self._one("SELECT count(*) FROM datasets")

    def _derive_dataset(self, urn: DatasetUrn) -> bool:
        columns = merging.columns_in_force(self.entries(self.subject((merging.COLUMNS, urn, ""))))
        key = merging.asset_in_force(self.entries(self.subject((merging.ASSET, urn, ""))))
        number = self.dataset(urn)
        told = orjson.dumps(columns).decode()
        query = "UPDATE datasets SET asset_key = ?, columns = ? WHERE id = ? AND (asset_key <> ? OR columns <> ?)"
        return self.db.execute(query, (key, told, number, key, told)).rowcount > 0

    def _spoken_in(self, job: str, run: str) -> Iterator[tuple[int, tuple[str, DatasetUrn]]]:
        """The targets of which a job spoke in a run."""
        query = (
            "SELECT s.id, s.more FROM entries e JOIN subjects s ON s.id = e.subject "
            "WHERE e.run = ? AND s.kind = ? AND s.about = ?"
        )
        for number, target in self.db.execute(query, (run, merging.EDGES, job)).fetchall():
            yield number, (job, target)

    def _newest_touches(self, job: str) -> list[str]:
        query = (
            "SELECT s.more FROM subjects s JOIN entries e ON e.subject = s.id WHERE s.kind = ? AND s.about = ? "
            "ORDER BY e.at DESC, e.run DESC"
        )
        return [row[0] for row in self.db.execute(query, (merging.TOUCHED, job))]

    def _replace_reads(self, number: int, urns: Iterable[DatasetUrn]) -> None:
        self.db.execute("DELETE FROM reads WHERE subject = ?", (number,))
        rows = [(number, self.dataset(urn)) for urn in urns]
        self.db.executemany("INSERT INTO reads (subject, dataset) VALUES (?, ?)", rows)

    def _forget_touch(self, job: str, run: str) -> None:
        if next(self._spoken_in(job, run), None) is None:
            number = self.subject((merging.TOUCHED, job, run))
            known = self.entries(number)
            self.db.execute("DELETE FROM entries WHERE subject = ?", (number,))
            self.db.execute("DELETE FROM subjects WHERE id = ?", (number,))
            del self._subjects[merging.TOUCHED, job, run]
            self._forget_bodies(known)

    def _body(self, entry: Entry) -> bytes:
        data = _data(entry)
        digest = _digest(data)
        self.db.execute("INSERT OR IGNORE INTO bodies (digest, data) VALUES (?, ?)", (digest, data))
        return digest

    def _forget_bodies(self, entries: Iterable[Entry]) -> None:
        digests = {_digest(_data(entry)) for entry in entries}
        query = "DELETE FROM bodies WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM entries WHERE body = ?)"
        self.db.executemany(query, [(each, each) for each in digests])

    def _one(self, query: str, *values: object) -> int | None:
        found = self.db.execute(query, values).fetchone()
        return None if found is None else int(found[0])


def _columns_of(edge: Edge) -> tuple[str, ...]:
    return edge.source_column, edge.target, edge.target_column, edge.kind, edge.subtype, edge.method


def _data(entry: Entry) -> bytes:
    return orjson.dumps(merging.plain(entry)[2])


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
