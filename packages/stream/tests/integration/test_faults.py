"""Faults: kill -9 in a loop, zombies, poison. Truth is a replay without any server; whole sets are compared."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import psycopg
import pyarrow.parquet as pq
import pytest
import yaml
from psycopg.rows import dict_row
from tidemill_core.storage import open_store
from tidemill_stream import produce, read_manifest
from tidemill_stream.progress import Partition
from tidemill_stream.testing import FakeMessage, replay

TABLES = {"rows_table": "events.flights", "windows_table": "events.hourly", "dlq_table": "events.dead"}
PREFIXES = {"rows": "flights", "windows": "hourly", "dlq": "dead"}
COUNT = 4_000
DRIVER = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from tidemill_core.config import load
from tidemill_stream import Plan, PipelinesConfig, drain, sink_context
config = load(Path(sys.argv[1]), PipelinesConfig).pipelines[0]
plan = Plan(config)
def stop(progress):
    if sys.argv[3] == "stop" and progress.consumed >= 1_000:
        sys.argv[3] = "go on"
        os.kill(os.getpid(), signal.SIGSTOP)
context = replace(sink_context(plan), is_fencing=sys.argv[2] == "fence")
drain(plan, config.source.bootstrap_servers, context, on_progress=stop)
"""


@pytest.fixture
def bench(own_mock_broker, postgres_url, tmp_path, pipeline_file, make_records, make_plan):
    """A topic with records, a pipeline into both sinks, and what it must end with."""
    servers, _ = own_mock_broker()
    logs, sent = {}, []
    for number, value in enumerate(make_records(COUNT)):
        log = logs.setdefault(Partition("flights", number % 3), [])
        log.append(FakeMessage(len(log), value))
        sent.append((number % 3, None, value))
    produce(servers, "flights", sent)
    lake = tmp_path / "lake"
    path = pipeline_file(
        source={"topics": "flights", "bootstrap_servers": servers},
        sinks=[
            {"type": "postgres", "url": postgres_url, **TABLES},
            {"type": "object_store", "url": lake.as_uri(), **PREFIXES},
        ],
        checkpoint={"rows": 200},
        limits={"batch_records": 100},
    )
    return Bench(path, postgres_url, lake, replay(make_plan(), logs, flush=True))


