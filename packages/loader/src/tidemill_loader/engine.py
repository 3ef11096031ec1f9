"""Run a load: plan, workers, and the step that makes the rows visible."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tidemill_core.lifecycle import StopToken
from tidemill_core.lineage_hooks import Column, announce_read, announce_wrote
from tidemill_core.postgres import connect, dataset_urn
from tidemill_core.postgres.connection import postgres_errors
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage import open_store
from tidemill_core.telemetry import get_logger
from tidemill_core.telemetry.metrics import counter

from tidemill_loader import ledger as ledgers
from tidemill_loader.copy import Loaded, UnitLoader
from tidemill_loader.errors import LoadBusy, SourceMissing
from tidemill_loader.formats import FORMATS, format_for
from tidemill_loader.modes import Job, job_for
from tidemill_loader.plan import FileFacts, Plan, make_plan
from tidemill_loader.progress import NoProgress, Progress
from tidemill_loader.rejects import RejectLimit
from tidemill_loader.sources import Opener, find_files

if TYPE_CHECKING:
    import psycopg

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.plan import Task

log = get_logger(__name__)
ROWS = counter("tidemill_loader_rows_total", "Rows read from files, by table and outcome.", ("table", "outcome"))
LOCK_WAIT_S = 10.0
"""How long to wait for another loader of the table; the server may take a moment to notice that one was killed."""
RETRY = RetryPolicy(attempts=5, delay_s=0.5, max_delay_s=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What a load did.

    Attributes:
        table: ``schema.table``.
        mode: As configured.
        rows: Rows this run loaded.
        rejected: Rows this run set aside.
        total_rows: Rows of all units of the files, with those that were loaded before.
        total_rejected: As `total_rows`, for rows set aside.
        table_rows: Rows in the table after the load.
        bytes: Sent in wire format.
        seconds: From plan to commit.
        files: Files that matched.
        units: Units loaded by this run.
        units_skipped: Units that were loaded already.
        unchanged: There was nothing to do: exactly these files are loaded.
        source_rows: Rows of the files by their own metadata; None where that does not tell.
        columns: PostgreSQL type by column of the table.
        planned: PostgreSQL type by column as the files and the options want it.
        version: Changes with every load that changed the table, and only then.
    """

    table: str
    mode: str
    rows: int
    rejected: int
    total_rows: int
    total_rejected: int
    table_rows: int | None
    bytes: int
    seconds: float
    files: int
    units: int
    units_skipped: int
    unchanged: bool
    source_rows: int | None
    columns: Mapping[str, str]
    planned: Mapping[str, str]
    version: str

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Say it in one line, for people."""
        if self.unchanged:
            return f"{self.table}: unchanged, {self.total_rows:,} rows of {self.files} files are loaded already"
        text = f"{self.table}: {self.rows:,} rows loaded from {self.units} units in {self.seconds:.1f} s"
        if self.units_skipped:
            text += f", {self.units_skipped} units were loaded already"
        if self.total_rejected:
            text += f", {self.total_rejected:,} rows rejected (tidemill load rejects {self.table})"
        return text


def plan_load(config: LoadConfig, *, opener: Opener = open_store) -> Plan:
    """Look at the files and plan; reads footers and samples, writes nothing.

    Raises:
        SourceMissing: No file matches, and that is not allowed.
        SourceUnreadable: A file is not what its format says.
        SchemaConflict: The files disagree about a column.
    """
    facts = []
    hidden: list[str] = []
    try:
        sources = find_files(config.files, opener=opener, hive=config.hive, on_hidden=hidden.append)
    except SourceMissing:
        if not config.allow_empty:
            raise
        sources = []
    readers: dict[str, Any] = {}
    for source in sources:
        name = format_for(config.format, source.key)
        if name not in readers:
            readers[name] = FORMATS.get(name)(config)
        reader = readers[name]
        facts.append(FileFacts(source=source, format=name, schema=reader.schema(source), units=reader.units(source)))
    if hidden:
        log.info("hidden_files_passed_over", table=config.table, files=len(hidden), example=hidden[0])
    return make_plan(config, facts, hidden=hidden)


def run_load(
    config: LoadConfig,
    url: str,
    *,
    opener: Opener = open_store,
    stop: StopToken | None = None,
    progress: Progress | None = None,
    retry: RetryPolicy = RETRY,
    force: bool = False,
    job: str | None = None,
    asset_key: str | None = None,
) -> LoadResult:
    """Load files into a table.

    Args:
        config: The load.
        url: The database.
        opener: Opens object stores by URL.
        stop: Ends the load between two batches; what is committed stays for the next run.
        progress: Hears how far it is.
        retry: How often a unit is tried again after a transient error.
        force: Load again what is loaded already (modes replace and upsert).
        job: Name in lineage; default ``load schema.table``.
        asset_key: The Dagster asset that this is, for lineage.

    Raises:
        LoadBusy: Another process loads this table.
        LoadError, PostgresError, StorageError: As the errors say; run it again to go on where it ended.
    """
    started = time.monotonic()
    plan = plan_load(config, opener=opener)
    stop, progress = stop or StopToken(), progress or NoProgress()
    with connect(url) as conn, _only_loader(conn, plan, stop):
        ledgers.prepare(conn)
        work = job_for(plan, conn, force=force)
        with postgres_errors(f"load {config.table}"):
            pending = work.begin()
        progress.start(plan, len(pending))
        loaded = _work(work, pending, url, stop=stop, progress=progress, retry=retry)
        stop.raise_if_set()
        if not work.is_unchanged:
            with postgres_errors(f"load {config.table}"):
                work.finish()
        result = _result(plan, work, loaded, conn, time.monotonic() - started)
    _tell(plan, result, dataset_urn(url, config.target), job or f"load {config.table}", asset_key)
    return result


@contextmanager
def _only_loader(conn: psycopg.Connection[Any], plan: Plan, stop: StopToken) -> Iterator[None]:
    """Hold the table's load lock for this session; the server frees it if we die."""
    key = f"tidemill.load {plan.config.target}"
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while not _locked(conn, key):
        if time.monotonic() > give_up_at:
            raise LoadBusy(plan.config.table)
        stop.wait(0.2)
        stop.raise_if_set()
    yield  # the connection closes with us, and the lock with it


