"""Parquet and CSV from an S3 server: range reads, one version, no other network."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill_core.postgres import connect
from tidemill_core.storage import open_store
from tidemill_loader.config import LoadConfig
from tidemill_loader.engine import NoProgress, run_load
from tidemill_loader.errors import SourceChanged


def _parquet(tmp_path, rows):
    pq.write_table(pa.table({"id": range(rows), "v": ["x" * 50] * rows}), tmp_path / "a.parquet", row_group_size=5_000)
    return (tmp_path / "a.parquet").read_bytes()


def test_files_of_a_bucket_are_loaded_and_again_not(s3_bucket, postgres_url, tmp_path):
    url, options = s3_bucket
    store = open_store(url, options)
    store.put("in/day=1/a.parquet", _parquet(tmp_path, 20_000))
    store.put("csv/a b+c.csv", b"id,v\n1,a\n2,b\n")

    def load(pattern, table):
        config = LoadConfig(files=f"{url}/{pattern}", table=table)
        return run_load(config, postgres_url, opener=lambda at: open_store(at, options))

    first, second, csv = load("in/**/*.parquet", "raw.p"), load("in/**/*.parquet", "raw.p"), load("csv/*", "raw.c")

    assert (first.rows, first.units, second.unchanged, csv.rows) == (20_000, 4, True, 2)
    with connect(postgres_url) as conn:
        assert conn.execute("SELECT count(*), sum(id), min(day) FROM raw.p").fetchone() == (20_000, 199_990_000, 1)


def test_an_object_rewritten_under_the_load_is_not_committed(s3_bucket, postgres_url, tmp_path):
    url, options = s3_bucket
    store = open_store(url, options)
    store.put("a.parquet", _parquet(tmp_path, 20_000))
    other = _parquet(tmp_path, 20_001)

    class Rewriter(NoProgress):
        def advance(self, rows, size):
            store.put("a.parquet", other)

    with pytest.raises(SourceChanged):
        run_load(
            LoadConfig(files=f"{url}/a.parquet", table="raw.t", mode="append"),
            postgres_url,
            opener=lambda at: open_store(at, options),
            progress=Rewriter(),
        )

    with connect(postgres_url) as conn:
        assert conn.execute("SELECT count(*) FROM raw.t").fetchone() == (0,)
