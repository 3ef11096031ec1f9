"""What a run deletes or replaces is kept under the trash, which takes no part in the sync."""

import json
import re

import pytest
from pydantic import ValidationError
from tidemill_core.errors import PreconditionFailed
from tidemill_core.storage import StoreUnavailable, open_store
from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import sync, sync_keys
from tidemill_sync.errors import LogUnwritable, SyncInterrupted
from tidemill_sync.verification import verify


class Through:
    """A store some of whose calls go elsewhere first."""

    def __init__(self, store, **instead):
        self._store, self._instead = store, instead

    def __getattr__(self, name):
        return self._instead.get(name) or getattr(self._store, name)


def kept(store, prefix=".trash/"):
    """Every version under the trash, by its key without the run's folder."""
    found = {}
    for each in store.list(prefix):
        folder, _, key = each.key.removeprefix(prefix).partition("/")
        assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}(\.\d+)?", folder)
        found.setdefault(key, []).append(store.get(each.key))
    return found


def live(store):
    return {each.key: store.get(each.key) for each in store.list() if not each.key.startswith(".trash/")}


@pytest.fixture
def mirrored(memory, folder, config):
    for key in ("a", "b/c", "d"):
        memory.put(key, b"old " + key.encode())
    settings = config(prune=True, trash=".trash")
    sync(settings, source=memory, target=folder)
    return memory, folder, settings


def test_replaced_and_deleted_objects_are_kept(mirrored):
    source, target, settings = mirrored
    source.put("a", b"new")
    source.delete(["b/c"])

    sync(settings, source=source, target=target)

    assert live(target) == {"a": b"new", "d": b"old d"}
    assert kept(target) == {"a": [b"old a"], "b/c": [b"old b/c"]}


def test_the_trash_is_neither_pruned_nor_a_difference(mirrored):
    source, target, settings = mirrored
    source.put("a", b"new")
    sync(settings, source=source, target=target)

    again = sync(settings, source=source, target=target)

    assert (again.changed, again.deleted) == (0, 0)
    assert kept(target) == {"a": [b"old a"]}
    assert verify(settings, source=source, target=target, content=True).is_exact


def test_a_trash_in_the_source_is_not_copied(mirrored):
    source, target, settings = mirrored
    source.put(".trash/x", b"1")

    sync(settings, source=source, target=target)

    assert kept(target) == {}


def test_single_keys_are_kept_too(mirrored):
    source, target, settings = mirrored
    source.delete(["d"])

    sync_keys(settings, ["d"], source=source, target=target)

    assert kept(target) == {"d": [b"old d"]}


def test_both_versions_that_one_run_meets_are_kept(mirrored):
    source, target, settings = mirrored
    source.put("a", b"new")
    met = []

    def put(key, body, **options):
        if key == "a" and not met:
            met.append(key)
            target.put("a", b"an edit in between")
            raise PreconditionFailed(target.url, key)
        return target.put(key, body, **options)

    sync(settings, source=source, target=Through(target, put=put))

    assert live(target)["a"] == b"new"
    assert sorted(kept(target)["a"]) == [b"an edit in between", b"old a"]


def test_an_attempt_that_is_repeated_keeps_one_copy(mirrored):
    source, target, settings = mirrored
    source.put("a", b"new")
    failures = iter([True])

    def put(key, body, **options):
        if next(failures, False):
            raise StoreUnavailable(target.url, "put", "down")
        return target.put(key, body, **options)

    sync(settings, source=source, target=Through(target, put=put))

    assert kept(target) == {"a": [b"old a"]}


def test_what_cannot_be_kept_is_neither_replaced_nor_deleted(mirrored):
    source, target, settings = mirrored
    source.put("a", b"new")

    def copy(one, other):
        raise StoreUnavailable(target.url, "copy", "down")

    with pytest.raises(SyncInterrupted):
        sync(settings, source=source, target=Through(target, copy=copy))
    source.put("a", b"old a")
    source.delete(["d"])
    with pytest.raises((SyncInterrupted, StoreUnavailable)):
        sync(settings, source=source, target=Through(target, copy=copy))

    assert live(target) == {"a": b"old a", "b/c": b"old b/c", "d": b"old d"}


