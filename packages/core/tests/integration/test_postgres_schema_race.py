"""Many sessions may create one schema at the same time."""

import threading

import psycopg
from tidemill_core.postgres import connect
from tidemill_core.postgres.write import create_schema


def race(postgres_url, create, sessions: int = 8) -> list[Exception]:
    ready, errors = threading.Barrier(sessions), []

    def session() -> None:
        with connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "select to_regclass('s0.t'), to_regclass('s1.t'), to_regclass('s2.t'), to_regclass('s3.t')"
            )
            ready.wait(30)
            try:
                create(connection)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=session) for _ in range(sessions)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return errors


def test_sessions_that_create_one_schema_at_once_all_succeed(postgres_url) -> None:
    errors = [
        error for number in range(10) for error in race(postgres_url, lambda c, n=number: create_schema(c, f"s{n}"))
    ]

    assert [] == errors
    with psycopg.connect(postgres_url) as connection:
        assert (10,) == connection.execute("select count(*) from pg_namespace where nspname ~ '^s[0-9]$'").fetchone()
