"""A sink that Tidemill does not know: everything into one SQLite file, exactly once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tidemill_stream import (
    Claim,
    Fenced,
    Lease,
    Output,
    Partition,
    Progress,
    SinkContext,
    SinkSettings,
    StoredLetter,
    Written,
)

_TABLES = """
CREATE TABLE IF NOT EXISTS outputs (pipeline, output, topic, partition, row);
CREATE TABLE IF NOT EXISTS progress (
    pipeline, topic, partition, next_offset, log_end, epoch, incarnation, state, PRIMARY KEY (pipeline, topic, partition));
"""


class AcmeSettings(SinkSettings):
    """Everything into one SQLite file."""

    type: Literal["acme"]
    """This sink."""
    path: Path
    """The file."""

    def outputs(self) -> Mapping[str, str]:
        """Take everything."""
        return dict.fromkeys(("rows", "windows", "dlq"), str(self.path))

    def place(self) -> str:
        """Name the sink by its file."""
        return f"acme:{self.path}"

    def kinds(self) -> set[str]:
        """Show SQLite."""
        return {"sqlite"}


class AcmeSink:
    """The sink: each commit is one transaction."""

    config_type = AcmeSettings

    def __init__(self, settings: AcmeSettings, context: SinkContext) -> None:
        self.name, self._path = settings.place(), settings.path
        self._pipeline, self._is_fencing = context.plan.config.name, context.is_fencing
        self._topics = context.plan.config.source.topics
        self._epochs: dict[Partition, int] = {}

    def prepare(self) -> None:
        """Create the tables."""
        with self._transaction():
            pass

    def read(self, topics: Sequence[str]) -> dict[Partition, Progress]:
        """Read the stored progress."""
        with self._transaction() as conn:
            return {p: found for p, found in self._stored(conn).items() if p.topic in topics}

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        """Raise the epochs."""
        found = {}
        with self._transaction() as conn:
            stored = self._stored(conn)
            for partition, claim in claims.items():
                old = stored.get(partition, Progress(offset=claim.start))
                base = old
                if claim.restart:
                    base = Progress(offset=claim.start)
                    where = (self._pipeline, *partition)
                    conn.execute("DELETE FROM outputs WHERE pipeline = ? AND topic = ? AND partition = ?", where)
                found[partition] = replace(
                    base,
                    epoch=old.epoch + 1,
                    incarnation=claim.incarnation or old.incarnation,
                    log_end=max(base.log_end, claim.log_end),
                )
                self._store(conn, partition, found[partition])
        self._epochs |= {partition: each.epoch for partition, each in found.items()}
        return found

    def commit(self, outputs: Sequence[Output]) -> Written:
        """Write outputs and progress, if the epochs are still ours."""
        rows = dict.fromkeys(("rows", "windows", "dlq"), 0)
        with self._transaction() as conn:
            self._check(conn, [output.partition for output in outputs])
            for output in outputs:
                for name, batches in output.batches().items():
                    for row in (row for batch in batches for row in batch.to_pylist()):
                        text = json.dumps(row, default=_as_text)
                        values = (self._pipeline, name, *output.partition, text)
                        conn.execute("INSERT INTO outputs VALUES (?, ?, ?, ?, ?)", values)
                        rows[name] += 1
                progress = replace(output.progress, epoch=self._epochs[output.partition])
                self._store(conn, output.partition, progress)
        return Written(rows=rows)

    def renew(self, partitions: Sequence[Partition]) -> None:
        """Check that the partitions are still ours."""
        with self._transaction() as conn:
            self._check(conn, partitions)

    def release(self, partitions: Sequence[Partition]) -> None:
        """Forget the epochs."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    def lease(self, topics: Sequence[str]) -> Lease | None:
        """Keep no lease."""
        return None

    def tidy(self) -> int:
        """A transaction leaves nothing behind."""
        return 0

    def close(self) -> None:
        """Forget the epochs."""
        self._epochs.clear()

    def held(self) -> Mapping[str, int]:
        """Count what is stored."""
        return {name: len(self.rows(name)) for name in ("rows", "windows")}

    def letters(self, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
        """Read the dead letters."""
        for row in self.rows("dlq"):
            if not reasons or row["reason"] in reasons:
                yield StoredLetter.of(row)

    def rows(self, output: str) -> list[dict[str, object]]:
        """Read one output."""
        with self._transaction() as conn:
            query = "SELECT row FROM outputs WHERE pipeline = ? AND output = ?"
            found = [json.loads(text) for (text,) in conn.execute(query, (self._pipeline, output))]
        return [{name: _of_text(value) for name, value in row.items()} for row in found]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        conn = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        try:
            conn.executescript(_TABLES)
            conn.execute("BEGIN IMMEDIATE")
            yield conn
            conn.execute("COMMIT")
        finally:
            conn.close()  # rolls back what was not committed

    def _stored(self, conn: sqlite3.Connection) -> dict[Partition, Progress]:
        query = (
            "SELECT topic, partition, next_offset, log_end, epoch, incarnation, state FROM progress WHERE pipeline = ?"
        )
        return {
            Partition(row[0], row[1]): Progress(offset=row[2], log_end=row[3], epoch=row[4], incarnation=row[5]).unpack(
                row[6]
            )
            for row in conn.execute(query, (self._pipeline,))
        }

    def _store(self, conn: sqlite3.Connection, partition: Partition, progress: Progress) -> None:
        values = progress.offset, progress.log_end, progress.epoch, progress.incarnation, progress.pack()
        conn.execute(
            "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self._pipeline, *partition, *values)
        )

    def _check(self, conn: sqlite3.Connection, partitions: Sequence[Partition]) -> None:
        stored = self._stored(conn)
        for partition in partitions:
            epoch = self._epochs.get(partition, -1)
            if self._is_fencing and stored[partition].epoch != epoch:
                raise Fenced(self.name, *partition, epoch)


def _as_text(value: object) -> object:
    """Write what JSON does not know so that it can be read again."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return {"time": value.isoformat()} if hasattr(value, "isoformat") else str(value)


def _of_text(value: object) -> object:
    from datetime import datetime

    if isinstance(value, dict) and set(value) == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    if isinstance(value, dict) and set(value) == {"time"}:
        return datetime.fromisoformat(value["time"])
    return value
