"""Both stores pass the suite that ships with the package."""

from pathlib import Path

import pytest
from tidemill_core.postgres import PostgresUnavailable
from tidemill_ingest_api.errors import StoreUnavailable
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.suites import SPEC, StoreSuite


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path):
        store = open_store(f"sqlite:///{tmp_path}/ingest.db")
        yield store
        store.close()


def test_a_postgres_that_is_away_is_a_temporary_fault_without_its_password(monkeypatch):
    monkeypatch.setattr("tidemill_ingest_api.stores.postgres._POOL_WAIT_S", 0.2)
    store = open_store("postgresql://me:hush-hush@127.0.0.1:1/db")

    with pytest.raises(StoreUnavailable) as caught:
        store.ping()
    with pytest.raises(PostgresUnavailable), store.writer(SPEC):
        pass
    store.close()

    assert "hush-hush" not in str(caught.value) + store.url


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def store(self, postgres_url: str):
        store = open_store(postgres_url)
        yield store
        store.close()
