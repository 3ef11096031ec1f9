"""Both stores pass the suite that ships with the package."""

from pathlib import Path

import pytest
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.suites import StoreSuite


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path):
        store = open_store(f"sqlite:///{tmp_path}/ingest.db")
        yield store
        store.close()


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def store(self, postgres_url: str):
        store = open_store(postgres_url)
        yield store
        store.close()
