"""What a person sees of a load."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill_loader import progress as progresses
from tidemill_loader.config import LoadConfig
from tidemill_loader.engine import plan_load
from tidemill_loader.progress import BarProgress, LogProgress


@pytest.fixture
def plan(tmp_path):
    pq.write_table(pa.table({"id": range(40)}), tmp_path / "a.parquet", row_group_size=10)
    return plan_load(LoadConfig(files=str(tmp_path / "a.parquet"), table="raw.t"))


def test_the_bar_counts_units_that_were_loaded_before(plan, capsys):
    with BarProgress() as bar:
        bar.start(plan, pending=3)
        bar.advance(10, 100)
        bar.unit_done()

    shown = capsys.readouterr()
    assert "raw.t" in shown.err
    assert "2/4" in shown.err
    assert "10 rows" in shown.err
    assert shown.out == ""


def test_log_lines_come_now_and_then(plan, monkeypatch):
    lines, now = [], [0.0]
    monkeypatch.setattr(progresses, "log", _Log(lines))
    monkeypatch.setattr(progresses.time, "monotonic", lambda: now[0])
    progress = LogProgress(every_s=5)

    progress.start(plan, pending=4)
    for second in range(12):
        now[0] = float(second)
        progress.advance(1, 1)

    assert [(event, fields.get("rows")) for event, fields in lines] == [
        ("load_started", None),
        ("load_running", 6),
        ("load_running", 11),
    ]


class _Log:
    def __init__(self, lines):
        self._lines = lines

    def info(self, event, **fields):
        self._lines.append((event, fields))
