"""Neo4j for tests: one database that all share, so each test holds it alone and finds it empty."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def empty_graph() -> Iterator[str]:
    """Yield the Bolt URL of an empty Neo4j; no other test process uses it meanwhile."""
    neo4j = pytest.importorskip("neo4j")
    from tidemill_core.services.files import locked, services_dir
    from tidemill_core.services.neo4j import Neo4jService
    from tidemill_core.testing.servers import shared

    url = os.environ.get("TIDEMILL_TEST_NEO4J_URL") or shared(Neo4jService(), kind="neo4j").url
    with locked(services_dir() / "shared" / "neo4j.test.lock"):
        driver = neo4j.GraphDatabase.driver(url, auth=None)
        with driver:
            _await_database(driver)
            _empty(driver)
        yield url


def _await_database(driver: Any) -> None:
    """Bolt answers a little before the database does."""
    from neo4j.exceptions import Neo4jError, ServiceUnavailable

    deadline = time.monotonic() + 60
    while True:
        try:
            driver.execute_query("RETURN 1")
        except (Neo4jError, ServiceUnavailable):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _empty(driver: Any) -> None:
    driver.execute_query("MATCH (n) DETACH DELETE n")
    for record in driver.execute_query("SHOW CONSTRAINTS YIELD name RETURN name").records:
        driver.execute_query(f"DROP CONSTRAINT `{record['name']}` IF EXISTS")
    kinds = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name"
    for record in driver.execute_query(kinds).records:
        driver.execute_query(f"DROP INDEX `{record['name']}` IF EXISTS")
