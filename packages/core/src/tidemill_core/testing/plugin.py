"""The pytest plugin: fixtures for real servers, each found, started, or skipped with the reason.

Loaded in every pytest run through the entry point `pytest11`, so it imports nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgres_admin_url() -> str:
    """URL of the shared test server; may create databases and roles."""
    from tidemill_core.testing.postgres import admin_url

    return admin_url()


@pytest.fixture
def postgres_url(postgres_admin_url: str) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database, dropped after the test."""
    from tidemill_core.testing.postgres import fresh_database

    with fresh_database(postgres_admin_url) as url:
        yield url
