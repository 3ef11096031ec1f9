"""The lock of a Celery step in Dagster's storage."""

import subprocess
import sys

import dagster as dg
import pytest

pytest.importorskip("dagster_celery")

from tidemill_core.defs.executor.celery import step_lock


def test_a_lock_in_postgres_is_freed_when_its_holder_is_killed(tmp_path, postgres_url) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg2://")
    config = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=config) as instance:
        holder = (
            "import sys, time; from types import SimpleNamespace as N;"
            "from tidemill_core.defs.executor.celery import step_lock;"
            f"c = step_lock(N(run_storage=N(postgres_url={url!r})), 'a'); print(c.__enter__(), flush=True); time.sleep(60)"
        )
        other = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "True\n"

        with step_lock(instance, "a") as while_held, step_lock(instance, "b") as another:
            assert (while_held, another) == (False, True)
        other.kill()
        other.wait(10)
        for _ in range(100):
            with step_lock(instance, "a") as after:
                if after:
                    break

        assert after
