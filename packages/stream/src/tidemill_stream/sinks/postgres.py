"""Rows, windows, dead letters, window state and offsets into PostgreSQL, in one transaction.

Each partition has one row in the positions table. A claim raises its epoch; a commit
updates it ``WHERE epoch = mine`` before it copies anything, so that a worker that was
overtaken, however late it wakes, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from tidemill_core.config import SecretStr
from tidemill_core.postgres import CopyWriter, TableName, connect, create_table, dataset_urn, postgres_errors
from tidemill_core.postgres.types import column_types
from tidemill_core.postgres.write import create_schema

from tidemill_stream.errors import Fenced
from tidemill_stream.progress import Claim, Output, Partition, Progress
from tidemill_stream.records.event_time import to_datetime
from tidemill_stream.sink_settings import SinkSettings, takes
from tidemill_stream.sinks._base import Lease, SinkContext, StoredLetter, Written

if TYPE_CHECKING:
    import psycopg
    from tidemill_core.postgres.types import ColumnType


APPLICATION = "tidemill:"
LOCK_WAIT_S = 3
_CLAIM_TRIES = 5
_POSITIONS = """
CREATE TABLE IF NOT EXISTS {table} (
    pipeline text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    log_end bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    incarnation text NOT NULL DEFAULT '',
    watermark timestamptz,
    counts jsonb NOT NULL DEFAULT '{{}}',
    open_windows bigint NOT NULL DEFAULT 0,
    state bytea,
    owner text NOT NULL DEFAULT '',
    lease_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, topic, partition)
)"""


_READ = """
SELECT topic, partition, next_offset, log_end, epoch, incarnation, state FROM {table}
WHERE pipeline = %s AND topic = ANY(%s)"""
_ENTER = """
INSERT INTO {table} (pipeline, topic, partition, next_offset) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_RESTART = """
UPDATE {table} SET
    next_offset = %s, log_end = 0, watermark = NULL, counts = '{{}}', open_windows = 0, state = NULL
WHERE pipeline = %s AND topic = %s AND partition = %s"""
_CLAIM = """
UPDATE {table} SET
    epoch = epoch + 1, owner = %s, incarnation = COALESCE(NULLIF(%s, ''), incarnation),
    log_end = GREATEST(log_end, %s), lease_until = now() + make_interval(secs => NULLIF(%s, 0))
WHERE pipeline = %s AND topic = %s AND partition = %s
RETURNING next_offset, log_end, epoch, incarnation, state"""
_MOVE = """
UPDATE {table} SET
    next_offset = %s, log_end = %s, watermark = %s, counts = %s, open_windows = %s, state = %s,
    updated_at = now(), lease_until = now() + make_interval(secs => NULLIF(%s, 0))
WHERE pipeline = %s AND topic = %s AND partition = %s AND (epoch = %s OR %s)"""
_RENEW = """
UPDATE {table} SET lease_until = now() + make_interval(secs => NULLIF(%s, 0))
WHERE pipeline = %s AND topic = %s AND partition = %s AND epoch = %s"""
_RELEASE = """
UPDATE {table} SET lease_until = NULL
WHERE pipeline = %s AND topic = %s AND partition = %s AND epoch = %s"""
_HOLDER = """
SELECT owner, extract(epoch FROM lease_until - now()) FROM {table}
WHERE pipeline = %s AND topic = ANY(%s) AND lease_until > now() AND owner <> %s
ORDER BY lease_until DESC LIMIT 1"""
_END_HOLDER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND application_name = (
    SELECT left(%s || owner, 63) FROM {table} WHERE pipeline = %s AND topic = %s AND partition = %s)"""
_DROP_ROWS = "DELETE FROM {table} WHERE _topic = %s AND _partition = %s"
_DROP_LETTERS = "DELETE FROM {table} WHERE pipeline = %s AND topic = %s AND partition = %s"


_COUNT = "SELECT count(*) FROM {table} WHERE _topic = ANY(%s)"
_LETTERS = """
SELECT topic, partition, "offset", key, value, reason, path, message FROM {table}
WHERE pipeline = %s AND (%s::text[] = '{{}}' OR reason = ANY(%s)) ORDER BY topic, partition, "offset"
"""
_LETTER = ("topic", "partition", "offset", "key", "value", "reason", "path", "message")
_TABLE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$"
_POSITIONS_TABLE = "tidemill.stream_positions"
TableRef = Annotated[str, Field(pattern=_TABLE)]


class PostgresSinkConfig(SinkSettings):
    """Rows, windows and dead letters into PostgreSQL, in the transaction that stores the offsets."""

    type: Literal["postgres"]
    """This sink."""
    url: SecretStr | None = None
    """``postgresql://user:password@host/database``; unset means the resource `postgres`, else the settings."""
    rows_table: TableRef | None = None
    """``schema.table`` of the rows; unset means they are not stored here."""
    windows_table: TableRef | None = None
    """``schema.table`` of the closed windows."""
    dlq_table: TableRef | None = None
    """``schema.table`` of the dead letters."""
    positions_table: TableRef = _POSITIONS_TABLE
    """``schema.table`` of the offsets and window states, shared by all pipelines of a database."""

    def outputs(self) -> Mapping[str, str]:
        """Tell the table of each output that has one."""
        given = {"rows": self.rows_table, "windows": self.windows_table, "dlq": self.dlq_table}
        return {name: table for name, table in given.items() if table}

    def place(self) -> str:
        """Name the sink by its positions table, where that is not the usual one."""
        return "postgres" if self.positions_table == _POSITIONS_TABLE else f"postgres:{self.positions_table}"

    def owned(self) -> list[str]:
        """Name the tables that no other pipeline may fill."""
        return [f"table {table}" for table in (self.rows_table, self.windows_table) if table]

    def resources(self) -> set[str]:
        """Take the database from Dagster where no URL is given."""
        return set() if self.url is not None else {"postgres"}

    def kinds(self) -> set[str]:
        """Show PostgreSQL."""
        return {"postgres"}

    def asset_facts(self, output: str) -> Mapping[str, str]:
        """Tell the table of an output."""
        table = self.outputs().get(output)
        return {} if table is None else {"table": table}


