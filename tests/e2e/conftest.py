"""The main job from outside: as a process, on a home of its own, compared by the contents of its tables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
JOB = ["job", "execute", "-m", "tidemill_deploy.definitions", "-j", "nyc_flights"]
_STARTED = re.compile(r" - (\S+) - STEP_START - ")


class JobFailed(Exception):
    """The job ended by itself, and not well; holds its last lines."""


@dataclass(frozen=True, slots=True)
class Home:
    """A project folder of its own: settings, tables, and ways to run the job in it."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that works in this home."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
        return {**clean, "TIDEMILL_HOME": str(self.folder), **self.settings}

    def tidemill(self, *args: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run the `tidemill` command."""
        return subprocess.run(
            [str(BIN / "tidemill"), *args], env=self.env, capture_output=True, text=True, timeout=timeout_s
        )

    def prepared(self) -> dict[str, str]:
        """The environment with a persistent Dagster home."""
        code = "from tidemill_core.defs.home import prepare_home; from tidemill_core.settings import Settings; print(prepare_home(Settings.from_env()))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.env, capture_output=True, text=True, check=True, timeout=120
        )
        return {**self.env, "DAGSTER_HOME": done.stdout.splitlines()[-1]}

    def execute(self, *, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run the job to its end with `dagster job execute`."""
        command = [str(BIN / "dagster"), *JOB]
        return subprocess.run(command, env=self.prepared(), capture_output=True, text=True, timeout=timeout_s)

    def execute_and_kill(self, seen: set[str], *, after_s: float, timeout_s: float = 300) -> str | None:
        """Start the job and kill -9 it `after_s` seconds after a step starts that is no check and not in `seen`.

        Returns:
            The step, or None if the job ended well first.

        Raises:
            JobFailed: It ended with an error.
        """
        process = subprocess.Popen(
            [str(BIN / "tidemill"), "dagster", *JOB],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        deadline = time.monotonic() + timeout_s
        last: deque[str] = deque(maxlen=60)
        try:
            for line in process.stdout:
                last.append(line)
                started = _STARTED.search(line)
                if started and started.group(1) not in seen and "_truth_" not in started.group(1):
                    time.sleep(after_s)
                    os.killpg(process.pid, signal.SIGKILL)
                    return started.group(1)
                assert time.monotonic() < deadline
            if process.wait(60):
                raise JobFailed("".join(last))
            return None
        finally:
            process.stdout.close()
            process.wait(60)

    def postgres_url(self) -> str:
        """URL of the warehouse; starts the embedded server where that is it."""
        from tidemill_core.embedded import runtime
        from tidemill_core.settings import Settings

        return runtime.postgres_url(Settings.from_env(self.env))

    def tables(self) -> dict[str, tuple[int, str]]:
        """Rows and a digest of the contents of every table of the job.

        Left out are bookkeeping columns (``_...``) and when a broker received a dead letter.
        """
        import psycopg

        with psycopg.connect(self.postgres_url()) as connection:
            found = connection.execute(
                "select table_schema, table_name, string_agg(format('%I', column_name), ', ' order by ordinal_position)"
                " from information_schema.columns where table_schema in ('raw', 'events', 'warehouse', 'mart')"
                " and column_name !~ '^_' and (table_name, column_name) <> ('dead_letters', 'timestamp')"
                " group by 1, 2 order by 1, 2"
            ).fetchall()
            return {
                f"{schema}.{table}": connection.execute(
                    f'select count(*), md5(string_agg(line, chr(10) order by line collate "C")) from '
                    f'(select row({columns})::text as line from "{schema}"."{table}") as lines'
                ).fetchone()
                for schema, table, columns in found
            }

    def differing(self) -> Sequence[tuple[str, object, object]]:
        """What differs from the truth counted from the source files."""
        import psycopg
        from tidemill_deploy.checks import compare_all

        with psycopg.connect(self.postgres_url()) as connection:
            return compare_all(lambda sql: connection.execute(sql).fetchone()[0])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Home:
    """A home in which `tidemill demo` has run once."""
    home = Home(tmp_path_factory.mktemp("finished") / "home")
    done = home.tidemill("demo", "--json")
    assert 0 == done.returncode, done.stderr
    return home
