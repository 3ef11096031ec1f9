"""The graph in Neo4j: nodes first, then each target's edges in one transaction, by the rule of `merging`.

    (:Dataset {urn})-[:HAS]->(:Column {urn})
    (:Run {id})-[:OF]->(:Job {name})
    (:Run)-[:READ|WROTE]->(:DatasetVersion {id})-[:OF]->(:Dataset)
    (:Column|Dataset)-[:DERIVES {kind, subtype, via_job, run, at}]->(:Column|Dataset)
    (:Said {id, entries}): what runs said, from which DERIVES is made

Values flow along DERIVES. A dataset stands for itself as a whole where no column is known. A transaction
locks the Said nodes it changes, so that several writers leave what one would have left, and a writer cut off
at any statement leaves what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, SecretStr
from tidemill_core.errors import ConfigError
from tidemill_core.telemetry.redact import redact

from tidemill_lineage import merging
from tidemill_lineage.delivery.bounded import Bounded
from tidemill_lineage.delivery.forks import PerProcess
from tidemill_lineage.emitters._base import Target, Traits, takes
from tidemill_lineage.errors import EmitRefused, EmitterDown
from tidemill_lineage.graph import renamed
from tidemill_lineage.merging import Entry, Subject
from tidemill_lineage.model import Edge, Run, column_urn, stable_urn

if TYPE_CHECKING:
    import neo4j

_SCHEMES = frozenset(f"{name}{safety}" for name in ("bolt", "neo4j") for safety in ("", "+s", "+ssc"))
_WRITERS = 1e12
"""Added to the time at which a writer told a type, so that it is later than any reader's."""
_ROWS = 2_000
"""Rows per UNWIND; one transaction each."""

_SCHEMA = (
    "CREATE CONSTRAINT tidemill_dataset IF NOT EXISTS FOR (n:Dataset) REQUIRE n.urn IS UNIQUE",
    "CREATE CONSTRAINT tidemill_column IF NOT EXISTS FOR (n:Column) REQUIRE n.urn IS UNIQUE",
    "CREATE CONSTRAINT tidemill_job IF NOT EXISTS FOR (n:Job) REQUIRE n.name IS UNIQUE",
    "CREATE CONSTRAINT tidemill_run IF NOT EXISTS FOR (n:Run) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT tidemill_version IF NOT EXISTS FOR (n:DatasetVersion) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT tidemill_said IF NOT EXISTS FOR (n:Said) REQUIRE n.id IS UNIQUE",
    "CREATE INDEX tidemill_said_of IF NOT EXISTS FOR (n:Said) ON (n.kind, n.job)",
    "CREATE INDEX tidemill_derives IF NOT EXISTS FOR ()-[r:DERIVES]-() ON (r.pair)",
)
_DATASETS = """
UNWIND $rows AS row MERGE (d:Dataset {urn: row.urn})
WITH d, row WHERE row.asset_key <> '' AND coalesce(d.asset_key, '') <> row.asset_key SET d.asset_key = row.asset_key
"""
_COLUMNS = """
UNWIND $rows AS row MATCH (d:Dataset {urn: row.dataset})
MERGE (c:Column {urn: row.urn}) ON CREATE SET c.name = row.name
MERGE (d)-[:HAS]->(c)
WITH c, row WHERE row.type <> '' AND (row.told > coalesce(c.told, -1.0) OR row.told = c.told AND row.type > c.type)
SET c.type = row.type, c.told = row.told
"""
_RUNS = """
UNWIND $rows AS row MERGE (j:Job {name: row.job})
MERGE (r:Run {id: row.id}) ON CREATE SET r.run = row.run, r.state = row.state, r.started_at = row.started_at,
  r.ended_at = row.ended_at, r.error = row.error
MERGE (r)-[:OF]->(j)
"""
_TOUCHES = """
UNWIND $rows AS row MATCH (r:Run {id: row.run}) MATCH (d:Dataset {urn: row.dataset})
MERGE (v:DatasetVersion {id: row.version}) MERGE (v)-[:OF]->(d) MERGE (r)-[:%s]->(v)
"""
_KNOWN = "UNWIND $ids AS id MATCH (s:Said {id: id}) RETURN s.id AS id, s.entries AS entries"
_LOCK = "UNWIND $ids AS id MERGE (s:Said {id: id}) SET s.lock = randomUUID()"
_SAY = """
UNWIND $rows AS row MATCH (s:Said {id: row.id})
SET s.kind = row.kind, s.job = row.job, s.target = row.target, s.runs = row.runs, s.entries = row.entries
"""
_SPOKEN_IN = """
UNWIND $rows AS row MATCH (s:Said {kind: 'edges', job: row.job}) WHERE row.run IN s.runs
RETURN DISTINCT s.job AS job, s.target AS target
"""
_FORGET = "UNWIND $ids AS id MATCH ()-[e:DERIVES {pair: id}]->() DELETE e"
_DERIVES = """
UNWIND $rows AS row MATCH (s:%s {urn: row.source}) MATCH (t:%s {urn: row.target})
MERGE (s)-[e:DERIVES {kind: row.kind, subtype: row.subtype, via_job: row.job, pair: row.pair}]->(t)
SET e.method = row.method, e.run = row.run, e.at = row.at
"""