@takes(PostgresSinkConfig)
def open_postgres(config: PostgresSinkConfig, context: SinkContext) -> PostgresSink:
    """Open the PostgreSQL sink of a pipeline; it connects when it is first used."""
    return PostgresSink(config, context)


class PostgresSink:
    """The exactly-once PostgreSQL sink."""

    def __init__(self, config: PostgresSinkConfig, context: SinkContext) -> None:
        self.name = config.place()
        self._config, self._context = config, context
        self._pipeline = context.plan.config.name
        self._positions = TableName.parse(config.positions_table)
        self._tables = {name: TableName.parse(table) for name, table in config.outputs().items()}
        self._targets: dict[str, dict[str, ColumnType]] = {}
        self._epochs: dict[Partition, int] = {}
        self._conn: psycopg.Connection[Any] | None = None

    def prepare(self) -> None:
        """Create the tables that are missing."""
        plan, conn = self._context.plan, self._connection()
        self.create_positions()
        for name, table in self._tables.items():
            schema = plan.arrow_schemas[name]
            json_columns = {c.name: "jsonb" for c in plan.columns if c.type == "json"} if name == "rows" else {}
            create_table(conn, table, schema, types=json_columns)
        with postgres_errors(f"prepare {self.name}"), conn.transaction():
            self._targets = {name: column_types(conn, table) for name, table in self._tables.items()}
        for name, table in self._tables.items():
            if missing := [column for column in plan.arrow_schemas[name].names if column not in self._targets[name]]:
                raise plan.wrong(f"table {table} lacks the columns {missing}; add them or name another table")

    def create_positions(self) -> None:
        """Create the positions table if it is missing."""
        conn, table = self._connection(), self._positions
        with postgres_errors(f"create {table}"), conn.transaction():
            if not self._has_positions(conn):
                conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tidemill:{table}",))
                create_schema(conn, table.schema)
                conn.execute(_sql(_POSITIONS, table))

    def read(self, topics: Sequence[str]) -> dict[Partition, Progress]:
        """Read the stored progress; nothing is stored where the table does not exist yet."""
        conn = self._connection()
        with postgres_errors(f"read {self._positions}"), conn.transaction():
            if not self._has_positions(conn):
                return {}
            rows = conn.execute(
                _sql(_READ, self._positions),
                (self._pipeline, list(topics)),
            ).fetchall()
        return {Partition(row[0], row[1]): _progress(row[2:]) for row in rows}

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        """Raise the epochs, in one transaction with the deletions of a restart.

        An owner that was stopped in the middle of a commit still locks its rows; after
        `LOCK_WAIT_S` its connection is ended, which rolls that commit back.
        """
        import psycopg

        conn = self._connection()
        with postgres_errors(f"claim in {self._positions}"):
            for _ in range(_CLAIM_TRIES):
                try:
                    progress = self._try_claim(conn, claims)
                    break
                except psycopg.errors.LockNotAvailable:
                    self._end_holders(conn, claims)
            else:
                progress = self._try_claim(conn, claims)
        self._epochs.update({partition: each.epoch for partition, each in progress.items()})
        return progress

    def _try_claim(self, conn: psycopg.Connection[Any], claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        with conn.transaction():
            conn.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
            return {partition: self._claim_one(conn, partition, claim) for partition, claim in sorted(claims.items())}

    def _end_holders(self, conn: psycopg.Connection[Any], claims: Mapping[Partition, Claim]) -> None:
        """End the connections of the owners that our claims wait for."""
        for partition in claims:
            conn.execute(_sql(_END_HOLDER, self._positions), (APPLICATION, self._pipeline, *partition))

    def _claim_one(self, conn: psycopg.Connection[Any], partition: Partition, claim: Claim) -> Progress:
        place = (self._pipeline, *partition)
        conn.execute(
            _sql(_ENTER, self._positions),
            (*place, claim.start),
        )
        if claim.restart:
            self._drop(conn, partition)
            conn.execute(
                _sql(_RESTART, self._positions),
                (claim.start, *place),
            )
        row = conn.execute(
            _sql(_CLAIM, self._positions),
            (self._context.owner, claim.incarnation, claim.log_end, float(self._context.lease_s), *place),
        ).fetchone()
        assert row is not None
        return _progress(row)

    def commit(self, outputs: Sequence[Output]) -> Written:
        """Move the offsets, if they are still ours, and copy the outputs; one transaction."""
        conn = self._connection()
        rows, size = dict.fromkeys(self._tables, 0), 0
        with postgres_errors(f"commit to {self.name}"), conn.transaction():
            for output in sorted(outputs, key=lambda each: each.partition):
                self._move(conn, output)
            for name, table in self._tables.items():
                batches = [batch for output in outputs for batch in _batches(output, name) if batch.num_rows]
                if not batches:
                    continue
                with CopyWriter(conn, table, batches[0].schema, targets=self._targets[name]) as writer:
                    for batch in batches:
                        writer.write(batch)
                rows[name], size = writer.rows, size + writer.bytes
        return Written(rows=rows, bytes=size)

    def _move(self, conn: psycopg.Connection[Any], output: Output) -> None:
        from psycopg.types.json import Jsonb

        partition, progress = output.partition, output.progress
        epoch = self._epochs.get(partition, -1)
        watermark = progress.watermark_us
        done = conn.execute(
            _sql(_MOVE, self._positions),
            (
                progress.offset,
                progress.log_end,
                None if watermark is None else to_datetime(watermark).astimezone(UTC),
                Jsonb(progress.counts.as_dict()),
                len(progress.windows),
                progress.pack(),
                float(self._context.lease_s),
                self._pipeline,
                *partition,
                epoch,
                not self._context.is_fencing,
            ),
        )
        if done.rowcount != 1:
            raise Fenced(self.name, *partition, epoch)

    def renew(self, partitions: Sequence[Partition]) -> None:
        """Prolong the lease where the epoch is still ours."""
        conn = self._connection()
        with postgres_errors(f"renew the lease in {self._positions}"), conn.transaction():
            for partition in sorted(partitions):
                epoch = self._epochs.get(partition, -1)
                done = conn.execute(
                    _sql(_RENEW, self._positions),
                    (float(self._context.lease_s), self._pipeline, *partition, epoch),
                )
                if done.rowcount != 1 and self._context.is_fencing:
                    raise Fenced(self.name, *partition, epoch)

    def release(self, partitions: Sequence[Partition]) -> None:
        """End the lease of partitions we give up, if they are still ours."""
        conn = self._connection()
        with postgres_errors(f"release in {self._positions}"), conn.transaction():
            for partition in sorted(partitions):
                conn.execute(
                    _sql(_RELEASE, self._positions),
                    (self._pipeline, *partition, self._epochs.pop(partition, -1)),
                )

    def lease(self, topics: Sequence[str]) -> Lease | None:
        """Find the live service, if another one holds any partition."""
        conn = self._connection()
        with postgres_errors(f"read {self._positions}"), conn.transaction():
            if not self._has_positions(conn):
                return None
            row = conn.execute(
                _sql(_HOLDER, self._positions),
                (self._pipeline, list(topics), self._context.owner),
            ).fetchone()
        return None if row is None else Lease(owner=row[0], seconds_left=float(row[1]))

    def _has_positions(self, conn: psycopg.Connection[Any]) -> bool:
        found = conn.execute("SELECT to_regclass(%s)", (self._positions.quoted,)).fetchone()
        return found is not None and found[0] is not None

    def held(self) -> Mapping[str, int]:
        """Count the rows of the pipeline's topics in each table of rows and windows."""
        conn, found = self._connection(), {}
        with postgres_errors("count the outputs"):
            for name in self._tables.keys() & {"rows", "windows"}:
                row = conn.execute(
                    _sql(_COUNT, self._tables[name]), (self._context.plan.config.source.topics,)
                ).fetchone()
                found[name] = 0 if row is None else int(row[0])
        return found

    def letters(self, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
        """Read the dead letters, by topic, partition and offset."""
        conn, table, wanted = self._connection(), self._tables["dlq"], list(reasons)
        with postgres_errors(f"read {table}"):
            for row in conn.execute(_sql(_LETTERS, table), (self._pipeline, wanted, wanted)):
                yield StoredLetter.of(dict(zip(_LETTER, row, strict=True)))

    def datasets(self) -> Mapping[str, str]:
        """Name each table by its database."""
        return {name: dataset_urn(self._url(), table) for name, table in self._config.outputs().items()}

    def tidy(self) -> int:
        """A transaction leaves nothing behind."""
        return 0

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self._epochs.clear()
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _url(self) -> str:
        url = self._config.url
        return self._context.postgres_url() if url is None else url.get_secret_value()

    def _connection(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = connect(
                self._url(),
                autocommit=True,
                application=f"{APPLICATION}{self._context.owner}"[:63],
            )
        return self._conn

    def _drop(self, conn: psycopg.Connection[Any], partition: Partition) -> None:
        """Delete what this pipeline wrote of one partition."""
        for name in ("rows", "windows"):
            if name in self._tables:
                conn.execute(
                    _sql(_DROP_ROWS, self._tables[name]),
                    tuple(partition),
                )
        if "dlq" in self._tables:
            conn.execute(
                _sql(_DROP_LETTERS, self._tables["dlq"]),
                (self._pipeline, *partition),
            )


def _sql(statement: str, table: TableName) -> bytes:
    """Put a quoted table name into one of our statements."""
    return statement.format(table=table.quoted).encode()


def _progress(row: Sequence[Any]) -> Progress:
    offset, log_end, epoch, incarnation, state = row
    progress = Progress(offset=offset, log_end=log_end, epoch=epoch, incarnation=incarnation)
    return progress if state is None else progress.unpack(bytes(state))


def _batches(output: Output, name: str) -> list[Any]:
    if name == "rows":
        return list(output.rows)
    batch = output.windows if name == "windows" else output.dead
    return [] if batch is None else [batch]
