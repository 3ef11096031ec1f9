"""Our sinks keep the contract."""

from __future__ import annotations

import io
from typing import ClassVar

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.rows import dict_row
from tidemill_core.storage import open_store
from tidemill_stream import sink_context
from tidemill_stream.sinks.manifest import read_manifest
from tidemill_stream.sinks.memory import memory_tables
from tidemill_stream.testing.sinks import SinkBench, SinkSuite

TABLES = {"rows_table": "events.flights", "windows_table": "events.hourly", "dlq_table": "events.dead"}
PREFIXES = {"rows": "flights", "windows": "hourly", "dlq": "dead"}


def _postgres(url):
    names = {"rows": "events.flights", "windows": "events.hourly", "dlq": "events.dead"}
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return {name: connection.execute(f"select * from {table}").fetchall() for name, table in names.items()}


def _objects(store):
    tables = {"rows": [], "windows": [], "dlq": []}
    for each in read_manifest(store, "flights"):
        tables[each.output] += pq.read_table(io.BytesIO(store.get(each.key))).to_pylist()
    return tables


class TestMemory(SinkSuite):
    @pytest.fixture
    def bench(self, tmp_path):
        name = f"m{tmp_path.name}"
        return SinkBench({"type": "memory"}, lambda: memory_tables(name).outputs, name=name)


class TestPostgres(SinkSuite):
    @pytest.fixture
    def bench(self, postgres_url):
        return SinkBench({"type": "postgres", "url": postgres_url, **TABLES}, lambda: _postgres(postgres_url))


class TestFiles(SinkSuite):
    # A manifest entry can be created only once: there is no fence that could be switched off.
    gaps: ClassVar = {"test_without_the_fence_an_overtaken_owner_writes_twice": "the manifest's names are the fence"}

    @pytest.fixture
    def bench(self, tmp_path):
        return _bench_of(tmp_path.as_uri(), None)


class TestS3(SinkSuite):
    gaps: ClassVar = TestFiles.gaps

    @pytest.fixture
    def bench(self, s3_bucket):
        return _bench_of(*s3_bucket)


def _bench_of(url, options):
    store = open_store(url, options)
    return SinkBench(
        {"type": "object_store", "url": url, **PREFIXES},
        lambda: _objects(store),
        context=lambda plan: sink_context(plan, open_store=lambda _: store),
    )