class Neo4jEmitter:
    """Writes runs to a Neo4j database.

    Args:
        url: ``bolt://host:port`` or ``neo4j://...``.
        user: Unset means no authentication.
        password: Of the user.
        retry_s: Retry a transaction that met a deadlock or a lost connection for this long.
        connect_s: Give up on a server that does not answer after this long.
        timeout_s: Give up on an `emit` after this long; what it did not finish is sent again.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        retry_s: float = 15.0,
        connect_s: float = 5.0,
        timeout_s: float = 30.0,
    ) -> None:
        self.url, self._auth = checked_url(url), (user, password or "") if user else None
        self._retry_s, self._connect_s = retry_s, connect_s
        self._driver = PerProcess(self._open)
        self._bounded = Bounded(f"Neo4j at {redact(self.url)}", timeout_s)
        self.last_changes = 0

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters."""
        return "neo4j"

    @property
    def identity(self) -> str:
        """The server."""
        return f"neo4j {redact(self.url)}"

    @property
    def traits(self) -> Traits:
        """A server; parts are merged."""
        return Traits()

    def emit(self, runs: Sequence[Run]) -> None:
        """Merge runs into the database; `last_changes` then says how much of it was new.

        Raises:
            EmitterDown: The server is not there.
            EmitRefused: The server rejected a statement or the sign-in.
        """
        import neo4j.exceptions as wrong

        where = f"Neo4j at {redact(self.url)}"
        try:
            # the driver waits without end for a server that was stopped after it connected
            self._bounded.call(lambda: self._emit(runs))
        except EmitterDown:
            self._driver.take()  # left to the call that still hangs
            raise
        except (wrong.ServiceUnavailable, wrong.SessionExpired, wrong.TransientError, OSError) as error:
            raise EmitterDown(where, str(error)) from error
        except (wrong.Neo4jError, wrong.DriverError) as error:
            raise EmitRefused(where, str(error)) from error

    def close(self) -> None:
        """Close the driver."""
        driver = self._driver.take()
        if driver is not None:
            driver.close()

    def _open(self) -> neo4j.Driver:
        import neo4j

        driver = neo4j.GraphDatabase.driver(
            self.url, auth=self._auth, max_transaction_retry_time=self._retry_s,
            connection_timeout=self._connect_s, connection_acquisition_timeout=self._connect_s,
            notifications_min_severity="OFF",
        )  # fmt: skip
        try:
            with driver.session() as session:
                for statement in _SCHEMA:
                    session.run(statement).consume()
        except BaseException:  # undone whatever it was, and raised again
            driver.close()
            raise
        return driver

    def _emit(self, runs: Sequence[Run]) -> None:
        grouped = merging.grouped(runs)
        with self._driver.get().session() as session:
            changes = sum(session.execute_write(_apply, statement, rows) for statement, rows in _nodes(runs))
            for batch in _subjects(grouped):
                changes += session.execute_write(_merge_subjects, batch)
        self.last_changes = changes


def checked_url(url: str) -> str:
    """Return the URL of a database.

    Raises:
        ConfigError: It is none.
    """
    parts = urlsplit(url)
    if parts.scheme in _SCHEMES and parts.hostname:
        return url
    hint = f"; did you mean 'bolt://{url}'?" if url and "://" not in url else ""
    raise ConfigError(f"{redact(url)!r} is no Neo4j address: bolt://host:port or neo4j://host:port wanted{hint}")


