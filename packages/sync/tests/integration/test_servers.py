"""Real servers in every pair, and runs killed in the middle."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tidemill_core.storage import open_store
from tidemill_sync.engine import sync
from tidemill_sync.verification import verify

_FILES = {
    "raw/day=1/part 0.parquet": b"PAR1" * 100,
    "raw/day=2/ü+%41.parquet": b"x" * 5,
    "empty": b"",
    "a.b": b"1",
    "a/b": b"2",
    "a-b": b"3",
}
_LARGE = bytes(range(256)) * 90_000


def contents(store):
    return {each.key: store.get(each.key) for each in store.list()}


@pytest.fixture
def place(request, tmp_path):
    """Open a place by the name of its server."""

    def build(name, which):
        if name == "folder":
            return open_store((tmp_path / which).as_uri())
        if name == "versitygw":
            from tidemill_core.testing.objects import s3_bucket

            url, options = s3_bucket(request.getfixturevalue("versitygw"))
        else:
            url, options = request.getfixturevalue(name)
        return open_store(f"{url}/{which}", options)

    return build


@pytest.mark.parametrize(
    ("source_name", "target_name"),
    [
        ("folder", "folder"),
        ("folder", "s3_bucket"),
        ("s3_bucket", "folder"),
        ("s3_bucket", "versitygw"),
        ("versitygw", "gcs_bucket"),
        ("gcs_bucket", "azure_container"),
        ("azure_container", "s3_bucket"),
        ("s3_bucket", "s3_bucket"),
    ],
)
def test_one_cloud_is_mirrored_to_another(place, config, source_name, target_name):
    source, target = place(source_name, "from"), place(target_name, "to")
    for key, body in {**_FILES, "large": _LARGE}.items():
        source.put(key, body)
    target.put("old", b"gone")

    first = sync(config(prune=True, max_delete_percent=100), source=source, target=target)
    second = sync(config(prune=True), source=source, target=target)

    assert contents(target) == {**_FILES, "large": _LARGE}
    assert (first.copied, first.deleted) == (7, 1)
    assert (second.skipped, second.changed) == (7, 0)
    assert verify(config(prune=True), source=source, target=target, content=True).is_exact


@pytest.mark.parametrize("name", ["s3_bucket", "versitygw", "gcs_bucket", "azure_container"])
def test_a_store_keeps_what_is_deleted_and_replaced(place, config, memory, name):
    target, settings = place(name, "kept"), config(prune=True, trash=".trash/", metadata=True)
    memory.put("a b/ü", b"old", content_type="text/csv")
    memory.put("gone", b"1")
    sync(settings, source=memory, target=target)
    memory.put("a b/ü", b"newer")
    memory.delete(["gone"])

    sync(settings, source=memory, target=target)

    kept = {each.key.split("/", 2)[2]: each.key for each in target.list(".trash/")}
    assert {key: target.get(at) for key, at in kept.items()} == {"a b/ü": b"old", "gone": b"1"}
    assert target.head(kept["a b/ü"]).content_type == "text/csv"
    assert verify(settings, source=memory, target=target, content=True).is_exact


def test_untamed_keys_are_kept_on_an_s3_server(s3_bucket, config):
    from tidemill_core.testing.suites.storage import ODD_KEYS, UNTAMED_KEYS

    url, options = s3_bucket
    source, target = open_store(f"{url}/from", options), open_store(f"{url}/to", options)
    files = {key: key.encode() for name, key in {**ODD_KEYS, **UNTAMED_KEYS}.items() if name != "backslash"}
    for key, body in files.items():
        source.put(key, body)

    sync(config(), source=source, target=target)

    assert contents(target) == files


def noted(manifest):
    try:
        with sqlite3.connect(manifest) as connection:
            return connection.execute("SELECT count(*) FROM sync_entry").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


@pytest.fixture
def killed(tmp_path):
    """A sync of 120 objects, killed with SIGKILL when at least 20 are noted."""
    source = open_store((tmp_path / "source").as_uri())
    for number in range(120):
        source.put(f"{number:03}", os.urandom(20_000))
    manifest = tmp_path / "sync.db"
    file = tmp_path / "sync.json"
    file.write_text(
        json.dumps(
            {
                "source": source.url,
                "target": (tmp_path / "target").as_uri(),
                "manifest": f"sqlite:///{manifest}",
                "commit_rows": 5,
                "workers": 2,
                "bytes_per_s": 400_000,
            }
        )
    )
    command = [sys.executable, "-m", "tidemill_core.cli", "sync", "run", "--config", str(file)]
    code = "from tidemill_core.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *command[3:]], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while noted(manifest) < 20:
        assert process.poll() is None, "the sync ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return source, open_store((tmp_path / "target").as_uri()), manifest


@pytest.mark.chaos
def test_a_killed_run_leaves_whole_objects_and_the_next_goes_on_after_them(killed, config):
    source, target, manifest = killed
    before, known = contents(target), noted(manifest)
    assert 20 <= len(before) < 120
    assert all(body == source.get(key) for key, body in before.items())

    result = sync(config(), source=source, target=target)

    assert contents(target) == contents(source)
    assert result.skipped == known
    assert result.copied == 120 - len(before)
    assert result.replaced == 0


@pytest.mark.chaos
def test_without_its_manifest_a_killed_run_copies_again(killed, config):
    """The negative control of the test above."""
    source, target, manifest = killed
    before = contents(target)
    manifest.unlink()

    result = sync(config(unknown="copy", manifest=f"sqlite:///{manifest}.other"), source=source, target=target)

    assert (result.skipped, result.replaced) == (0, len(before))
