"""A folder as a store: nothing leaves it, nothing half-written shows, URLs mean what they say."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.errors import ConfigError, ObjectNotFound, PluginError
from tidemill_core.settings import Settings
from tidemill_core.storage import KeyRefused, PreconditionFailed, StoreRefused, open_store, resolve_url
from tidemill_core.storage.file import TEMPORARY, FileStore


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path / "root")


@given(key=st.text(max_size=30).filter(lambda text: text.isprintable() or True))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_writes_outside_the_folder(key, tmp_path):
    root = tmp_path / "in" / "root"
    store = FileStore(root)
    try:
        store.put(key, b"x")
    except (KeyRefused, StoreRefused):
        return

    assert [each.key for each in store.list()] == [key]
    assert all(root in path.parents or path in {root, root.parent} for path in (tmp_path / "in").rglob("*"))
    store.delete([key])


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/x", "a//b", "a/./b", "a/", f"{TEMPORARY}/x", f"a/{TEMPORARY}/x", "n" * 256]
)
def test_a_key_that_is_no_path_in_the_folder_is_refused(store, key):
    with pytest.raises(KeyRefused):
        store.put(key, b"")


def test_symbolic_links_are_neither_listed_nor_followed(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    store.put("real", b"1")
    (store.root / "folder").symlink_to(outside)
    (store.root / "file").symlink_to(outside / "secret")

    assert [each.key for each in store.list()] == ["real"]
    assert list(store.list("folder/")) == []
    for key in ("folder/secret", "folder/new"):
        with pytest.raises(KeyRefused, match="symbolic link"):
            store.put(key, b"")
    with pytest.raises(ObjectNotFound):
        store.get("file")


def test_an_unfinished_write_never_shows(store):
    class Broken:
        def __init__(self):
            self.reads = 0

        def read(self, size):
            self.reads += 1
            if self.reads > 1:
                raise RuntimeError("cut")
            return b"x" * size

    store.put("key", b"old")
    with pytest.raises(RuntimeError):
        store.put("key", Broken())

    assert store.get("key") == b"old"
    assert [each.key for each in store.list()] == ["key"]
    assert list((store.root / TEMPORARY).iterdir()) == []


def test_temporary_files_of_a_store_further_down_are_not_listed(store):
    FileStore(store.root / "sub").put("x", b"")
    (store.root / "sub" / TEMPORARY / "left.tmp").write_bytes(b"of a killed process")

    assert [each.key for each in store.list()] == ["sub/x"]


def test_what_a_killed_process_left_is_swept_after_a_day(store):
    left = store.root / TEMPORARY / "left.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    os.utime(left, (0, 0))

    store.put("key", b"")

    assert not left.exists()


def test_readers_see_the_old_object_or_the_new_one(store):
    bodies = [bytes([number]) * 200_000 for number in range(4)]
    store.put("key", bodies[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for body in bodies:
                store.put("key", body)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = {store.get("key") for _ in range(200)}
        stop.set()
        writing.result()

    assert seen <= set(bodies)


def test_deletes_and_writes_in_one_folder_do_not_trip_over_each_other(store):
    def churn(number):
        for _ in range(50):
            store.put(f"a/b/{number}", b"x")
            store.delete([f"a/b/{number}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))

    assert list(store.list()) == []
    assert not (store.root / "a").exists()


def test_a_file_written_in_place_while_it_is_read_is_noticed(store):
    store.put("key", b"0123456789")
    etag = store.head("key").etag
    chunks = store.stream("key", chunk_bytes=5, if_match=etag)
    next(chunks)
    with (store.root / "key").open("r+b") as file:
        file.write(b"changed")

    with pytest.raises(PreconditionFailed):
        list(chunks)


def test_a_file_name_that_is_not_unicode_is_an_error_and_not_skipped(store):
    store.put("ok", b"")
    Path(os.fsdecode(os.fsencode(str(store.root)) + b"/\xff")).write_bytes(b"")

    with pytest.raises(StoreRefused, match="UTF-8"):
        list(store.list())


def test_a_missing_folder_holds_nothing(tmp_path):
    assert list(FileStore(tmp_path / "none").list()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.sets(st.text(alphabet="ab-./0é\uff5e\U0001f30a", min_size=1, max_size=5), max_size=15),
    prefix=st.text(alphabet="ab-./", max_size=3),
    after=st.text(alphabet="ab-./\uff5e", max_size=3),
)
def test_a_listing_equals_sorting_all_keys(keys, prefix, after, tmp_path_factory):
    store = FileStore(tmp_path_factory.mktemp("walk"), durable=False)
    kept = set()
    for key in sorted(keys):
        try:
            store.put(key, b"")
        except KeyRefused:
            continue
        kept.add(key)

    listed = [each.key for each in store.list(prefix, start_after=after or None)]

    expected = [key for key in sorted(kept, key=str.encode) if key.startswith(prefix) and key > after]
    assert expected == listed


def test_a_file_url_and_a_path_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("some folder").put("k", b"1")

    assert open_store((tmp_path / "some folder").as_uri()).get("k") == b"1"
    assert open_store(open_store("some folder").url).get("k") == b"1"


def test_lake_and_mirror_stand_for_the_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("TIDEMILL_LAKE_URL", "s3://bucket/lake/")
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))

    assert resolve_url("lake://") == "s3://bucket/lake/"
    assert resolve_url("lake://raw/weather") == "s3://bucket/lake/raw/weather"
    assert open_store("lake://raw").url == "s3://bucket/lake/raw"
    assert resolve_url("mirror://") == (tmp_path / "mirror").as_uri()
    assert resolve_url("mirror://x", Settings(mirror_url="gs://m")) == "gs://m/x"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", ConfigError),
        ("s4://bucket", PluginError),
        ("s3://", ConfigError),
        ("gs://", ConfigError),
        ("az://", ConfigError),
        ("memory://", ConfigError),
        ("file://host/path", ConfigError),
    ],
)
def test_a_wrong_url_says_how_to_write_it(url, error, monkeypatch):
    monkeypatch.setenv("TIDEMILL_AZURE_ACCOUNT", "account")

    with pytest.raises(error):
        open_store(url)


def test_an_azure_url_without_an_account_is_refused(monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TIDEMILL_AZURE_ACCOUNT", raising=False)

    with pytest.raises(ConfigError, match="TIDEMILL_AZURE_ACCOUNT"):
        open_store("az://container")