def _locked(conn: psycopg.Connection[Any], key: str) -> bool:
    row = conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone()
    conn.commit()
    return bool(row and row[0])


def _work(
    work: Job, pending: Sequence[Task], url: str, *, stop: StopToken, progress: Progress, retry: RetryPolicy
) -> list[Loaded]:
    """Load every pending unit with a pool of threads; the first error stops all and is raised."""
    if not pending:
        return []
    config = work.plan.config
    limit = RejectLimit(config.table, config.max_rejects, already=work.already.rejected)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in pending:
        tasks.put(task)
    done: list[Loaded] = []
    errors: list[BaseException] = []
    halt = _Either(stop)

    def run() -> None:
        loader = UnitLoader(config, work.target, work.ledger, limit=limit, stop=halt, progress=progress)
        try:
            for loaded in _units(loader, tasks, url, halt, retry):
                done.append(loaded)
                progress.unit_done()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            errors.append(error)
            halt.set("another worker failed")

    threads = [threading.Thread(target=run, name=f"load {at}") for at in range(min(config.workers, len(pending)))]
    _run_all(threads, halt)
    if errors:
        raise errors[0]
    return done


class _Either(StopToken):
    """A token that is set when it, or its parent, is."""

    def __init__(self, parent: StopToken) -> None:
        super().__init__()
        self._parent = parent

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return super().is_set or self._parent.is_set

    def raise_if_set(self) -> None:
        """Raise `Stopped` when set."""
        self._parent.raise_if_set()
        super().raise_if_set()


def _run_all(threads: Sequence[threading.Thread], halt: StopToken) -> None:
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # comes back to Python, where an executor's interrupt can reach us
    except BaseException:  # an interrupt, wherever it met us: the workers stop first, then it goes on
        halt.set("interrupted")
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise


def _units(
    loader: UnitLoader, tasks: queue.SimpleQueue[Task], url: str, stop: StopToken, retry: RetryPolicy
) -> Iterator[Loaded]:
    """Load units until none is left, over one connection that is opened anew when it breaks."""
    held: list[psycopg.Connection[Any]] = []

    def attempt(task: Task) -> Loaded | None:
        if held and held[0].closed:
            held.clear()
        if not held:
            held.append(connect(url))
        return loader.load(held[0], task)

    try:
        while not stop.is_set:
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                return
            loaded = retry.call(attempt, task, stop=stop)
            if loaded is not None:
                yield loaded
    finally:
        for conn in held:
            conn.close()


def _result(
    plan: Plan, work: Job, loaded: Sequence[Loaded], conn: psycopg.Connection[Any], seconds: float
) -> LoadResult:
    totals = work.totals(conn)
    config = plan.config
    rows, rejected = sum(each.rows for each in loaded), sum(each.rejected for each in loaded)
    ROWS.labels(table=config.table, outcome="loaded").inc(rows)
    ROWS.labels(table=config.table, outcome="rejected").inc(rejected)
    return LoadResult(
        table=str(config.target),
        mode=config.mode,
        rows=rows,
        rejected=rejected,
        total_rows=totals.rows,
        total_rejected=totals.rejected,
        table_rows=work.table_rows(conn),
        bytes=sum(each.bytes for each in loaded),
        seconds=seconds,
        files=len(plan.files),
        units=len(loaded),
        units_skipped=len(plan.tasks) - len(loaded),
        unchanged=work.is_unchanged,
        source_rows=plan.source_rows,
        columns={name: column.type for name, column in work.columns(conn).items()},
        planned=plan.types,
        version=work.ledger.version(conn),
    )


def _tell(plan: Plan, result: LoadResult, target: str, job: str, asset_key: str | None) -> None:
    """Log the end, and announce what was read and written."""
    log.info(
        "load_unchanged" if result.unchanged else "load_done",
        table=result.table,
        rows=result.rows,
        rejected=result.rejected,
        units=result.units,
        units_already_loaded=result.units_skipped,
        seconds=round(result.seconds, 3),
    )
    inputs = tuple(dict.fromkeys(file.dataset for file in plan.files))
    for dataset in inputs:
        announce_read(dataset, job=job, columns=[Column(name=name) for name in plan.names])
    columns = [
        Column(name=name, type=result.columns.get(name, ""), sources=tuple((dataset, source) for dataset in inputs))
        for source, name in plan.names.items()
    ]
    announce_wrote(target, job=job, inputs=inputs, columns=columns, rows=result.total_rows, asset_key=asset_key)
