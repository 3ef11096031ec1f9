"""Load one unit: decode ahead, rename, encode, COPY and enter in the ledger, in one transaction."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tidemill_core.errors import PostgresError
from tidemill_core.lifecycle import StopToken
from tidemill_core.postgres import ColumnType, CopyWriter, Policy, PostgresRefused, TableName, ValueRefused
from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.postgres.copy import sliced

from tidemill_loader.formats import FORMATS, Format
from tidemill_loader.formats._base import BadRow
from tidemill_loader.ledger import Ledger, Reject
from tidemill_loader.progress import Progress
from tidemill_loader.rejects import RejectLimit, actual_row, record_of, rows_of, split

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.plan import Task

T = TypeVar("T")
ORDER = "tidemill_task_number"
"""Staging column of an upsert: which file and unit a row came from, for the last one wins."""
AHEAD = 2
"""Batches decoded before they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the rows of a load go, and what they must be there."""

    table: TableName
    columns: Mapping[str, ColumnType]
    names: Mapping[str, str]
    """Name in the table by name in the files."""
    policy: Policy
    ordered: bool = False
    """Write the task's number beside every row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What one unit brought."""

    rows: int
    rejected: int
    bytes: int


class UnitLoader:
    """Loads units over one connection; made per worker."""

    def __init__(
        self,
        config: LoadConfig,
        target: Target,
        ledger: Ledger,
        *,
        limit: RejectLimit,
        stop: StopToken,
        progress: Progress,
        formats: Mapping[str, Format] | None = None,
    ) -> None:
        self._config, self._target, self._ledger = config, target, ledger
        self._limit, self._stop, self._progress = limit, stop, progress
        self._formats = dict(formats or {})

    def load(self, conn: psycopg.Connection[Any], task: Task) -> Loaded | None:
        """Load a unit and commit; None if it is loaded already.

        Raises:
            SourceChanged: The file is no longer the planned one; nothing is committed.
            TooManyRejects: The load has more bad rows than it may; nothing is committed.
            PostgresError: The server refused, or is gone; nothing is committed.
        """
        try:
            return self._load(conn, task, careful=False)
        except PostgresRefused as error:
            if not _is_data_error(error) or self._limit.limit == 0:
                raise
        return self._load(conn, task, careful=True)

    def _load(self, conn: psycopg.Connection[Any], task: Task, *, careful: bool) -> Loaded | None:
        with postgres_errors(f"load {task.name}"), conn.transaction():
            if not self._ledger.claim(conn, task):
                return None
            attempt = _Attempt(self, conn, task)
            attempt.run(careful=careful)
            task.source.check_unchanged()
            self._limit.admit(attempt.rejects, task.name)
            self._ledger.record(conn, task, rows=attempt.rows, size=attempt.bytes, bad=attempt.rejects)
        return Loaded(rows=attempt.rows, rejected=rows_of(attempt.rejects), bytes=attempt.bytes)

    def format_of(self, task: Task) -> Format:
        """The reader of a task's file."""
        if task.format not in self._formats:
            self._formats[task.format] = FORMATS.get(task.format)(self._config)
        return self._formats[task.format]


