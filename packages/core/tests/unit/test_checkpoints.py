"""Checkpoints beyond the contract: in a caller's transaction, after kills, with wrong URLs."""

import subprocess
import sys

import pytest
from tidemill_core.checkpoint import CheckpointConflict, CheckpointError, CheckpointUnavailable, open_checkpoints
from tidemill_core.errors import ConfigError, PluginError


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://relative.db", "nowhere"])
def test_a_wrong_url_says_how_to_write_it(url):
    with pytest.raises(ConfigError):
        open_checkpoints(url)


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(PluginError, match="sqlite"):
        open_checkpoints("sqlit:///x.db")


def test_a_server_that_is_not_there_is_temporary_and_its_password_is_not_told():
    with pytest.raises(CheckpointUnavailable) as error:
        open_checkpoints("postgresql://user:hush@127.0.0.1:9/db")

    assert "hush" not in str(error.value)
    assert "127.0.0.1:9" in str(error.value)


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    (tmp_path / "x.db").write_text("this is not a database" * 100)

    with pytest.raises(CheckpointError):
        open_checkpoints(f"sqlite:///{tmp_path}/x.db")


def test_a_saved_value_survives_kill_9(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    code = (
        "import os, signal, sys\nfrom tidemill_core.checkpoint import open_checkpoints\n"
        f"open_checkpoints({url!r}).save('s', 'k', {{'n': 1}})\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)

    assert open_checkpoints(url).load("s", "k").value == {"n": 1}


def test_a_bound_save_is_part_of_the_callers_transaction(postgres_url):
    import psycopg

    checkpoints = open_checkpoints(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        bound = checkpoints.bind(connection)
        bound.save("s", "k", {"n": 1}, expected_version=0)
        assert checkpoints.load("s", "k") is None
        connection.rollback()
        bound.save("s", "k", {"n": 2}, expected_version=0)
        connection.commit()
        with pytest.raises(CheckpointConflict):
            bound.save("s", "k", {"n": 3}, expected_version=0)

    assert checkpoints.load("s", "k").value == {"n": 2}


def test_a_lost_connection_is_opened_again(postgres_url):
    import psycopg

    checkpoints = open_checkpoints(postgres_url)
    checkpoints.save("s", "k", {"n": 1})
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(CheckpointUnavailable):
        checkpoints.load("s", "k")

    assert checkpoints.load("s", "k").value == {"n": 1}
