"""A writer that is killed leaves what was there before; run again, it finishes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psycopg
import pytest
from tidemill_core.defs import ParquetIOManager, PostgresIOManager

# Writes 1,000 rows, tells, and waits for ever before the rest; how they are written is the argument.
WRITER = """
import sys, threading
import dagster as dg, polars as pl, pyarrow as pa
from tidemill_core import postgres
from tidemill_core.defs.io_managers import frames
from tidemill_core.defs import ParquetIOManager, PostgresIOManager

how, url = sys.argv[1:]
schema = pa.schema([("x", pa.int64())])

def batches():
    yield pa.record_batch([pa.array(range(1000))], schema=schema)
    print("half", flush=True)
    threading.Event().wait()

def output(**kwargs):
    return dg.build_output_context(asset_key=dg.AssetKey(["raw", "t"]), **kwargs)

if how == "parquet":
    def slow(frame):
        list(batches())
        return frame
    ParquetIOManager(url=url).handle_output(output(), pl.LazyFrame({"x": [0]}).map_batches(slow))
elif how == "each batch":
    with postgres.connect(url, autocommit=True) as connection:
        for batch in batches():
            postgres.copy_into(connection, "raw.t", batch)
else:
    frames.arrow_reader = lambda value: pa.RecordBatchReader.from_batches(schema, batches())
    PostgresIOManager(url=url, mode=how).handle_output(output(definition_metadata={"key": "x"}), pl.DataFrame())
"""


def write_first(manager: ParquetIOManager | PostgresIOManager) -> None:
    context = dg.build_output_context(asset_key=dg.AssetKey(["raw", "t"]), definition_metadata={"key": "x"})
    manager.handle_output(context, pl.DataFrame({"x": [-1]}))


def kill_half_way(how: str, url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, how, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        writer.kill()
        assert writer.wait(60) == -9


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        # a killed client's transaction may still be ending: ask for a lock that it holds
        connection.execute("SET lock_timeout = '60s'")
        connection.execute("LOCK TABLE raw.t IN ACCESS EXCLUSIVE MODE")
        found = connection.execute("SELECT count(*) FROM raw.t").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["replace", "upsert"])
def test_a_killed_write_leaves_the_table_as_it_was_and_can_be_done_again(postgres_url: str, how: Any) -> None:
    write_first(PostgresIOManager(url=postgres_url, mode=how))

    kill_half_way(how, postgres_url)

    assert rows(postgres_url) == 1
    write_first(PostgresIOManager(url=postgres_url, mode=how))
    assert rows(postgres_url) == 1


@pytest.mark.chaos
def test_the_same_kill_tears_a_write_that_commits_each_batch(postgres_url: str) -> None:
    """The negative control: the kill comes in the middle of a write."""
    write_first(PostgresIOManager(url=postgres_url))

    kill_half_way("each batch", postgres_url)

    assert rows(postgres_url) == 1001


@pytest.mark.chaos
def test_a_killed_write_leaves_the_object_as_it_was(tmp_path: Path) -> None:
    url = (tmp_path / "lake").as_uri()
    write_first(ParquetIOManager(url=url))
    before = (tmp_path / "lake" / "raw" / "t.parquet").read_bytes()

    kill_half_way("parquet", url)

    assert (tmp_path / "lake" / "raw" / "t.parquet").read_bytes() == before
    assert [file.name for file in (tmp_path / "lake" / "raw").iterdir()] == ["t.parquet"]
