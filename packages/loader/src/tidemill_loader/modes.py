"""What replace, append and upsert do before the first unit and after the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tidemill_core.postgres import (
    ColumnType,
    Policy,
    PostgresRefused,
    TableName,
    column_types,
    create_table,
    dependents,
    merge_from,
    quote,
    swap,
    table_exists,
)
from tidemill_core.postgres.ddl import ddl_for
from tidemill_core.postgres.write import create_schema
from tidemill_core.telemetry import get_logger

from tidemill_loader.copy import ORDER, Target
from tidemill_loader.errors import RangesDiffer, SchemaConflict, SourceChanged
from tidemill_loader.ledger import APPEND, Ledger, State, Totals
from tidemill_loader.pending import units_left

if TYPE_CHECKING:
    import psycopg

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.plan import Plan, Task

log = get_logger(__name__)

_UNIQUE = """
SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
WHERE i.indrelid = %(table)s::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) GROUP BY i.indexrelid
"""


class Job(Protocol):
    """One load in progress."""

    plan: Plan
    ledger: Ledger
    target: Target
    already: Totals
    """What earlier runs of this generation have brought."""
    is_unchanged: bool

    def begin(self) -> Sequence[Task]:
        """Prepare tables, commit, and answer the units that are left to load."""

    def finish(self) -> None:
        """Make the rows visible, in one transaction, and commit."""

    def totals(self, conn: psycopg.Connection[Any]) -> Totals:
        """What the files have brought in all."""

    def table_rows(self, conn: psycopg.Connection[Any]) -> int | None:
        """Count the table's rows, or None if there is no table."""

    def columns(self, conn: psycopg.Connection[Any]) -> Mapping[str, ColumnType]:
        """The table's columns."""


def job_for(plan: Plan, conn: psycopg.Connection[Any], *, force: bool = False) -> Job:
    """Choose the job of a mode."""
    if plan.config.mode == "append":
        return AppendJob(plan, conn)
    return StagedJob(plan, conn, force=force)


class _Job:
    """What the modes share."""

    target: Target

    def __init__(self, plan: Plan, conn: psycopg.Connection[Any], generation: str) -> None:
        self.plan, self._conn = plan, conn
        self.table = plan.config.target
        self.ledger = Ledger(self.table, generation)
        self.already = Totals()
        self.is_unchanged = False

    def table_rows(self, conn: psycopg.Connection[Any]) -> int | None:
        """Count the table's rows, or None if there is no table."""
        if not table_exists(conn, self.table):
            return None
        row = conn.execute(f"SELECT count(*) FROM {self.table.quoted}".encode()).fetchone()  # noqa: S608 - quoted
        return int(row[0]) if row else None

    def columns(self, conn: psycopg.Connection[Any]) -> Mapping[str, ColumnType]:
        """The table's columns; none if there is no table."""
        return column_types(conn, self.table) if table_exists(conn, self.table) else {}

    def _target(self, table: TableName, *, ordered: bool = False) -> Target:
        found = column_types(self._conn, table)
        missing = [name for name in self.plan.schema.names if name not in found]
        if missing:
            reason = (
                f"{table} has no such column; it has {', '.join(found)}. Skip it, rename it, or add it to the table"
            )
            raise SchemaConflict(missing[0], reason)
        return Target(
            table=table, columns=found, names=self.plan.names, policy=policy_of(self.plan.config), ordered=ordered
        )

    def _left(self) -> list[Task]:
        return units_left(self.plan.tasks, self.ledger.done(self._conn))


class AppendJob(_Job):
    """Every unit of a file is added once, in a transaction with its ledger row; readers see a load grow."""

    def __init__(self, plan: Plan, conn: psycopg.Connection[Any]) -> None:
        super().__init__(plan, conn, APPEND)

    def begin(self) -> Sequence[Task]:
        """Make the table if it is not there, and leave out what is loaded."""
        plan = self.plan
        if not table_exists(self._conn, self.table):
            self.ledger.forget_appended(self._conn)
        if plan.tasks or plan.schema.names:
            create_table(self._conn, self.table, plan.schema, plan.config.key, types=plan.types)
            self.target = self._target(self.table)
        left = self._changed(self._left())
        if left:
            self.ledger.outdate(self._conn)
        self._conn.commit()
        self.is_unchanged = not left
        return left

    def _changed(self, left: Sequence[Task]) -> Sequence[Task]:
        """Treat files that were loaded before with other content as the load says."""
        earlier = self.ledger.earlier_etags(self._conn)
        changed = {t.source.url for t in left if earlier.get(t.source.url, set()) - {t.source.etag}}
        if not changed or self.plan.config.on_changed == "load":
            return left
        if self.plan.config.on_changed == "skip":
            return [task for task in left if task.source.url not in changed]
        raise SourceChanged(
            min(changed), f"was loaded into {self.table} before with other content; set `on_changed` to load or skip"
        )

    def finish(self) -> None:
        """Nothing is left to do: every unit is visible already."""
        self._conn.commit()

    def totals(self, conn: psycopg.Connection[Any]) -> Totals:
        """Sum up what is loaded of the planned files."""
        wanted = [(file.url, file.etag) for file in self.plan.files]
        rows = conn.execute(
            "SELECT rows, rejected, bytes FROM tidemill.load_ledger WHERE table_name = %s AND generation = %s"
            " AND (url, etag) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            (self.ledger.table, APPEND, *map(list, zip(*wanted, strict=True))) if wanted else ("", "", [], []),
        ).fetchall()
        sums = [sum(column) for column in zip(*rows, strict=True)] or [0, 0, 0]
        return Totals(units=len(rows), rows=sums[0], rejected=sums[1], bytes=sums[2])


