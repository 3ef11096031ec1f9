"""A prepared home works with real servers: Dagster's storage in PostgreSQL, its compute logs in S3."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from tidemill_core.defs import prepare_home
from tidemill_core.settings import Settings, StorageOptions
from tidemill_core.storage import open_store

JOB = """
import dagster as dg

@dg.op
def speak():
    print("a line for the compute logs")

@dg.job(executor_def=dg.in_process_executor)
def talk():
    speak()
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    file = tmp_path / "talk_job.py"
    file.write_text(JOB)
    return file


def execute(job_file: Path, home: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    dagster = str(Path(sys.executable).with_name("dagster"))
    return subprocess.run(
        [dagster, "job", "execute", "-f", str(job_file), "-j", "talk"],
        env={**os.environ, **environ, "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_runs_are_kept_in_postgres_and_logs_in_s3_by_settings_alone(
    tmp_path: Path, job_file: Path, postgres_url: str, s3_bucket: tuple[str, StorageOptions]
) -> None:
    bucket, storage = s3_bucket
    settings = Settings(
        home=tmp_path,
        dagster_postgres_url=SecretStr(postgres_url),
        compute_logs_url=f"{bucket}/dagster-logs",
        storage=storage,
    )
    environ: dict[str, str] = {}

    home = prepare_home(settings, environ=environ)
    done = execute(job_file, home, environ)

    assert done.returncode == 0, done.stderr[-2000:]
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT pipeline_name, status FROM runs").fetchall() == [("talk", "SUCCESS")]
    store = open_store(bucket, storage)
    logs = [info.key for info in store.list("dagster-logs/") if info.key.endswith(".out")]
    assert len(logs) == 1
    assert b"a line for the compute logs" in store.get(logs[0])
    assert not list(home.rglob("*.db"))
    password = psycopg.conninfo.conninfo_to_dict(postgres_url).get("password")
    assert not password or str(password) not in (home / "dagster.yaml").read_text()
