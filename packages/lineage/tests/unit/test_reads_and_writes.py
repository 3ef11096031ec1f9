"""A traced call that reads and writes files or tables by itself: they are its inputs and outputs."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tidemill_lineage import Tracer
from tidemill_lineage.capture.watch.files import database_of, urn_of
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.model import Run

FRAME = pl.DataFrame({"id": [1, 2], "a": [3, 4], "b": [5.0, 6.0]})
OUT = "t://out"


def traced(function: Any, *args: Any, **options: Any) -> Run:
    memory = MemoryEmitter()
    tracer = Tracer([memory])
    tracer.trace(**options)(function)(*args)
    tracer.close()
    assert tracer.stats.errors == {}
    (run,) = memory.runs
    return run


def pairs(run: Run) -> set[tuple[str, str, str, str]]:
    direct = [edge for edge in run.edges if edge.kind == "DIRECT"]
    return {(_last(e.source), e.source_column, _last(e.target), e.target_column) for e in direct}


def _last(urn: str) -> str:
    return urn.rpartition("/")[2]


READERS: dict[str, Any] = {
    "pandas parquet": lambda p: pd.read_parquet(p / "x.parquet")[["a"]],
    "pandas csv": lambda p: pd.read_csv(p / "x.csv")[["a"]],
    "pandas json": lambda p: pd.read_json(p / "x.json")[["a"]],
    "polars parquet": lambda p: pl.read_parquet(p / "x.parquet").select("a"),
    "polars csv": lambda p: pl.read_csv(p / "x.csv").select("a"),
    "polars ipc": lambda p: pl.read_ipc(p / "x.arrow").select("a"),
    "polars json": lambda p: pl.read_json(p / "x.json").select("a"),
    "polars scan": lambda p: pl.scan_parquet(p / "x.parquet").select("a"),
    "polars scan csv": lambda p: pl.scan_csv(p / "x.csv").select("a"),
    "pyarrow parquet": lambda p: pq.read_table(p / "x.parquet").select(["a"]),
    "pyarrow csv": lambda p: pyarrow.csv.read_csv(p / "x.csv").select(["a"]),
    "pyarrow feather": lambda p: pyarrow.feather.read_table(p / "x.arrow").select(["a"]),
    "duckdb parquet": lambda p: duckdb.sql(f"SELECT a FROM read_parquet('{p}/x.parquet')").df(),
    "duckdb csv": lambda p: duckdb.sql(f"SELECT a FROM read_csv('{p}/x.csv')").pl(),
}
WRITERS: dict[str, Any] = {
    "pandas parquet": lambda x, p: x.to_pandas()[["a"]].to_parquet(p / "y.parquet"),
    "pandas csv": lambda x, p: x.to_pandas()[["a"]].to_csv(p / "y.csv", index=False),
    "pandas json": lambda x, p: x.to_pandas()[["a"]].to_json(p / "y.json"),
    "polars parquet": lambda x, p: x.select("a").write_parquet(p / "y.parquet"),
    "polars csv": lambda x, p: x.select("a").write_csv(p / "y.csv"),
    "polars sink": lambda x, p: x.lazy().select("a").sink_parquet(p / "y.parquet"),
    "pyarrow parquet": lambda x, p: pq.write_table(x.to_arrow().select(["a"]), p / "y.parquet"),
    "pyarrow csv": lambda x, p: pyarrow.csv.write_csv(x.to_arrow().select(["a"]), p / "y.csv"),
    "duckdb parquet": lambda x, p: duckdb.sql("SELECT a FROM x").write_parquet(f"{p}/y.parquet"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    FRAME.write_parquet(tmp_path / "x.parquet")
    FRAME.write_csv(tmp_path / "x.csv")
    FRAME.write_ipc(tmp_path / "x.arrow")
    FRAME.write_json(tmp_path / "x.json")
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_read_is_an_input_column_by_column(name: str, folder: Path) -> None:
    run = traced(READERS[name], folder, output=OUT)

    (read,) = run.reads
    assert read.urn.startswith(folder.as_uri())
    assert pairs(run) == {(_last(read.urn), "a", "out", "a")}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_is_written_is_an_output_column_by_column(name: str, tmp_path: Path) -> None:
    run = traced(WRITERS[name], FRAME, tmp_path, inputs={"x": "t://x"})

    (written,) = run.writes
    assert written.urn.startswith(tmp_path.as_uri())
    assert [column.name for column in written.columns] == ["a"]
    assert pairs(run) == {("x", "a", _last(written.urn), "a")}


def test_a_step_from_file_to_file_needs_no_name(folder: Path) -> None:
    def step() -> None:
        frame = pd.read_csv(folder / "x.csv")
        frame[frame.b > 5].assign(z=lambda d: d.a * 2)[["id", "z"]].to_parquet(folder / "z.parquet")

    run = traced(step)

    assert [each.urn for each in run.writes] == [(folder / "z.parquet").as_uri()]
    assert pairs(run) == {("x.csv", "id", "z.parquet", "id"), ("x.csv", "a", "z.parquet", "z")}
    assert {(e.source_column, e.target_column) for e in run.edges if e.kind == "INDIRECT"} == {("b", "")}


def test_a_query_through_a_connection_reads_the_tables_it_names(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.executescript("CREATE TABLE orders (id, a); INSERT INTO orders VALUES (1, 2)")

    def load() -> Any:
        return pd.read_sql("SELECT o.id, o.a * 2 AS z FROM orders o WHERE o.a > 1", connection)

    def store(x: Any) -> None:
        x.to_sql("kept", connection, index=False)

    run, kept = traced(load, output=OUT), traced(store, load(), inputs={"x": OUT})
    connection.close()

    assert [each.urn for each in run.reads] == [f"sqlite://{tmp_path}/shop.db/orders"]
    assert pairs(run) == {("orders", "id", "out", "id"), ("orders", "a", "out", "z")}
    assert [each.urn for each in kept.writes] == [f"sqlite://{tmp_path}/shop.db/kept"]


def test_a_database_is_named_without_its_password() -> None:
    assert database_of("postgresql+psycopg://ada:secret@db:5432/shop") == ("postgres://db:5432/shop", "postgres")
    assert urn_of("https://ada:secret@host/x.csv?signature=s") == "https://host/x.csv"


def test_what_is_read_from_memory_is_no_file() -> None:
    run = traced(lambda: pd.read_csv(io.StringIO("a\n1")), output=OUT)

    assert run.reads == ()


def test_a_failed_step_says_what_it_read_and_writes_nothing(folder: Path) -> None:
    def step() -> None:
        pd.read_csv(folder / "x.csv").to_parquet(folder / "z.parquet")
        raise ValueError("late")

    memory = MemoryEmitter()
    tracer = Tracer([memory])
    with pytest.raises(ValueError, match="late"):
        tracer.trace(step)()
    tracer.close()

    (run,) = memory.runs
    assert (run.state, [_last(each.urn) for each in run.reads], run.writes) == ("FAIL", ["x.csv"], ())


def test_a_table_of_arrow_that_was_read_is_followed_into_another_library(folder: Path) -> None:
    def step() -> Any:
        return pl.from_arrow(pq.read_table(folder / "x.parquet")).filter(pl.col("b") > 5).select("a")

    assert pairs(traced(step, output=OUT)) == {("x.parquet", "a", "out", "a")}
