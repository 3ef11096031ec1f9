"""The command, in processes of its own."""

import json
import os
import signal
import subprocess
import sys

import pytest


@pytest.fixture
def tidemill(tmp_path, postgres_url):
    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", "from tidemill_core.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "TIDEMILL_POSTGRES_URL": postgres_url, **environment},
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def planes(tmp_path):
    path = tmp_path / "planes.csv"
    path.write_text("tailnum,year\nN1,2004\nN2,NA\nN3,1999\n")
    return path


def test_run_plan_status_and_a_second_run(tidemill, planes):
    options = ("planes.csv", "--table", "raw.planes", "--key", "tailnum", "--null", "NA")

    plan = tidemill("load", "plan", *options)
    first = tidemill("load", "run", *options)
    second = tidemill("load", "run", *options, "--json")
    status = tidemill("load", "status", "--json")

    assert 'CREATE TABLE "raw"."planes"' in plan.stdout
    assert '"year" bigint' in plan.stdout
    assert "3 rows loaded from 1 units" in first.stdout
    assert json.loads(second.stdout)["unchanged"] is True
    assert [(row["table"], row["rows"], row["state"]) for row in json.loads(status.stdout)] == [
        ("raw.planes", 3, "done")
    ]
    assert {each.returncode for each in (plan, first, second, status)} == {0}


def test_a_config_file_holds_several_loads_and_faults_name_the_line(tidemill, planes, tmp_path):
    (tmp_path / "loads.yaml").write_text(
        "loads:\n  - files: planes.csv\n    table: raw.a\n    nulls: [NA]\n  - files: planes.csv\n    table: raw.b\n"
    )
    (tmp_path / "bad.yaml").write_text("files: planes.csv\ntable: raw.a\nmoed: append\n")

    valid = tidemill("load", "validate", "-c", "loads.yaml")
    done = tidemill("load", "run", "-c", "loads.yaml", "--quiet")
    bad = tidemill("load", "run", "-c", "bad.yaml")

    assert valid.stdout.splitlines() == ["raw.a: 1 files, 2 columns, ok", "raw.b: 1 files, 2 columns, ok"]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["raw.a", "raw.b"]
    assert bad.returncode == 3
    assert "bad.yaml:3" in bad.stderr
    assert "did you mean 'mode'" in bad.stderr


def test_rejects_are_shown(tidemill, planes):
    options = ("planes.csv", "--table", "raw.planes", "--column", "year=integer")

    refused = tidemill("load", "run", *options)
    done = tidemill("load", "run", *options, "--max-rejects", "1")
    shown = tidemill("load", "rejects", "raw.planes")

    assert refused.returncode == 1
    assert "row 1, column 'year'" in refused.stderr
    assert "1 rows rejected" in done.stdout
    assert "planes.csv" in shown.stdout
    assert "tailnum=" in shown.stdout


def test_exit_codes_tell_what_to_do(tidemill, planes):
    usage = tidemill("load", "run", "planes.csv")
    missing = tidemill("load", "run", "nothing.csv", "--table", "t")
    away = tidemill("load", "run", "planes.csv", "--table", "t", "--url", "postgresql://me:s3cret@127.0.0.1:1/db")

    assert (usage.returncode, missing.returncode, away.returncode) == (2, 1, 75)
    assert "s3cret" not in away.stderr


def test_an_interrupt_ends_a_load_cleanly(tmp_path, postgres_url):
    code = """
import sys, os, signal
from tidemill_loader import progress
class Interrupting(progress.NoProgress):
    def advance(self, rows, size):
        os.kill(os.getpid(), signal.SIGINT)
progress.NoProgress = Interrupting
from tidemill_core.cli import main
main(sys.argv[1:])
"""
    (tmp_path / "big.csv").write_text("id\n" + "\n".join(map(str, range(1_000_000))) + "\n")
    arguments = ["load", "run", str(tmp_path / "big.csv"), "--table", "raw.t", "--quiet", "--url", postgres_url]

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode in {130, -signal.SIGINT}, done.stderr


def test_help_imports_no_heavy_module():
    code = "import sys, tidemill_loader.cli, tidemill_loader; print(sorted({'dagster', 'polars', 'pyarrow', 'psycopg'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
