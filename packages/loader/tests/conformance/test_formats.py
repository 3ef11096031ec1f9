"""Every format passes the suite; text formats compressed too."""

import bz2
import gzip
import io

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from tidemill_loader.testing import FormatSuite


class TestParquet(FormatSuite):
    name, suffix = "parquet", ".parquet"

    def encode(self, table):
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=300)
        return sink.getvalue()


class TestCsv(FormatSuite):
    name, suffix = "csv", ".csv"

    def encode(self, table):
        sink = io.BytesIO()
        csv.write_csv(table, sink)
        return sink.getvalue()


class TestCsvGzip(TestCsv):
    suffix = ".csv.gz"

    def encode(self, table):
        return gzip.compress(super().encode(table))


class TestCsvZstd(TestCsv):
    suffix = ".csv.zst"

    def encode(self, table):
        return pa.compress(super().encode(table), codec="zstd", asbytes=True)


class TestJsonLines(FormatSuite):
    name, suffix = "json", ".jsonl"

    def encode(self, table):
        rows = [orjson.dumps(row) for row in table.to_pylist()]
        return b"\n".join(rows) + b"\n" if rows else b""


class TestJsonLinesBzip2(TestJsonLines):
    suffix = ".ndjson.bz2"

    def encode(self, table):
        return bz2.compress(super().encode(table))


class TestJsonArray(FormatSuite):
    name, suffix = "json", ".json"

    def encode(self, table):
        return orjson.dumps(table.to_pylist(), option=orjson.OPT_INDENT_2)