class Neo4jTarget(Target):
    """A Neo4j database."""

    type: Literal["neo4j"]
    """Always ``neo4j``."""
    url: str
    """``bolt://host:port`` or ``neo4j://...``, also with ``+s`` or ``+ssc``."""
    user: str | None = None
    """Unset means no authentication."""
    password: SecretStr | None = None
    """Of the user."""
    retry_s: float = Field(default=15.0, ge=0)
    """Seconds to retry a transaction that met a deadlock or a lost connection."""
    connect_s: float = Field(default=5.0, gt=0)
    """Seconds until a server that does not answer is given up."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one emit may take; what it did not finish is sent again."""


@takes(Neo4jTarget)
def open_neo4j(target: Neo4jTarget) -> Neo4jEmitter:
    """Open the emitter registered as ``neo4j``."""
    password = target.password.get_secret_value() if target.password else None
    return Neo4jEmitter(
        target.url, user=target.user, password=password, retry_s=target.retry_s, connect_s=target.connect_s,
        timeout_s=target.timeout_s,
    )  # fmt: skip


def _apply(tx: neo4j.ManagedTransaction, statement: str, rows: list[dict[str, Any]]) -> int:
    """Run one batch and count what it changed."""
    counters = tx.run(statement, rows=rows).consume().counters
    return (
        counters.nodes_created
        + counters.relationships_created
        + counters.relationships_deleted
        + counters.properties_set
    )