def test_without_a_trash_nothing_is_kept(memory, folder, config):
    memory.put("a", b"1")
    sync(config(), source=memory, target=folder)
    memory.put("a", b"2")

    sync(config(), source=memory, target=folder)

    assert live(folder) == {"a": b"2"}
    assert kept(folder) == {}


@pytest.mark.parametrize("prefix", ["", "/", "/lead", "a//b", "..", "a/../b", "./a"])
def test_what_is_no_prefix_of_keys_is_refused(prefix):
    with pytest.raises(ValidationError, match="trash must be a prefix"):
        SyncConfig(trash=prefix)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_changed_key_has_a_line(mirrored, tmp_path):
    source, target, settings = mirrored
    settings = settings.model_copy(update={"change_log": tmp_path / "logs" / "changes.jsonl"})
    source.put("a", b"newer")
    source.put("new", b"n")
    source.delete(["d"])

    result = sync(settings, source=source, target=target, run_id="r" * 12)
    sync(settings, source=source, target=target)

    found = {each["key"]: each for each in lines(settings.change_log)}
    assert {key: each["kind"] for key, each in found.items()} == {"a": "replaced", "new": "copied", "d": "deleted"}
    assert len(lines(settings.change_log)) == result.changed
    assert {each["run"] for each in found.values()} == {"r" * 12}
    assert target.get(found["a"]["trashed"]) == b"old a"
    assert target.get(found["d"]["trashed"]) == b"old d"
    assert found["a"]["target_etag"] == target.head("a").etag


def test_a_failed_key_has_a_line_with_its_reason(memory, tmp_path, config):
    memory.put("a//b", b"1")
    settings = config(change_log=tmp_path / "changes.jsonl")

    with pytest.raises(Exception, match="a//b"):
        sync(settings, source=memory, target=open_store((tmp_path / "to").as_uri()))

    (line,) = lines(settings.change_log)
    assert (line["kind"], line["key"]) == ("failed", "a//b")
    assert line["error"]


def test_what_a_killed_run_wrote_without_a_line_is_told_by_the_next(memory, folder, tmp_path, config):
    memory.put("a", b"1")
    folder.put("a", b"1")  # as a run leaves it that is killed after the copy and before its note
    settings = config(change_log=tmp_path / "changes.jsonl")

    sync(settings, source=memory, target=folder)

    assert [(each["kind"], each["key"]) for each in lines(settings.change_log)] == [("adopted", "a")]


def test_half_a_line_of_a_full_disk_stays_alone(memory, folder, tmp_path, config):
    memory.put("a", b"1")
    settings = config(change_log=tmp_path / "changes.jsonl")
    settings.change_log.write_text('{"at": "2026')

    sync(settings, source=memory, target=folder)

    half, whole = settings.change_log.read_text().splitlines()
    assert (half, json.loads(whole)["key"]) == ('{"at": "2026', "a")


def test_a_log_that_cannot_be_opened_ends_the_run_before_it_changes_anything(memory, folder, tmp_path, config):
    memory.put("a", b"1")
    (tmp_path / "file").write_text("")

    with pytest.raises(LogUnwritable, match="cannot be written"):
        sync(config(change_log=tmp_path / "file" / "log"), source=memory, target=folder)

    assert live(folder) == {}


def test_a_log_on_a_full_disk_ends_the_run_and_leaves_no_note(memory, folder, config, tmp_path):
    memory.put("a", b"1")
    settings = config(change_log="/dev/full")

    with pytest.raises(LogUnwritable, match="No space"):
        sync(settings, source=memory, target=folder)

    again = sync(config(), source=memory, target=folder)
    assert again.adopted == 1
