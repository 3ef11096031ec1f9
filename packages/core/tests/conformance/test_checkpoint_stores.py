"""Every checkpoint store keeps the contract."""

import uuid

import pytest
from tidemill_core.checkpoint import open_checkpoints
from tidemill_core.testing.suites import CheckpointStoreSuite


class TestMemoryCheckpoints(CheckpointStoreSuite):
    @pytest.fixture
    def reopen(self):
        name = uuid.uuid4()
        return lambda: open_checkpoints(f"memory://{name}")


class TestSqliteCheckpoints(CheckpointStoreSuite):
    @pytest.fixture
    def reopen(self, tmp_path):
        return lambda: open_checkpoints(f"sqlite:///{tmp_path}/deep/checkpoints.db")


class TestPostgresCheckpoints(CheckpointStoreSuite):
    @pytest.fixture
    def reopen(self, postgres_url):
        opened = []

        def reopen():
            if len(opened) > 8:  # a killed process frees its connection too
                opened.pop(0).close()
            opened.append(open_checkpoints(postgres_url))
            return opened[-1]

        yield reopen
        for each in opened:
            each.close()