class Bench:
    def __init__(self, path, url, lake, truth):
        self.path, self.url, self.lake, self.truth = path, url, lake, truth

    def start(self, fence="fence", pause="go on"):
        return subprocess.Popen([sys.executable, "-c", DRIVER, str(self.path), fence, pause], stderr=subprocess.PIPE)

    def only_postgres(self):
        config = yaml.safe_load(self.path.read_text())
        config["pipelines"][0]["sinks"].pop()
        self.path.write_text(yaml.safe_dump(config))

    def consumed(self):
        """How far PostgreSQL says the pipeline is."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if connection.execute("select to_regclass('tidemill.stream_positions')").fetchone() == (None,):
                return 0
            (done,) = connection.execute(
                "select coalesce(sum(next_offset), 0) from tidemill.stream_positions"
            ).fetchone()
            return int(done)

    def postgres(self):
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return {
                name: connection.execute(f"select * from {TABLES[f'{table}_table']}").fetchall()
                for name, table in {"rows": "rows", "windows": "windows", "dlq": "dlq"}.items()
            }

    def lake_tables(self):
        """What the manifest lists, after checking that a glob over the folders finds the same files."""
        store = open_store(self.lake.as_uri())
        files = read_manifest(store, "flights")
        found = {path.relative_to(self.lake).as_posix() for path in self.lake.glob("*/flights/**/*.parquet")}
        assert found == {each.key for each in files}
        tables = {"rows": [], "windows": [], "dlq": []}
        for each in files:
            tables[each.output] += pq.read_table(io.BytesIO(store.get(each.key))).to_pylist()
        return tables

    def wait_for(self, more, process):
        """Wait until `more` records were committed since now; False if the process ended first."""
        wanted = self.consumed() + more
        deadline = time.monotonic() + 60
        while self.consumed() < wanted:
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline
        return True


def assert_exact(bench, as_set):
    for found in (bench.postgres(), bench.lake_tables()):
        for name in ("rows", "windows", "dlq"):
            assert as_set(found[name]) == as_set(bench.truth[name]), name


@pytest.mark.chaos
def test_killed_again_and_again_a_drain_ends_with_the_same_tables(bench, as_set):
    rng, kills = random.Random(7), 0

    for _ in range(40):
        process = bench.start()
        if kills < 5 and bench.wait_for(rng.choice([1, 200, 600]), process):
            time.sleep(rng.random() * 0.03)  # into the middle of whatever comes next
            process.kill()
            kills += 1
        code = process.wait(60)
        if code == 0:
            break
        assert code == -signal.SIGKILL, process.stderr.read().decode()

    assert kills >= 3
    assert_exact(bench, as_set)


@pytest.mark.chaos
def test_a_zombie_stopped_anywhere_changes_nothing(bench, as_set):
    zombie = bench.start()
    assert bench.wait_for(1_000, zombie)
    os.kill(zombie.pid, signal.SIGSTOP)

    try:
        owner = bench.start()
        assert owner.wait(90) == 0, owner.stderr.read().decode()
    finally:
        os.kill(zombie.pid, signal.SIGCONT)

    assert zombie.wait(60) == 1
    assert_exact(bench, as_set)


@pytest.mark.chaos
@pytest.mark.parametrize("fence", ["fence", "no fence"])
def test_a_zombie_stopped_between_commits_writes_twice_only_without_the_fence(bench, fence):
    bench.only_postgres()
    zombie = bench.start(fence, "stop")
    os.waitid(os.P_PID, zombie.pid, os.WSTOPPED | os.WNOWAIT)

    owner = bench.start(fence)
    assert owner.wait(90) == 0, owner.stderr.read().decode()
    os.kill(zombie.pid, signal.SIGCONT)
    code = zombie.wait(60)

    rows = Counter((row["_partition"], row["_offset"]) for row in bench.postgres()["rows"])
    assert set(rows) == {(row["_partition"], row["_offset"]) for row in bench.truth["rows"]}
    if fence == "fence":
        assert (code, max(rows.values())) == (1, 1)
        assert b"Fenced" in zombie.stderr.read()
    else:
        assert (code, max(rows.values())) == (0, 2)  # the negative control


def test_poison_is_set_aside_whole(own_mock_broker, postgres_url, pipeline_file, tidemill_stream):
    servers, _ = own_mock_broker()
    good = b'{"origin":"JFK","at":"2013-01-01T00:00:00Z","delay":1}'
    poison = [b"{", b"\xff\xfe", None, b'{"origin":"JFK"}', b'{"origin":"XXX","at":"2013-01-01T00:00:00Z"}', b"5" * 500_000,
              good.replace(b'"JFK"', b'"JFK","x":"\\u0000"'), good[:-1] + b',"y":"\xff"}', good.replace(b"2013", b"soon")]  # fmt: skip
    produce(servers, "flights", [(0, b"key", each) for each in [good, *poison, good]])
    path = pipeline_file(
        source={"topics": "flights", "bootstrap_servers": servers, "tombstones": "dlq"},
        sinks=[{"type": "postgres", "url": postgres_url, **TABLES}],
    )

    (result,) = tidemill_stream("drain", path, "--json")
    listed = tidemill_stream("dlq", "list", path, "--json")

    with psycopg.connect(postgres_url) as connection:
        stored = connection.execute('select value, key, reason from events.dead order by "offset"').fetchall()
    assert (
        result["done"]["consumed"],
        result["done"]["rows"],
        result["done"]["invalid"],
        result["done"]["deleted"],
    ) == (11, 3, 7, 1)
    assert [value for value, _, _ in stored] == [each for each in poison if each is not poison[6]]
    assert {key for _, key, _ in stored} == {b"key"}
    assert [reason for _, _, reason in stored] == [
        "malformed", "malformed", "tombstone", "invalid", "invalid", "malformed", "malformed", "unfit",
    ]  # fmt: skip
    assert len(listed) == len(stored)


def test_replayed_dead_letters_pass_once_the_schema_is_mended(
    own_mock_broker, postgres_url, pipeline_file, tidemill_stream
):
    servers, _ = own_mock_broker()
    value = b'{"origin":"BOS","at":"2013-01-01T00:00:00Z","delay":1}'
    produce(servers, "flights", [(0, b"BOS", value)])
    common = {
        "source": {"topics": "flights", "bootstrap_servers": servers},
        "sinks": [{"type": "postgres", "url": postgres_url, **TABLES}],
    }
    path = pipeline_file(**common)
    (before,) = tidemill_stream("drain", path, "--json")
    schema = {"type": "object", "required": ["origin", "at"], "properties": {
        "origin": {"type": "string"}, "at": {"type": "string"}, "delay": {"type": "integer"}, "flight": {"type": "integer"}}}  # fmt: skip

    path = pipeline_file(**common, schema={"inline": schema})
    tidemill_stream("dlq", "replay", path)
    (after,) = tidemill_stream("drain", path, "--json")

    assert (before["done"]["invalid"], after["done"]["rows"]) == (1, 1)
    (shown,) = tidemill_stream("status", path, "--json")
    assert shown["is_drained"]
