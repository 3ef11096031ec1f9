"""`tidemill services` starts real servers detached, finds them again and stops only its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from tidemill_core.services import stack
from tidemill_core.services.cli import services
from tidemill_core.services.files import open_place
from tidemill_core.services.processes import wait_until
from tidemill_core.services.running import Running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_admin_url: str) -> Iterator[Callable[..., Result]]:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    runner = CliRunner()
    yield lambda *args: runner.invoke(services, list(args), catch_exceptions=False)
    list(stack.down(tmp_path))
    shutil.rmtree(open_place(stack.folder_of(tmp_path, "postgres")), ignore_errors=True)


def test_up_starts_a_server_that_status_finds_and_down_stops(run: Callable[..., Result]) -> None:
    up = json.loads(run("up", "postgres", "--json").stdout)
    again = json.loads(run("up", "postgres", "--json").stdout)
    with psycopg.connect(up[0]["url"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    down = json.loads(run("down", "--json").stdout)
    nothing = run("status").stdout

    assert up == again
    assert down == {"stopped": ["postgres"]}
    assert "nothing runs" in nothing
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(up[0]["url"])


def test_data_and_address_are_kept_from_down_to_up(run: Callable[..., Result]) -> None:
    first = json.loads(run("up", "postgres", "--json").stdout)[0]
    with psycopg.connect(first["url"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")

    run("down")
    second = json.loads(run("up", "postgres", "--json").stdout)[0]

    assert second["url"] == first["url"]
    with psycopg.connect(second["url"]) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_fetching_starts_nothing(run: Callable[..., Result]) -> None:
    fetched = run("fetch", "postgres").stdout

    assert fetched.startswith("postgres")
    assert "nothing runs" in run("status").stdout


def test_the_password_is_shown_only_where_it_is_asked_for(run: Callable[..., Result]) -> None:
    from tidemill_core.settings import Settings

    table = run("up", "postgres")
    lines = run("status", "--env").stdout.splitlines()

    given = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    settings = Settings.from_env(given)
    assert settings.postgres_url is not None
    password = settings.postgres_url.get_secret_value().split(":")[2].split("@")[0]
    assert password not in table.output


def test_a_killed_server_of_a_test_restarts_on_its_data(
    own_server: Callable[..., Running], postgres_admin_url: str
) -> None:
    first = own_server("postgres")
    with psycopg.connect(first.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")

    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not first.is_alive(), 10)
    second = own_server("postgres", Path(first.folder))

    assert second.pid != first.pid
    with psycopg.connect(second.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