class StagedJob(_Job):
    """Units go to a staging table of their generation, resumable; then a swap or a merge makes them visible."""

    def __init__(self, plan: Plan, conn: psycopg.Connection[Any], *, force: bool) -> None:
        super().__init__(plan, conn, plan.generation)
        self._force = force
        self.staging = self.table.sibling(f"_load_{plan.generation[:8]}")

    @property
    def _upserts(self) -> bool:
        return self.plan.config.mode == "upsert"

    def begin(self) -> Sequence[Task]:
        """Skip a whole generation, go on with a begun one, or begin anew."""
        state = self.ledger.state(self._conn)
        if self._is_loaded(state) or not self.plan.schema.names:
            self.is_unchanged = True
            self._conn.commit()
            return []
        self._refuse_dependents()
        if not self._is_begun(state):
            self._start(state)
        else:
            log.info("load_resumed", table=str(self.table), generation=self.plan.generation)
        self.target = self._target(self.staging, ordered=self._upserts)
        self.already = self.ledger.totals(self._conn)
        left = self._left()
        self._conn.commit()
        return left

    def _is_loaded(self, state: State | None) -> bool:
        if self._force or state is None or state.state != "done" or state.generation != self.plan.generation:
            return False
        row = self._conn.execute("SELECT to_regclass(%s)::oid", (self.table.quoted,)).fetchone()
        return bool(row and row[0] is not None and row[0] == state.table_oid)

    def _is_begun(self, state: State | None) -> bool:
        same = state is not None and state.state == "loading" and state.generation == self.plan.generation
        if not (same and table_exists(self._conn, self.staging)):
            return False
        try:
            self._left()
        except RangesDiffer:  # nobody has seen those rows: begin again
            return False
        return True

    def _refuse_dependents(self) -> None:
        if self._upserts or not table_exists(self._conn, self.table):
            return
        found = dependents(self._conn, self.table)
        if found:
            raise PostgresRefused(
                f"{self.table} cannot be replaced: {', '.join(found)} depend on it;"
                " drop them first, or use another mode"
            )

    def _start(self, state: State | None) -> None:
        """Drop what an abandoned generation left, and make this one's staging table."""
        conn = self._conn
        with conn.transaction():
            if state is not None and state.staging:
                conn.execute(f"DROP TABLE IF EXISTS {state.staging}".encode())
            conn.execute(f"DROP TABLE IF EXISTS {self.staging.quoted}".encode())
            if self._upserts:
                create_table(conn, self.table, self.plan.schema, self.plan.config.key, types=self.plan.types)
                self._require_unique_key()
                conn.execute(self._upsert_staging().encode())
            else:
                create_schema(conn, self.staging.schema)
                conn.execute(ddl_for(self.staging, self.plan.schema, types=self.plan.types).encode())
            self.ledger.begin(conn, self.plan.config.mode, self.staging)

    def _require_unique_key(self) -> None:
        """Look for the constraint that the merge needs, before hours of loading."""
        rows = self._conn.execute(_UNIQUE, {"table": self.table.quoted}).fetchall()
        wanted = set(self.plan.config.key)
        if not any(set(columns) == wanted for (columns,) in rows):
            keys = ", ".join(self.plan.config.key)
            raise PostgresRefused(
                f"upsert into {self.table} needs a primary key or unique index on exactly ({keys}); add one"
            )

    def _upsert_staging(self) -> str:
        """Write the statement for a staging table with the types of the real one."""
        target = self._target(self.table)
        columns = [f"{quote(name)} {target.columns[name].type}" for name in self.plan.schema.names]
        return f"CREATE TABLE {self.staging.quoted} ({', '.join(columns)}, {quote(ORDER)} bigint)"

    def finish(self) -> None:
        """Swap or merge, and say so in the ledger, in one transaction."""
        config, conn = self.plan.config, self._conn
        with conn.transaction():
            if self._upserts:
                merge_from(
                    conn, self.table, self.staging, columns=self.plan.schema.names, key=config.key, order=(ORDER,)
                )
                conn.execute(f"DROP TABLE {self.staging.quoted}".encode())
            else:
                if config.key:
                    keys = ", ".join(map(quote, config.key))
                    conn.execute(f"ALTER TABLE {self.staging.quoted} ADD PRIMARY KEY ({keys})".encode())
                swap(conn, self.staging, self.table)
                self.ledger.forget_appended(conn)
            self.ledger.finish(conn, self.ledger.totals(conn))
        conn.commit()
        conn.execute(f"ANALYZE {self.table.quoted}".encode())
        conn.commit()

    def totals(self, conn: psycopg.Connection[Any]) -> Totals:
        """Sum up the generation."""
        return self.ledger.totals(conn)


def policy_of(config: LoadConfig) -> Policy:
    """Translate a load's options for the encoder."""
    return Policy(nanoseconds=config.nanoseconds, digits=config.digits, timezone=config.timezone, nul=config.nul)
