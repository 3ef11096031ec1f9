"""Places to mirror between: memory, folders and real servers."""

import uuid

import pytest
from tidemill_core.storage import open_store
from tidemill_sync.config import SyncConfig


@pytest.fixture
def config(tmp_path):
    """Build a config with a manifest of the test's own."""

    def build(**given):
        manifest = given.pop("manifest", f"sqlite:///{tmp_path}/sync.db")
        retry = given.pop("retry", {"attempts": 3, "delay_s": 0.01, "max_delay_s": 0.05})
        return SyncConfig(manifest=manifest, retry=retry, **given)

    return build


@pytest.fixture
def memory():
    """A fresh store in memory."""
    return open_store(f"memory://{uuid.uuid4()}")


@pytest.fixture
def folder(tmp_path):
    """A fresh folder as a store."""
    return open_store((tmp_path / "folder").as_uri())


def contents(store):
    """Every key with its bytes."""
    return {each.key: store.get(each.key) for each in store.list()}
