"""Every object store keeps the contract."""

import uuid

import pytest
from tidemill_core.storage import open_store
from tidemill_core.testing.suites import ObjectStoreSuite


class TestMemoryStore(ObjectStoreSuite):
    machine_examples = 40

    @pytest.fixture
    def store(self):
        return open_store(f"memory://{uuid.uuid4()}")


class TestMemoryStoreUnderPrefix(ObjectStoreSuite):
    @pytest.fixture
    def store(self):
        name = uuid.uuid4()
        open_store(f"memory://{name}").put("a/outside", b"not ours")
        open_store(f"memory://{name}").put("a/pre", b"not ours")
        return open_store(f"memory://{name}/a/pre")


class TestFileStore(ObjectStoreSuite):
    machine_examples = 40

    @pytest.fixture
    def store(self, tmp_path):
        return open_store((tmp_path / "a bucket%20#1").as_uri())
