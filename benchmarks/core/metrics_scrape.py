"""Scrape the metrics of an instance with 10,000 ended runs, while it is read and after.

The history is one real run (three steps) on PostgreSQL storage, copied inside the
database. Compared with what a stateless exporter does on each scrape: read all runs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import SecretStr
from tidemill_core.defs.home import prepare_home
from tidemill_core.defs.metrics import MetricsExporter
from tidemill_core.settings import Settings
from tidemill_core.testing.postgres import admin_url, fresh_database

from benchmarks.harness import Sample, report

GOAL_S = 0.1

_COPY = (
    "CREATE TEMP TABLE copies AS SELECT gen_random_uuid()::text AS copy, n FROM generate_series(1, %(runs)s) AS n",
    """INSERT INTO runs (run_id, snapshot_id, pipeline_name, status, run_body, create_timestamp, update_timestamp,
                         start_time, end_time)
       SELECT copy, snapshot_id, pipeline_name, status, replace(run_body, %(run)s, copy), create_timestamp,
              update_timestamp, start_time, end_time FROM runs, copies WHERE run_id = %(run)s""",
    """INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
       SELECT copy, replace(event, %(run)s, copy), dagster_event_type, timestamp, step_key, asset_key, partition
       FROM event_logs, copies WHERE run_id = %(run)s ORDER BY n, event_logs.id""",
)


@dg.op
def extract() -> int:
    """Make something."""
    return 1


@dg.op
def transform(value: int) -> int:
    """Change it."""
    return value


@dg.op
def load(value: int) -> None:
    """Put it away."""
    del value


@dg.job(executor_def=dg.in_process_executor)
def etl() -> None:
    """Three steps."""
    load(transform(extract()))


def main(runs: int = 10_000, scrapes: int = 50) -> None:
    """Run it; the goal is at most 100 ms for a scrape."""
    with tempfile.TemporaryDirectory() as home, history(Path(home), runs) as instance:
        following = MetricsExporter(instance, settle_s=0).start()
        began = time.monotonic()
        behind = []
        while b"dagster_exporter_caught_up 1.0" not in following.scrape():
            behind += _time(following.scrape, 1)
            time.sleep(0.1)
        catch_up_s = time.monotonic() - began
        caught_up = _time(following.scrape, scrapes)
        following.stop()
        inline = _time(following.scrape, scrapes)
        scans = _time(lambda: len(instance.get_run_records()), 3)
    slowest = max(each.wall_s for each in [*behind, *caught_up, *inline])
    report(
        "core_metrics_scrape",
        {
            "scrape, caught up": caught_up,
            "scrape, reading the history meanwhile": behind or caught_up,
            "scrape that refreshes itself": inline,
            "read all runs once": scans,
        },
        baseline="scrape, caught up",
        packages=["dagster", "dagster-postgres", "tidemill-core", "prometheus-client"],
        note=f"{runs:,} runs of 3 steps on PostgreSQL, read once in {catch_up_s:.1f} s; slowest scrape "
        f"{slowest * 1000:.0f} ms, median {statistics.median(each.wall_s for each in caught_up) * 1000:.1f} ms "
        f"(goal {GOAL_S * 1000:.0f} ms).",
    )


@contextmanager
def history(home: Path, runs: int) -> Iterator[dg.DagsterInstance]:
    """Make an instance whose history is `runs` copies of one real run."""
    import psycopg

    with fresh_database(admin_url()) as url:
        folder = prepare_home(Settings(home=home, dagster_postgres_url=SecretStr(url)))
        os.environ["DAGSTER_HOME"] = str(folder)
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            run_id = etl.execute_in_process(instance=instance).run_id
            with psycopg.connect(url) as connection:
                cursor = psycopg.ClientCursor(connection)
                for statement in _COPY:
                    cursor.execute(statement, {"runs": runs - 1, "run": run_id})
                connection.execute("ANALYZE")
            yield instance


def _time(work: Callable[[], object], times: int) -> list[Sample]:
    samples = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        samples.append(Sample(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu, rss_mib=_rss_mib()))
    return samples


def _rss_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