class _Attempt:
    """One try at one unit."""

    def __init__(self, loader: UnitLoader, conn: psycopg.Connection[Any], task: Task) -> None:
        self._loader, self._conn, self._task = loader, conn, task
        self._target, self._limit = loader._target, loader._limit  # noqa: SLF001 - two halves of one thing
        self.rows = self.bytes = 0
        self.rejects: list[Reject] = []
        self._skipped: list[int] = []
        self._read = 0

    def run(self, *, careful: bool) -> None:
        """Read and write everything; in `careful` mode find the rows that the server refuses."""
        reader = self._loader.format_of(self._task)
        batches = reader.batches(self._task.source, self._task.unit, self._task.schema, self._unreadable)
        with decoded_ahead(batches) as ahead:
            parts = (part for batch in ahead for part in sliced(self._shaped(batch)))
            if careful:
                for part in parts:
                    self._tell(part.num_rows, self._write_carefully(part, self._next(part)))
            else:
                self._write_all(parts)
        self._limit.check(self.rejects, self._task.name)

    def _write_all(self, parts: Iterator[pa.RecordBatch]) -> None:
        with self._writer() as writer:
            for part in parts:
                before = writer.bytes
                self._write(writer, part, self._next(part))
                self._tell(part.num_rows, writer.bytes - before)
        self.rows, self.bytes = writer.rows, writer.bytes

    def _next(self, part: pa.RecordBatch) -> int:
        """Answer the place of a part's first row among the readable ones, and move on."""
        first, self._read = self._read, self._read + part.num_rows
        return first

    def _tell(self, rows: int, size: int) -> None:
        self._loader._progress.advance(rows, size)  # noqa: SLF001 - as above
        self._loader._stop.raise_if_set()  # noqa: SLF001 - as above

    def _writer(self) -> CopyWriter:
        return CopyWriter(
            self._conn,
            self._target.table,
            self._written_schema(),
            policy=self._target.policy,
            targets=dict(self._target.columns),
        )

    def _write(self, writer: CopyWriter, part: pa.RecordBatch, first: int) -> None:
        try:
            writer.write(part)
        except ValueRefused:
            good, bad = split(part, self._target.columns, self._target.policy)
            self._set_aside(bad, first)
            if good.num_rows:
                writer.write(good)

    def _write_carefully(self, part: pa.RecordBatch, first: int) -> int:
        """Write rows under a savepoint; halve them until the refused ones stand alone."""
        try:
            with self._conn.transaction(), self._writer() as writer:
                self._write(writer, part, first)
        except PostgresError as error:
            fault = _as_refused(error)
            if part.num_rows == 1:
                reject = Reject(row=0, column=None, reason=str(fault), record=record_of(part, 0))
                self._set_aside([reject], first)
                return 0
            self._forget(first, part.num_rows)
            half = part.num_rows // 2
            return self._write_carefully(part.slice(0, half), first) + self._write_carefully(
                part.slice(half), first + half
            )
        self.rows += writer.rows
        self.bytes += writer.bytes
        return writer.bytes

    def _forget(self, first: int, rows: int) -> None:
        """Drop what a savepoint that was rolled back had set aside; its halves find it again."""
        low, high = actual_row(first, self._skipped), actual_row(first + rows - 1, self._skipped)
        self.rejects = [each for each in self.rejects if each.column is None or not low <= each.row <= high]

    def _set_aside(self, bad: Sequence[Reject], first: int) -> None:
        for each in bad:
            row = actual_row(first + each.row, self._skipped)
            self.rejects.append(Reject(row=row, column=each.column, reason=each.reason, record=each.record))
        self._limit.check(self.rejects, self._task.name)

    def _unreadable(self, bad: BadRow) -> None:
        self._skipped.append(bad.row)
        self.rejects.append(Reject(row=bad.row, column=None, reason=bad.reason, record=bad.text))
        self._limit.check(self.rejects, self._task.name)

    def _written_schema(self) -> pa.Schema:
        import pyarrow as pa

        names = [self._target.names[field.name] for field in self._task.schema]
        extra = [name for name, _ in self._constants()]
        return pa.schema([(name, pa.null()) for name in (*names, *extra)])

    def _constants(self) -> list[tuple[str, Any]]:
        """List the columns that are the same for every row of the unit: hive keys, and the order of an upsert."""
        own = set(self._task.schema.names)
        named = self._target.names
        keys = self._task.source.partitions.items()
        constants: list[tuple[str, Any]] = [(named[k], v) for k, v in keys if k in named and k not in own]
        return [*constants, (ORDER, self._task.number)] if self._target.ordered else constants

    def _shaped(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give a batch the table's names and the constant columns."""
        import pyarrow as pa

        columns, names = list(batch.columns), [self._target.names[name] for name in batch.schema.names]
        for name, value in self._constants():
            type_ = pa.string() if value is None or isinstance(value, str) else pa.int64()
            columns.append(pa.repeat(pa.scalar(value, type_), batch.num_rows))
            names.append(name)
        return pa.RecordBatch.from_arrays(columns, names=names)


def _is_data_error(error: PostgresRefused) -> bool:
    """Tell whether one row's values were refused: data exceptions and integrity constraints."""
    return error.sqlstate is not None and error.sqlstate.startswith(("22", "23"))


def _as_refused(error: PostgresError) -> PostgresRefused:
    """Answer the refusal of a row, or raise what is something else."""
    if isinstance(error, PostgresRefused) and _is_data_error(error):
        return error
    raise error


@contextmanager
def decoded_ahead(items: Iterator[T], depth: int = AHEAD) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread of its own, at most `depth` items ahead; its error comes out in order."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not closed.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # noqa: BLE001  # it is raised again in the thread that waits for items
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        yield _drain(ready.get)
    finally:
        closed.set()
        thread.join()


def _drain(get: Callable[[], tuple[str, Any]]) -> Iterator[Any]:
    while True:
        kind, value = get()
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value
