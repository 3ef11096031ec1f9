"""Databases for tests: one fresh and empty for each, on a server that all share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager


def admin_url() -> str:
    """Find or start the test server and return a URL that may create databases."""
    given = os.environ.get("TIDEMILL_TEST_POSTGRES_URL")
    if given:
        return given
    from tidemill_core.services.postgres import PostgresService
    from tidemill_core.testing.servers import shared

    return shared(PostgresService(durable=False), kind="postgres").url


@contextmanager
def fresh_database(admin: str) -> Iterator[str]:
    """Create an empty database, yield its URL, and drop it with whoever is still connected."""
    import psycopg
    from psycopg import sql

    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield with_database(admin, name)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def with_database(url: str, database: str) -> str:
    """Point a PostgreSQL URL at another database of its server."""
    from urllib.parse import urlsplit, urlunsplit

    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))
