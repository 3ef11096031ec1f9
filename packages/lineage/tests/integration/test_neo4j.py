"""The Neo4j emitter on a real server."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from tidemill_core.errors import ConfigError
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.emitters import neo4j as neo4j_emitter
from tidemill_lineage.emitters.neo4j import Neo4jEmitter
from tidemill_lineage.errors import EmitterDown
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import Column, Dataset, Run, column_urn

CATALOG = {"orders": {"id": "int", "cust": "int", "amount": "int"}, "customers": {"id": "int", "name": "text"}}
SQL = """
SELECT c.name, SUM(o.amount) AS total FROM orders o JOIN customers c ON o.cust = c.id WHERE o.amount > 3 GROUP BY c.name
"""


def a_run(at: float = 10.0, run_id: str = "r1", sql: str = SQL) -> Run:
    return capture_sql(sql, output="pg://db/mart", catalog=CATALOG, job="mart", run_id=run_id, at=at)


@pytest.fixture
def emitter(neo4j_url: str) -> Iterator[Neo4jEmitter]:
    emitter = Neo4jEmitter(neo4j_url)
    yield emitter
    emitter.close()


@pytest.fixture
def ask(neo4j_url: str) -> Iterator[Any]:
    import neo4j

    with neo4j.GraphDatabase.driver(neo4j_url) as driver:
        yield lambda query, **values: [r.values() for r in driver.execute_query(query, values).records]


def test_columns_derive_from_columns_through_the_job(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    found = ask(
        "MATCH (s:Column)-[d:DERIVES]->(t:Column {urn: 'pg://db/mart#total'}) RETURN s.urn, d.kind, d.subtype, d.via_job"
    )
    assert found == [["table://orders#amount", "DIRECT", "AGGREGATION", "mart"]]


def test_deciding_columns_point_at_the_dataset(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    found = ask(
        "MATCH (s:Column)-[d:DERIVES {kind: 'INDIRECT'}]->(t:Dataset) RETURN s.urn, d.subtype ORDER BY s.urn, d.subtype"
    )
    assert found == [
        ["table://customers#id", "JOIN"],
        ["table://customers#name", "GROUP_BY"],
        ["table://orders#amount", "FILTER"],
        ["table://orders#cust", "JOIN"],
    ]


def test_a_run_reads_and_writes_versions_of_datasets(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    query = "MATCH (j:Job)<-[:OF]-(r:Run)-[k]->(v:DatasetVersion)-[:OF]->(d:Dataset) RETURN j.name, r.state, type(k), d.urn ORDER BY d.urn"
    assert ask(query) == [
        ["mart", "COMPLETE", "WROTE", "pg://db/mart"],
        ["mart", "COMPLETE", "READ", "table://customers"],
        ["mart", "COMPLETE", "READ", "table://orders"],
    ]


def test_emitting_the_same_runs_again_changes_nothing(emitter: Neo4jEmitter) -> None:
    emitter.emit([a_run(), a_run(11.0, "r2")])
    first = emitter.last_changes

    emitter.emit([a_run(), a_run(11.0, "r2")])

    assert first > 0
    assert emitter.last_changes == 0


def test_a_newer_run_replaces_the_edges_of_its_job(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    emitter.emit([a_run(20.0, "r2", SQL.replace("SUM(o.amount)", "SUM(o.id)"))])

    query = "MATCH (s)-[:DERIVES]->(:Column {urn: 'pg://db/mart#total'}) RETURN s.urn"
    assert ask(query) == [["table://orders#id"]]


def test_an_older_run_sent_late_does_not_bring_old_edges_back(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run(20.0, "r2", SQL.replace("SUM(o.amount)", "SUM(o.id)"))])

    emitter.emit([a_run()])

    query = "MATCH (s)-[:DERIVES]->(:Column {urn: 'pg://db/mart#total'}) RETURN s.urn"
    assert ask(query) == [["table://orders#id"]]


def test_a_failed_run_is_kept_but_its_edges_are_not(emitter: Neo4jEmitter, ask: Any) -> None:
    emitter.emit([a_run()])

    emitter.emit([replace(a_run(20.0, "r2"), state="FAIL", edges=(), error="ValueError: no")])

    assert ask("MATCH (r:Run {state: 'FAIL'}) RETURN r.error") == [["ValueError: no"]]
    assert ask("MATCH ()-[d:DERIVES]->() RETURN count(d) > 4") == [[True]]


def test_more_columns_than_one_batch_are_all_written(emitter: Neo4jEmitter, ask: Any) -> None:
    wide = {f"c{i}": [f"pg://db/wide#c{i}"] for i in range(2_500)}

    emitter.emit([declare(job="wide", output="pg://db/out", columns=wide)])

    assert ask("MATCH (:Column)-[d:DERIVES]->(:Column) RETURN count(d)") == [[2_500]]


def test_the_writers_type_wins_over_a_readers_in_any_order(emitter: Neo4jEmitter, ask: Any) -> None:
    def told(how: str, at: float, kind: str) -> Run:
        table = Dataset(urn="pg://db/typed", columns=(Column(name="a", type=kind),))
        return Run(id=f"{how}{at}", job=how, ended_at=at, **{how: (table,)})  # type: ignore[arg-type]

    for batch in ([told("reads", 5, "Int64")], [told("writes", 2, "int4"), told("reads", 9, "Int32")]):
        emitter.emit(batch)
    assert ask("MATCH (c:Column {urn: 'pg://db/typed#a'}) RETURN c.type") == [["int4"]]

    emitter.emit([told("writes", 3, "int8")])
    emitter.emit([told("writes", 1, "int2")])

    assert ask("MATCH (c:Column {urn: 'pg://db/typed#a'}) RETURN c.type") == [["int8"]]


def test_a_name_with_quotes_and_emoji_stays_data(emitter: Neo4jEmitter, ask: Any) -> None:
    urn = "file:///tmp/it's \"odd\" \N{GRINNING FACE}'}) DETACH DELETE n -- x"

    emitter.emit([Run(id="r", job="j", writes=(Dataset(urn=urn),))])

    assert ask("MATCH (d:Dataset) RETURN d.urn") == [[urn]]


def derives(ask: Any, prefix: str = "") -> list[list[str]]:
    query = (
        "MATCH (s)-[d:DERIVES]->(t) WHERE t.urn STARTS WITH $prefix "
        "RETURN s.urn, t.urn, d.kind, d.subtype, d.via_job, d.run ORDER BY s.urn, t.urn, d.subtype, d.via_job"
    )
    found: list[list[str]] = ask(query, prefix=prefix)
    return found


def some_runs(prefix: str) -> list[Run]:
    """Three runs of two jobs, one in two parts, one that stops reading a source, one that fails."""

    def run(job: str, run_id: str, at: float, *columns: str, state: str = "COMPLETE") -> Run:
        sources = {f"o{number}": [column] for number, column in enumerate(columns)}
        return replace(declare(job=job, output=f"{prefix}/out", columns=sources, run_id=run_id, at=at), state=state)  # type: ignore[arg-type]

    return [
        run("j", "R1", 1, f"{prefix}/a#x", f"{prefix}/b#x"),
        run("j", "R2", 3, f"{prefix}/a#y"),
        run("j", "R1", 5, f"{prefix}/a#z"),
        run("k", "R1", 2, f"{prefix}/c#x"),
        run("k", "R2", 4, f"{prefix}/d#x"),
        run("k", "R3", 6, f"{prefix}/e#x", state="FAIL"),
        Run(id="R4", job="k", ended_at=7.0, writes=(Dataset(urn=f"{prefix}/out"),)),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_database_holds_what_the_graph_in_memory_holds_in_any_order(
    emitter: Neo4jEmitter, ask: Any, seed: int
) -> None:
    prefix = f"t://{seed}"
    told = some_runs(prefix)
    expected = sorted(
        [column_urn(e.source, e.source_column), column_urn(e.target, e.target_column), e.kind, e.subtype, e.job, e.run]
        for e in merge(Graph(), told).edges
    )
    shuffle = random.Random(seed)
    shuffled = shuffle.sample(told, len(told))

    while shuffled:
        size = shuffle.randint(1, 3)
        emitter.emit(shuffled[:size])
        shuffled = shuffled[size:]

    assert expected == sorted(derives(ask, prefix))


def test_eight_writers_at_once_leave_what_one_would_have_left(neo4j_url: str, ask: Any) -> None:
    told = some_runs("t://many")
    writers = [Neo4jEmitter(neo4j_url) for _ in range(8)]
    writers[0].emit([])

    with ThreadPoolExecutor(8) as pool:
        for done in [
            pool.submit(each.emit, random.Random(n).sample(told, len(told))) for n, each in enumerate(writers)
        ]:
            done.result()
    for each in writers:
        each.close()

    expected = sorted((column_urn(e.source, e.source_column), e.run) for e in merge(Graph(), told).edges)
    assert expected == sorted((row[0], row[5]) for row in derives(ask, "t://many"))


@pytest.mark.parametrize("statement", range(6))
def test_a_writer_cut_off_before_any_statement_leaves_the_last_good_edges(
    emitter: Neo4jEmitter, ask: Any, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    emitter.emit([a_run()])
    before = derives(ask)
    newer = a_run(20.0, "r2", SQL.replace("SUM(o.amount)", "SUM(o.id)"))
    real, left = neo4j_emitter._apply, [statement]

    def cut(*given: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the connection is gone")
        return real(*given)

    monkeypatch.setattr(neo4j_emitter, "_apply", cut)
    with pytest.raises(EmitterDown):
        emitter.emit([newer])
    while_cut = derives(ask)
    monkeypatch.setattr(neo4j_emitter, "_apply", real)
    emitter.emit([newer])

    assert before == while_cut
    assert {row[5] for row in derives(ask)} == {"r2"}


def test_a_server_that_stops_answering_holds_an_emit_for_a_bounded_time(neo4j_url: str) -> None:
    address = urlsplit(neo4j_url)
    with StoppableProxy((address.hostname or "", address.port or 0)) as proxy:
        emitter = Neo4jEmitter(f"bolt://127.0.0.1:{proxy.port}", timeout_s=8.0)
        emitter.emit([a_run()])
        proxy.answers.clear()
        started = time.monotonic()
        with pytest.raises(EmitterDown, match="no answer in 8 s"):
            emitter.emit([a_run(20.0, "r2")])
        took_s = time.monotonic() - started
        proxy.answers.set()

        emitter.emit([a_run(20.0, "r2")])

    assert took_s < 60


class StoppableProxy:
    """Passes bytes on to a server while `answers` is set, and holds them while it is not."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.answers = target, threading.Event()
        self.answers.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self.server.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self.server.accept()[0]
            except OSError:
                return
            server = socket.create_connection(self.target)
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        try:
            while data := here.recv(65_536):
                self.answers.wait()
                there.sendall(data)
        except OSError:
            pass
        here.close()
        there.close()


@pytest.mark.parametrize("url", ["localhost:7687", "http://x:1", "", "bolt://"])
def test_a_wrong_address_is_told_at_construction(url: str) -> None:
    with pytest.raises(ConfigError, match="is no Neo4j address"):
        Neo4jEmitter(url)


def test_a_dead_server_is_a_transient_error() -> None:
    emitter = Neo4jEmitter("bolt://127.0.0.1:9", connect_s=0.5, retry_s=0.5)

    with pytest.raises(EmitterDown):
        emitter.emit([a_run()])