def _nodes(runs: Sequence[Run]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the statements that name what edges will join; they only add."""
    stable = [renamed(run, {urn: stable_urn(urn) for urn in _urns(run)}) for run in runs]
    yield from _batches(_DATASETS, _datasets(stable))
    yield from _batches(_COLUMNS, _columns(stable))
    yield from _batches(_RUNS, map(_run_row, stable))
    yield from _batches(_TOUCHES % "READ", _touches(stable, "reads"))
    yield from _batches(_TOUCHES % "WROTE", _touches(stable, "writes"))


def _subjects(grouped: Mapping[Subject, list[Entry]]) -> Iterator[dict[Subject, list[Entry]]]:
    """Yield what was said in batches: a target's edges and what its job touched stay together."""
    jobs: dict[str, dict[Subject, list[Entry]]] = {}
    for subject in sorted(grouped):
        if subject[0] in (merging.EDGES, merging.TOUCHED):
            jobs.setdefault(subject[1], {})[subject] = grouped[subject]
    batch: dict[Subject, list[Entry]] = {}
    for found in jobs.values():
        batch |= found
        if len(batch) >= _ROWS:
            yield batch
            batch = {}
    if batch:
        yield batch


def _merge_subjects(tx: neo4j.ManagedTransaction, grouped: Mapping[Subject, list[Entry]]) -> int:
    """Merge what was said, and replace the edges that follow from it, in this one transaction."""
    known = _known(tx, grouped)
    if all(merging.united(known.get(each, ()), more) == known.get(each) for each, more in grouped.items()):
        return 0
    # in one order everywhere, so that two writers wait for each other rather than deadlock
    tx.run(_LOCK, ids=sorted(_said_id(each) for each in grouped)).consume()
    known = _known(tx, grouped)
    united = {each: merging.united(known.get(each, ()), more) for each, more in grouped.items()}
    changed = {each: entries for each, entries in united.items() if entries != known.get(each)}
    changes = sum(_apply(tx, *each) for each in _batches(_SAY, map(_said_row, changed.items())))
    for statement, rows in _edges(tx, changed):
        changes += _apply(tx, statement, rows)
    return changes


def _edges(
    tx: neo4j.ManagedTransaction, changed: Mapping[Subject, tuple[Entry, ...]]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield what replaces the edges of the targets that changed subjects speak of."""
    touched = [{"job": job, "run": run} for kind, job, run in changed if kind == merging.TOUCHED]
    targets = {subject for subject in changed if subject[0] == merging.EDGES}
    targets |= {(merging.EDGES, row["job"], row["target"]) for row in tx.run(_SPOKEN_IN, rows=touched)}
    entries = _known(tx, targets)
    wanted = {(merging.TOUCHED, job, entry.run) for (_, job, _), found in entries.items() for entry in found}
    touches = {subject: merging.touch_of(found) for subject, found in _known(tx, wanted).items()}
    rows: list[dict[str, Any]] = []
    for subject in sorted(targets):
        _, job, target = subject
        found = entries.get(subject, ())
        runs = {entry.run: touches.get((merging.TOUCHED, job, entry.run), merging.NOTHING_TOUCHED) for entry in found}
        entry = merging.in_force(found, runs)
        if entry is not None:
            rows += [
                _edge_row(e, _said_id(subject)) for e in merging.edges_in_force(job, target, entry, runs[entry.run])
            ]
    tx.run(_FORGET, ids=sorted(map(_said_id, targets))).consume()
    for source in ("Column", "Dataset"):
        for end in ("Column", "Dataset"):
            yield from _batches(_DERIVES % (source, end), (r for r in rows if (r["from"], r["to"]) == (source, end)))


def _known(tx: neo4j.ManagedTransaction, subjects: Iterable[Subject]) -> dict[Subject, tuple[Entry, ...]]:
    names = {_said_id(each): each for each in subjects}
    found = tx.run(_KNOWN, ids=sorted(names))
    return {
        names[row["id"]]: tuple(map(merging.parsed, orjson.loads(row["entries"])))
        for row in found if row["entries"] is not None
    }  # fmt: skip


def _said_id(subject: Subject) -> str:
    return orjson.dumps(subject).decode()


def _said_row(said: tuple[Subject, tuple[Entry, ...]]) -> dict[str, Any]:
    subject, entries = said
    plain = orjson.dumps([merging.plain(each) for each in entries]).decode()
    return {
        "id": _said_id(subject), "kind": subject[0], "job": subject[1], "target": subject[2],
        "runs": [each.run for each in entries], "entries": plain,
    }  # fmt: skip


def _batches(statement: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS:
            yield statement, batch
            batch = []
    if batch:
        yield statement, batch


def _datasets(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    keys: dict[str, str] = {}
    for run in runs:
        for urn in _urns(run):
            keys.setdefault(urn, "")
        for each in (*run.reads, *run.writes):
            keys[each.urn] = each.asset_key or keys[each.urn]
    for urn in sorted(keys):
        yield {"urn": urn, "asset_key": keys[urn]}


def _columns(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Yield columns with the type that was told last, a writer's before any reader's (see `merging`)."""
    types: dict[tuple[str, str], tuple[float, str]] = {}
    for run in runs:
        if run.state == "FAIL":
            continue
        for datasets, rank in ((run.reads, 0.0), (run.writes, _WRITERS)):
            for each in datasets:
                for c in each.columns:
                    told = (run.ended_at + rank, c.type) if c.type else (-1.0, "")
                    types[each.urn, c.name] = max(told, types.get((each.urn, c.name), told))
        for edge in run.edges:
            for urn, column in ((edge.source, edge.source_column), (edge.target, edge.target_column)):
                if column:
                    types.setdefault((urn, column), (-1.0, ""))
    for (urn, column), (told_at, kind) in sorted(types.items()):
        yield {"dataset": urn, "urn": column_urn(urn, column), "name": column, "type": kind, "told": told_at}


def _urns(run: Run) -> set[str]:
    named = {each.urn for each in (*run.reads, *run.writes)}
    return named | {urn for edge in run.edges for urn in (edge.source, edge.target)}


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "id": _run_id(run),
        "run": run.id,
        "job": run.job,
        "state": run.state,
        "started_at": datetime.fromtimestamp(run.started_at, UTC),
        "ended_at": datetime.fromtimestamp(run.ended_at, UTC),
        "error": run.error,
    }


def _touches(runs: Sequence[Run], how: str) -> Iterator[dict[str, Any]]:
    rows = {(_run_id(run), each.urn, f"{each.urn}@{run.id}") for run in runs for each in getattr(run, how)}
    for run_id, urn, version in sorted(rows):
        yield {"run": run_id, "dataset": urn, "version": version}


def _run_id(run: Run) -> str:
    """One orchestrator run holds many jobs."""
    return f"{run.id}/{run.job}"


def _edge_row(edge: Edge, pair: str) -> dict[str, Any]:
    return {
        "source": column_urn(edge.source, edge.source_column),
        "target": column_urn(edge.target, edge.target_column),
        "from": "Column" if edge.source_column else "Dataset",
        "to": "Column" if edge.target_column else "Dataset",
        "kind": edge.kind,
        "subtype": edge.subtype,
        "method": edge.method,
        "job": edge.job,
        "pair": pair,
        "run": edge.run,
        "at": edge.at,
    }
