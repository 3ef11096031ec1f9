"""The graph in Neo4j: constraints first, then batches of MERGE, so that emitting again changes nothing.

    (:Dataset {urn})-[:HAS]->(:Column {urn})
    (:Run {id})-[:OF]->(:Job {name})
    (:Run)-[:READ|WROTE]->(:DatasetVersion {id})-[:OF]->(:Dataset)
    (:Column|Dataset)-[:DERIVES {kind, subtype, via_job}]->(:Column|Dataset)

Values flow along DERIVES. A dataset stands for itself as a whole where no column is known. The
newest run that spoke of a (job, source, target) decides its edges, as in the JSON graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tidemill_core.errors import ConfigError
from tidemill_core.telemetry.redact import redact

from tidemill_lineage.delivery.forks import PerProcess
from tidemill_lineage.emitters._base import Traits
from tidemill_lineage.errors import EmitRefused, EmitterDown
from tidemill_lineage.graph import Graph, merge, with_stable_names
from tidemill_lineage.model import Dataset, Edge, Run, column_urn

if TYPE_CHECKING:
    import neo4j

_SCHEMES = frozenset(f"{name}{safety}" for name in ("bolt", "neo4j") for safety in ("", "+s", "+ssc"))
_ROWS = 2_000
"""Rows per UNWIND; one transaction each."""

_SCHEMA = (
    "CREATE CONSTRAINT tidemill_dataset IF NOT EXISTS FOR (n:Dataset) REQUIRE n.urn IS UNIQUE",
    "CREATE CONSTRAINT tidemill_column IF NOT EXISTS FOR (n:Column) REQUIRE n.urn IS UNIQUE",
    "CREATE CONSTRAINT tidemill_job IF NOT EXISTS FOR (n:Job) REQUIRE n.name IS UNIQUE",
    "CREATE CONSTRAINT tidemill_run IF NOT EXISTS FOR (n:Run) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT tidemill_version IF NOT EXISTS FOR (n:DatasetVersion) REQUIRE n.id IS UNIQUE",
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
WITH c, row WHERE row.type <> '' AND coalesce(c.type, '') <> row.type SET c.type = row.type
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
_PAIRS = """
UNWIND $rows AS row MATCH ()-[e:DERIVES {pair: row.pair}]->() RETURN row.pair AS pair, max(e.at) AS at
"""
_FORGET = "UNWIND $rows AS row MATCH ()-[e:DERIVES {pair: row.pair}]->() WHERE e.at < row.at DELETE e"
_DERIVES = """
UNWIND $rows AS row MATCH (s:%s {urn: row.source}) MATCH (t:%s {urn: row.target})
MERGE (s)-[e:DERIVES {kind: row.kind, subtype: row.subtype, via_job: row.job}]->(t)
ON CREATE SET e.method = row.method, e.pair = row.pair, e.at = row.at
"""


class Neo4jEmitter:
    """Writes runs to a Neo4j database.

    Args:
        url: ``bolt://host:port`` or ``neo4j://...``.
        user: Unset means no authentication.
        password: Of the user.
        retry_s: Retry a transaction that met a deadlock or a lost connection for this long.
        connect_s: Give up on a server that does not answer after this long.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        retry_s: float = 15.0,
        connect_s: float = 5.0,
    ) -> None:
        self.url, self._auth = checked_url(url), (user, password or "") if user else None
        self._retry_s, self._connect_s = retry_s, connect_s
        self._driver = PerProcess(self._open)
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

        runs = with_stable_names(runs)
        try:
            with self._driver.get().session() as session:
                self.last_changes = sum(
                    session.execute_write(_apply, statement, rows) for statement, rows in self._plan(session, runs)
                )
        except (wrong.ServiceUnavailable, wrong.SessionExpired, wrong.TransientError, OSError) as error:
            raise EmitterDown(f"Neo4j at {self.url}", str(error)) from error
        except (wrong.Neo4jError, wrong.DriverError) as error:
            raise EmitRefused(f"Neo4j at {self.url}", str(error)) from error

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
        except BaseException:
            driver.close()
            raise
        return driver

    def _plan(self, session: neo4j.Session, runs: Sequence[Run]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the statements and their rows, nodes before edges."""
        graph = merge(Graph(), runs)
        yield from _batches(_DATASETS, ({"urn": d.urn, "asset_key": d.asset_key} for d in _datasets(graph, runs)))
        yield from _batches(_COLUMNS, _columns(graph))
        yield from _batches(_RUNS, map(_run_row, runs))
        yield from _batches(_TOUCHES % "READ", _touches(runs, "reads"))
        yield from _batches(_TOUCHES % "WROTE", _touches(runs, "writes"))
        yield from self._edges(session, graph, runs)

    def _edges(
        self, session: neo4j.Session, graph: Graph, runs: Sequence[Run]
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield what replaces the edges of older runs; pairs that the database knows as new are left alone."""
        spoke = {(run.job, edge.source, edge.target): run.ended_at for run in sorted(runs, key=lambda run: run.ended_at)
                 for edge in run.edges if run.state == "COMPLETE"}  # fmt: skip
        jobs = {run.job: run.ended_at for run in runs}
        rows = [_edge_row(e, spoke.get((e.job, e.source, e.target), jobs.get(e.job, 0.0))) for e in graph.edges]
        pairs = sorted({(row["pair"], row["at"]) for row in rows})
        known: dict[str, float] = {}
        for _, batch in _batches("", ({"pair": pair} for pair, _ in pairs)):
            known |= session.execute_read(_known_pairs, batch)
        fresh = {pair for pair, at in pairs if known.get(pair, -1.0) < at}
        yield from _batches(
            _FORGET, ({"pair": pair, "at": at} for pair, at in pairs if pair in fresh and pair in known)
        )
        for source in ("Column", "Dataset"):
            for target in ("Column", "Dataset"):
                wanted = (r for r in rows if r["pair"] in fresh and (r["from"], r["to"]) == (source, target))
                yield from _batches(_DERIVES % (source, target), wanted)


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


def open_neo4j(url: str, *, user: str | None = None, password: str | None = None, **_: object) -> Neo4jEmitter:
    """Open the emitter registered as ``neo4j``."""
    return Neo4jEmitter(url, user=user, password=password)


def _apply(tx: neo4j.ManagedTransaction, statement: str, rows: list[dict[str, Any]]) -> int:
    """Run one batch and count what it changed."""
    counters = tx.run(statement, rows=rows).consume().counters
    return (
        counters.nodes_created
        + counters.relationships_created
        + counters.relationships_deleted
        + counters.properties_set
    )


def _known_pairs(tx: neo4j.ManagedTransaction, rows: list[dict[str, Any]]) -> dict[str, float]:
    return {record["pair"]: record["at"] for record in tx.run(_PAIRS, rows=rows) if record["at"] is not None}


def _batches(statement: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS:
            yield statement, batch
            batch = []
    if batch:
        yield statement, batch


def _datasets(graph: Graph, runs: Sequence[Run]) -> list[Dataset]:
    """List the graph's datasets, and those that only a failed run or an alias names."""
    found = {each.urn: each for run in runs for each in (*run.reads, *run.writes)} | dict(graph.datasets)
    return [found[urn] for urn in sorted(found)]


def _columns(graph: Graph) -> Iterator[dict[str, Any]]:
    types = {(urn, column.name): column.type for urn, dataset in graph.datasets.items() for column in dataset.columns}
    for edge in graph.edges:
        for urn, column in ((edge.source, edge.source_column), (edge.target, edge.target_column)):
            if column:
                types.setdefault((urn, column), "")
    for (urn, column), kind in sorted(types.items()):
        yield {"dataset": urn, "urn": column_urn(urn, column), "name": column, "type": kind}


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


def _edge_row(edge: Edge, at: float) -> dict[str, Any]:
    return {
        "source": column_urn(edge.source, edge.source_column),
        "target": column_urn(edge.target, edge.target_column),
        "from": "Column" if edge.source_column else "Dataset",
        "to": "Column" if edge.target_column else "Dataset",
        "kind": edge.kind,
        "subtype": edge.subtype,
        "method": edge.method,
        "job": edge.job,
        "pair": f"{edge.job}\n{edge.source}\n{edge.target}",
        "at": at,
    }
