"""A run that ended inside a large object goes on with the parts that the target has."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import closing

import pytest
from tidemill_core.storage import StoreUnavailable, open_store
from tidemill_sync.engine import sync
from tidemill_sync.errors import SyncInterrupted
from tidemill_sync.manifests._base import job_id
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.uploads import Uploads

MIB = 1 << 20
SIZE = 40 * MIB + 7
PART = 8 * MIB


class Counting:
    """A source that counts the bytes it gives, and fails after some parts."""

    def __init__(self, store, fails_after=None):
        self._store, self._fails_after = store, fails_after
        self.given, self.parts = 0, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, key, **options):
        self.parts += 1
        if self._fails_after is not None and self.parts > self._fails_after:
            raise StoreUnavailable(self._store.url, "read", "down")
        body = self._store.get(key, **options)
        self.given += len(body)
        return body


@pytest.fixture(params=["s3_bucket", "versitygw", "azure_container"])
def target(request):
    if request.param == "versitygw":
        from tidemill_core.testing.objects import s3_bucket

        url, options = s3_bucket(request.getfixturevalue("versitygw"))
    else:
        url, options = request.getfixturevalue(request.param)
    return open_store(f"{url}/resumed", options)


@pytest.fixture
def settings(config):
    return config(resume_bytes=PART, retry={"attempts": 1})


@pytest.fixture
def noted(settings, folder, target):
    """What the manifest keeps of the upload."""

    def read(key="big"):
        with closing(open_manifest(settings.manifest.get_secret_value())) as manifest:
            return manifest.pieces(job_id(folder.url, target.url), key)

    return read


@pytest.fixture
def interrupted(folder, target, settings):
    """A run that ended after three of six parts."""
    folder.put("big", os.urandom(SIZE), content_type="application/x-big")
    with pytest.raises(SyncInterrupted):
        sync(settings, source=Counting(folder, fails_after=3), target=target)
    return folder


def test_a_run_goes_on_with_the_parts_that_are_there(interrupted, target, settings, noted):
    source = Counting(interrupted)
    had = len(noted()) - 1

    result = sync(settings, source=source, target=target)

    assert had == 3
    assert result.copied == 1
    assert source.given == SIZE - had * PART
    assert target.get("big") == interrupted.get("big")
    assert noted() == []
    assert sync(settings, source=source, target=target).skipped == 1


def test_without_its_notes_all_is_sent_again(interrupted, target, settings, tmp_path):
    """The negative control of the test above."""
    (tmp_path / "sync.db").unlink()
    source = Counting(interrupted)

    sync(settings, source=source, target=target)

    assert source.given == SIZE


def test_parts_of_an_older_version_are_never_mixed_in(interrupted, target, settings, noted):
    interrupted.put("big", os.urandom(SIZE))
    source = Counting(interrupted)
    upload = noted()[0][1]

    sync(settings, source=source, target=target)

    assert source.given == SIZE
    assert target.get("big") == interrupted.get("big")
    assert upload
    assert noted() == []


def test_an_upload_that_the_store_has_dropped_is_begun_again(interrupted, target, settings, noted):
    if target.url.startswith("az:"):
        # Azure drops staged blocks with the next write of the blob.
        target.put("big", b"made there")
        target.delete(["big"])
    else:
        target.abort_upload("big", json.loads(noted()[0][1])["upload_id"])
    source = Counting(interrupted)

    sync(settings, source=source, target=target)

    assert source.given == SIZE
    assert target.get("big") == interrupted.get("big")


def test_an_object_made_in_the_target_meanwhile_is_replaced_knowingly(interrupted, target, settings):
    target.put("big", b"made there")

    result = sync(settings.model_copy(update={"retry": settings.retry}), source=interrupted, target=target)

    assert result.replaced == 1
    assert target.get("big") == interrupted.get("big")


def test_orphans_are_aborted_after_their_time(interrupted, target, settings, noted):
    upload_id = json.loads(noted()[0][1])["upload_id"]
    interrupted.delete(["big"])
    sync(settings, source=interrupted, target=target)
    kept = noted()

    sync(settings.model_copy(update={"orphan_after_s": 0}), source=interrupted, target=target)

    assert kept
    assert noted() == []
    # Azure drops staged blocks by itself, after a week.
    assert target.url.startswith("az:") or not is_there(target, upload_id)


def is_there(target, upload_id):
    from tidemill_core.storage import Upload

    upload = Upload(size_bytes=1, part_bytes=1, read=bytes, began=str, sent=str, upload_id=upload_id)
    return target._still_there("big", upload) is not None


def test_a_folder_needs_no_parts(folder, memory, settings):
    memory.put("big", b"x" * (PART + 1))

    sync(settings, source=memory, target=folder)

    assert folder.head("big").size_bytes == PART + 1


def test_the_age_of_an_upload_is_counted_from_its_begin(memory, target, tmp_path):
    with closing(open_manifest(f"sqlite:///{tmp_path}/m.db")) as manifest:
        target.put("k", b"")
        manifest.save_piece("job", "k", 0, json.dumps({"began_at": 100, "upload_id": str(uuid.uuid4())}))
        uploads = Uploads(manifest, "job", target, clock=lambda: 150)

        assert uploads.sweep(51) == 0
        assert uploads.sweep(50) == 1


@pytest.mark.chaos
@pytest.mark.parametrize("store", ["s3_bucket", "azure_container"])
def test_at_most_half_is_sent_again_after_a_kill_at_half(store, request, folder, config, tmp_path):
    url, options = request.getfixturevalue(store)
    size = 128 * MIB
    folder.put("big", os.urandom(size))
    target = open_store(f"{url}/killed", options)
    environment = {**os.environ, "TIDEMILL_HOME": str(tmp_path)}
    for name, value in options.model_dump(exclude_none=True).items():
        environment[f"TIDEMILL_{name.upper()}"] = getattr(value, "get_secret_value", lambda value=value: str(value))()
    manifest = f"sqlite:///{tmp_path}/sync.db"
    code = "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "sync", "run", folder.url, target.url, "--manifest", manifest]
    process = subprocess.Popen([*command, "--bytes-per-s", str(48 * MIB)], env=environment)
    job, deadline = job_id(folder.url, target.url), time.monotonic() + 60
    with closing(open_manifest(manifest)) as notes:
        while len(notes.pieces(job, "big")) - 1 < 8:
            assert process.poll() is None, "the sync ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    source = Counting(folder)

    sync(config(manifest=manifest), source=source, target=target)

    assert 0 < source.given <= 0.55 * size
    assert target.get("big") == folder.get("big")
