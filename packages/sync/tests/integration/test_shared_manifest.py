"""A manifest on a server, as workers share it."""

import pytest
from tidemill_sync.engine import sync
from tidemill_sync.errors import SyncBusy
from tidemill_sync.manifests._base import job_id
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.session import current_runs

FILES = {"a.txt": b"one", "b/c.txt": b"two", "d.txt": b"three", "empty": b""}


def fill(store, files):
    for key, body in files.items():
        store.put(key, body)


def test_the_manifest_in_postgresql_is_shared(memory, folder, config, postgres_url):
    fill(memory, FILES)
    shared = config(manifest=postgres_url, commit_rows=2)

    first = sync(shared, source=memory, target=folder, run_id="first")
    memory.delete(["empty"])
    second = sync(shared.model_copy(update={"prune": True}), source=memory, target=folder)
    with open_manifest(postgres_url).lease(job_id(memory.url, folder.url)), pytest.raises(SyncBusy):
        sync(shared, source=memory, target=folder)

    assert (first.copied, second.skipped, second.deleted) == (4, 3, 1)
    assert [run.state for run in current_runs(open_manifest(postgres_url), 5)] == ["done", "done"]
