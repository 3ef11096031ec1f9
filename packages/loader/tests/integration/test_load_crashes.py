"""kill -9 in the middle of a load, then the same load again: no row twice, no row lost."""

import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill_core.postgres import connect
from tidemill_loader.config import LoadConfig
from tidemill_loader.engine import run_load
from tidemill_loader.report import load_status

pytestmark = pytest.mark.chaos
ROWS, GROUP = 20_000, 1_000

CHILD = """
import sys, threading
from tidemill_loader import copy, engine, ledger
from tidemill_loader.config import LoadConfig
from tidemill_core.postgres import connect

files, table, mode, url, fault = sys.argv[1:6]

class Blocker(engine.NoProgress):
    units = 0
    def unit_done(self):
        self.units += 1
    def advance(self, rows, size):
        if self.units >= 4:  # this worker has sent rows that are not committed
            print("in the middle", flush=True)
            threading.Event().wait()

if fault == "claim-apart":
    claim = ledger.Ledger.claim
    def apart(self, conn, task):
        with connect(url) as own:
            return claim(self, own, task)
    ledger.Ledger.claim = apart
if fault == "ledger-apart":
    load = copy._Attempt.run
    def first_rows(self, *, careful):
        with connect(url) as own:
            kept, self._conn = self._conn, own
            load(self, careful=careful)
            self._conn = kept
        if self._task.number == 6:
            print("in the middle", flush=True)
            threading.Event().wait()
    copy._Attempt.run = first_rows
    Blocker.advance = lambda self, rows, size: None

workers = 1 if fault != "none" else 2
engine.run_load(LoadConfig(files=files, table=table, mode=mode, key="id", workers=workers), url, progress=Blocker())
"""


@pytest.fixture
def files(tmp_path):
    for part in range(2):
        ids = range(part * ROWS // 2, (part + 1) * ROWS // 2)
        table = pa.table({"id": ids, "v": [f"v{at}" for at in ids]})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=GROUP)
    return f"{tmp_path}/*.parquet"


def _killed(files, table, mode, url, fault="none"):
    arguments = [sys.executable, "-c", textwrap.dedent(CHILD), files, table, mode, url, fault]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        line = child.stdout.readline()
        child.kill()
    assert line.startswith("in the middle")
    assert child.returncode == -9


def _counts(url, table):
    with connect(url) as conn:
        return conn.execute(f"SELECT count(*), count(DISTINCT id), sum(id) FROM {table}").fetchone()


@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_a_killed_load_goes_on_and_ends_whole(files, postgres_url, mode):
    _killed(files, "raw.t", mode, postgres_url)

    result = run_load(LoadConfig(files=files, table="raw.t", mode=mode, key="id"), postgres_url)

    assert _counts(postgres_url, "raw.t") == (ROWS, ROWS, ROWS * (ROWS - 1) // 2)
    assert result.units_skipped >= 4
    assert result.units + result.units_skipped == ROWS // GROUP
    assert result.total_rows == ROWS


def test_the_old_table_is_readable_while_a_killed_replace_lies_about(files, postgres_url, tmp_path):
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "old.pq")
    run_load(LoadConfig(files=str(tmp_path / "old.pq"), table="raw.t"), postgres_url)

    _killed(files, "raw.t", "replace", postgres_url)

    assert _counts(postgres_url, "raw.t") == (3, 3, 6)
    assert [(each["state"], each["mode"]) for each in load_status(postgres_url, "raw.t")] == [("loading", "replace")]


def test_another_set_of_files_cleans_up_after_a_killed_replace(files, postgres_url, tmp_path):
    _killed(files, "raw.t", "replace", postgres_url)
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "new.pq")

    run_load(LoadConfig(files=str(tmp_path / "new.pq"), table="raw.t"), postgres_url)

    with connect(postgres_url) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'raw'").fetchall()
    assert tables == [("t",)]
    assert _counts(postgres_url, "raw.t") == (3, 3, 6)


def test_negative_control_a_ledger_committed_before_its_rows_loses_rows(files, postgres_url):
    _killed(files, "raw.t", "append", postgres_url, fault="claim-apart")

    run_load(LoadConfig(files=files, table="raw.t", mode="append", key="id"), postgres_url)

    assert _counts(postgres_url, "raw.t")[0] < ROWS


def test_negative_control_rows_committed_before_their_ledger_come_twice(files, postgres_url):
    with connect(postgres_url) as conn:
        conn.execute("CREATE SCHEMA raw; CREATE TABLE raw.t (id bigint, v text)")
    _killed(files, "raw.t", "append", postgres_url, fault="ledger-apart")

    run_load(LoadConfig(files=files, table="raw.t", mode="append", key="id"), postgres_url)

    count, distinct, _ = _counts(postgres_url, "raw.t")
    assert count > distinct == ROWS
