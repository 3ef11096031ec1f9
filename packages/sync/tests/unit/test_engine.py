"""A run makes the target hold what the source holds, within its limits, and a second run does nothing twice."""

import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.lifecycle import Stopped, StopToken
from tidemill_core.lineage_hooks import subscribed
from tidemill_core.storage import StoreUnavailable, open_store
from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import plan_actions, sync, sync_keys
from tidemill_sync.errors import (
    PlacesOverlap,
    SourceEmpty,
    SyncBusy,
    SyncIncomplete,
    SyncInterrupted,
    TooManyDeletes,
)
from tidemill_sync.manifests._base import job_id
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.session import current_runs, manifest_url
from tidemill_sync.verification import verify

FILES = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)), "empty": b"", "ä/ü 1.txt": b"x"}


def contents(store):
    return {each.key: store.get(each.key) for each in store.list()}


def fill(store, files):
    for key, body in files.items():
        store.put(key, body)


class Wrapped:
    """A store that fails or counts on the way to a real one."""

    def __init__(self, store, **overrides):
        self._store, self._overrides = store, overrides
        self.calls = []

    def __getattr__(self, name):
        found = self._overrides.get(name) or getattr(self._store, name)
        if not callable(found):
            return found

        def call(*args, **kwargs):
            self.calls.append((name, args[0] if args else None))
            return found(*args, **kwargs)

        return call


def test_the_target_holds_what_the_source_holds(memory, folder, config):
    fill(folder, FILES)

    result = sync(config(), source=folder, target=memory)

    assert contents(memory) == FILES
    assert (result.copied, result.bytes) == (4, sum(map(len, FILES.values())))


def test_a_second_run_reads_and_writes_no_object(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)
    source, target = Wrapped(memory), Wrapped(folder)

    result = sync(config(), source=source, target=target)

    assert (result.skipped, result.changed) == (4, 0)
    assert [name for name, _ in source.calls + target.calls if name != "list"] == []


def test_changes_additions_and_deletions_follow(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)
    memory.put("a.txt", b"two")
    memory.put("new", b"n")
    memory.delete(["empty"])

    kept = sync(config(), source=memory, target=folder)
    pruned = sync(config(prune=True), source=memory, target=folder)

    assert (kept.replaced, kept.copied, kept.deleted) == (1, 1, 0)
    assert pruned.deleted == 1
    assert contents(folder) == contents(memory)


def test_a_change_of_equal_size_and_time_is_seen(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)
    memory.put("a.txt", b"owt")

    sync(config(), source=memory, target=folder)

    assert folder.get("a.txt") == b"owt"


def test_tampering_at_the_target_is_undone(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)
    folder.put("a.txt", b"hah")

    result = sync(config(), source=memory, target=folder)

    assert result.replaced == 1
    assert folder.get("a.txt") == b"one"


@pytest.mark.parametrize(("unknown", "field"), [("compare", "adopted"), ("size", "skipped"), ("copy", "replaced")])
def test_an_equal_object_no_run_knows_is_treated_as_configured(memory, folder, config, unknown, field):
    fill(memory, {"same": b"body"})
    fill(folder, {"same": b"body"})

    result = sync(config(unknown=unknown), source=memory, target=folder)

    assert getattr(result, field) == 1


def test_an_object_of_equal_size_but_other_bytes_is_replaced(memory, folder, config):
    fill(memory, {"same": b"body"})
    fill(folder, {"same": b"yobd"})

    result = sync(config(), source=memory, target=folder)

    assert result.replaced == 1
    assert folder.get("same") == b"body"


def test_an_empty_source_is_refused_before_anything_is_deleted(memory, folder, config):
    fill(folder, FILES)

    with pytest.raises(SourceEmpty, match="allow_empty_source"):
        sync(config(prune=True), source=memory, target=folder)

    assert contents(folder) == FILES


def test_an_empty_source_empties_the_target_when_allowed(memory, folder, config):
    fill(folder, FILES)

    result = sync(config(prune=True, allow_empty_source=True, max_delete_percent=100), source=memory, target=folder)

    assert (result.deleted, contents(folder)) == (4, {})


@pytest.mark.parametrize("limit", [{"max_delete_percent": 50}, {"max_delete_percent": 100, "max_delete": 2}])
def test_more_deletes_than_allowed_are_refused(memory, folder, config, limit):
    fill(folder, FILES)
    fill(memory, {"a.txt": b"one"})

    with pytest.raises(TooManyDeletes, match="3 of 4"):
        sync(config(prune=True, **limit), source=memory, target=folder)

    assert set(contents(folder)) == set(FILES)


def test_a_listing_that_breaks_deletes_nothing(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)

    def broken(*_args, **_options):
        yield next(memory.list())
        raise StoreUnavailable(memory.url, "list", "cut")

    with pytest.raises(StoreUnavailable):
        sync(config(prune=True), source=Wrapped(memory, list=broken), target=folder)

    assert contents(folder) == FILES


def test_a_store_that_lists_out_of_order_is_sorted_and_nothing_is_lost(memory, folder, config):
    fill(memory, FILES | {"\uff5e": b"1", "\U0001f30a": b"2"})
    fill(folder, {"extra": b"old", "a.txt": b"one", "deep/er/b.bin": FILES["deep/er/b.bin"]})

    def utf16(*_args, **_options):
        yield from sorted(memory.list(), key=lambda each: each.key.encode("utf-16-be"))

    sync(config(prune=True), source=Wrapped(memory, list=utf16), target=folder)

    assert contents(folder) == contents(memory)


def test_an_object_that_fails_for_now_is_tried_again(memory, folder, config):
    fill(memory, FILES)
    failures = iter([True, True])

    def get(key, **kwargs):
        if key == "a.txt" and next(failures, False):
            raise StoreUnavailable(memory.url, "read", "busy")
        return memory.get(key, **kwargs)

    sync(config(), source=Wrapped(memory, get=get), target=folder)

    assert contents(folder) == FILES


def test_an_object_that_keeps_failing_fails_the_run_but_not_the_others(memory, folder, config):
    fill(memory, FILES)
    fill(folder, {"extra": b"stays"})

    def get(key, **kwargs):
        if key == "a.txt":
            raise StoreUnavailable(memory.url, "read", "busy")
        return memory.get(key, **kwargs)

    with pytest.raises(SyncInterrupted, match=r"a\.txt"):
        sync(config(prune=True), source=Wrapped(memory, get=get), target=folder)

    assert set(contents(folder)) == {*FILES, "extra"} - {"a.txt"}


@pytest.mark.parametrize("key", ["dir/", "a//b", "/lead", "x/./y", "x/../y", "..", "../evil"])
def test_a_key_a_folder_cannot_hold_is_reported_and_never_misplaced(memory, tmp_path, config, key):
    root = tmp_path / "in" / "root"
    fill(memory, {key: b"odd", "fine": b"ok"})

    with pytest.raises(SyncIncomplete, match="cannot hold") as incomplete:
        sync(config(), source=memory, target=open_store(root.as_uri()))

    assert [failed for failed, _ in incomplete.value.failures] == [key]
    assert {each.relative_to(tmp_path) for each in tmp_path.rglob("*") if each.is_file() and each.suffix != ".db"} - {
        each.relative_to(tmp_path) for each in tmp_path.glob("sync.db*")
    } == {(root / "fine").relative_to(tmp_path)}


def test_a_name_that_is_both_object_and_folder_is_reported(memory, folder, config):
    fill(memory, {"clash": b"1", "clash/inner": b"2"})

    with pytest.raises(SyncIncomplete, match="clash"):
        sync(config(workers=1), source=memory, target=folder)

    assert len(contents(folder)) == 1


def test_odd_keys_survive_a_round_trip_between_stores_that_hold_them(memory, config):
    from tidemill_core.testing.suites.storage import ODD_KEYS, UNTAMED_KEYS

    files = {key: key.encode() for key in [*ODD_KEYS.values(), *UNTAMED_KEYS.values()]}
    fill(memory, files)
    target = open_store(f"memory://{uuid.uuid4()}")

    sync(config(), source=memory, target=target)

    assert contents(target) == files


def test_an_object_changed_while_it_is_read_is_copied_in_its_new_version(memory, folder, config):
    fill(memory, {"key": b"old"})
    changed = iter([True])

    def get(key, **kwargs):
        if next(changed, False):
            memory.put("key", b"newer")
        return memory.get(key, **kwargs)

    sync(config(), source=Wrapped(memory, get=get), target=folder)

    assert folder.get("key") == b"newer"


def test_an_object_deleted_since_it_was_listed_is_no_error(memory, folder, config):
    fill(memory, {"gone": b"1", "stays": b"2"})

    def get(key, **kwargs):
        if key == "gone":
            memory.delete(["gone"])
        return memory.get(key, **kwargs)

    result = sync(config(), source=Wrapped(memory, get=get), target=folder)

    assert (result.vanished, result.copied) == (1, 1)


def test_another_writer_at_the_target_is_noticed_and_the_source_wins(memory, folder, config):
    fill(memory, {"key": b"ours"})
    raced = iter([True])

    def put(key, body, **kwargs):
        if next(raced, False):
            folder.put(key, b"theirs")
        return folder.put(key, body, **kwargs)

    target = Wrapped(folder, put=put)
    sync(config(), source=memory, target=target)

    assert folder.get("key") == b"ours"
    assert [name for name, _ in target.calls if name == "put"] == ["put", "put"]


def test_a_large_object_is_streamed(memory, folder, config):
    body = bytes(range(256)) * 40_000
    fill(folder, {"large": body})

    result = sync(config(large_bytes=1 << 20), source=folder, target=memory)

    assert memory.get("large") == body
    assert result.bytes == len(body)


def test_filters_hold_on_both_sides(memory, folder, config):
    fill(memory, {"a.csv": b"1", "b.txt": b"2", "tmp/c.csv": b"3"})
    fill(folder, {"mine.txt": b"kept", "old.csv": b"gone"})

    sync(
        config(include=["*.csv"], exclude=["tmp/**"], prune=True, max_delete_percent=100), source=memory, target=folder
    )

    assert set(contents(folder)) == {"a.csv", "mine.txt"}


def test_objects_outside_the_sizes_are_left_alone_on_both_sides(memory, folder, config):
    fill(memory, {"small": b"1", "fits": b"12345", "huge": b"x" * 100})
    fill(folder, {"huge": b"kept"})

    sync(config(min_size_bytes=2, max_size_bytes=50, prune=True), source=memory, target=folder)

    assert contents(folder) == {"fits": b"12345", "huge": b"kept"}


def test_content_type_and_metadata_are_kept(memory, config):
    memory.put("key", b"x", content_type="text/csv", metadata={"by": "us"})
    target = open_store(f"memory://{uuid.uuid4()}")

    sync(config(), source=memory, target=target)

    copied = target.head("key")
    assert (copied.content_type, copied.metadata) == ("text/csv", {"by": "us"})


def test_a_place_inside_the_other_is_refused(tmp_path, config):
    with pytest.raises(PlacesOverlap):
        sync(config(source=(tmp_path / "a").as_uri(), target=(tmp_path / "a" / "b").as_uri()))


def test_a_second_run_at_the_same_time_is_refused(memory, folder, config):
    with open_manifest(manifest_url(config())).lease(job_id(memory.url, folder.url)), pytest.raises(SyncBusy):
        sync(config(), source=memory, target=folder)


def test_a_stop_ends_the_run_after_the_objects_in_flight_and_the_next_goes_on(memory, folder, config):
    fill(memory, {f"{number:03}": b"x" for number in range(60)})
    stop = StopToken()
    seen = []

    def get(key, **kwargs):
        seen.append(key)
        if len(seen) == 10:
            stop.set("test")
        return memory.get(key, **kwargs)

    with pytest.raises(Stopped):
        sync(config(workers=2), source=Wrapped(memory, get=get), target=folder, stop=stop)
    copied_before = len(contents(folder))
    result = sync(config(workers=2), source=memory, target=folder)

    assert 10 <= copied_before < 60
    assert (result.skipped, result.copied) == (copied_before, 60 - copied_before)


def test_runs_are_remembered(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder, run_id="first")
    memory.delete(list(FILES))
    with pytest.raises(SourceEmpty):
        sync(config(prune=True), source=memory, target=folder, run_id="second")

    runs = current_runs(open_manifest(manifest_url(config())), 10)

    assert [(run.run_id, run.state) for run in runs] == [("second", "failed"), ("first", "done")]
    assert runs[1].result["copied"] == 4


def test_the_write_is_announced_to_lineage(memory, folder, config):
    fill(memory, FILES)
    events = []

    with subscribed(events.append):
        sync(config(), source=memory, target=folder)

    assert [(event.kind, event.dataset, event.inputs) for event in events] == [("wrote", folder.url, (memory.url,))]


def test_single_keys_are_reconciled_whatever_happened_to_them(memory, folder, config):
    fill(memory, {"a": b"1", "b": b"2", "c": b"3"})
    sync(config(), source=memory, target=folder)
    memory.put("a", b"changed")
    memory.put("c", b"not told")
    memory.delete(["b"])

    result = sync_keys(config(prune=True), ["a", "b", "a", "never"], source=memory, target=folder)

    assert (result.replaced, result.deleted) == (1, 1)
    assert contents(folder) == {"a": b"changed", "c": b"3"}


def test_a_plan_changes_nothing(memory, folder, config):
    fill(memory, FILES)

    actions = list(plan_actions(config(), source=memory, target=folder))

    assert [action.kind for action in actions] == ["copy"] * 4
    assert contents(folder) == {}


def test_verify_names_every_difference(memory, folder, config):
    fill(memory, FILES)
    sync(config(), source=memory, target=folder)
    assert verify(config(), source=memory, target=folder).is_exact
    folder.put("a.txt", b"eno")
    folder.delete(["empty"])
    folder.put("extra", b"")

    report = verify(config(), content=True, source=memory, target=folder)

    assert {each.key: each.kind for each in report.differences} == {
        "a.txt": "different",
        "empty": "missing",
        "extra": "extra",
    }
    assert (report.same, report.read, report.is_complete) == (2, 2, False)


_FILES = st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e", "f"]), st.binary(max_size=3), max_size=5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(_FILES, _FILES, st.booleans()), min_size=1, max_size=4))
def test_any_sequence_of_states_converges(steps, tmp_path):
    names = uuid.uuid4(), uuid.uuid4()
    source, target = (open_store(f"memory://{name}") for name in names)
    given_config = SyncConfig(
        manifest=f"sqlite:///{tmp_path}/{names[0]}.db", prune=True, allow_empty_source=True, max_delete_percent=100
    )
    for at_source, at_target, is_tampered in steps:
        source.delete([each.key for each in source.list()])
        fill(source, at_source)
        if is_tampered:
            fill(target, at_target)

        sync(given_config, source=source, target=target)

        assert contents(source) == contents(target)
        assert sync(given_config, source=source, target=target).changed == 0


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_a_stream_body_is_read_in_any_piece_size(size):
    from tidemill_sync.transfer import _Stream

    stream = _Stream(iter([b"ab", b"", b"cdefg", b"h"]), 8)
    pieces = list(iter(lambda: stream.read(size), b""))

    assert b"".join(pieces) == b"abcdefgh"
    assert max(map(len, pieces)) <= size
    assert _Stream(iter([b"ab", b"c"]), 3).read() == b"abc"


def test_the_manifest_is_in_the_settings_database_if_one_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_POSTGRES_URL", "postgresql://warehouse/db")
    named = manifest_url(SyncConfig())
    monkeypatch.delenv("TIDEMILL_POSTGRES_URL")

    assert named == "postgresql://warehouse/db"
    assert manifest_url(SyncConfig()) == f"sqlite:///{tmp_path}/sync.db"


def test_a_run_whose_target_is_lost_ends_after_some_failures(memory, folder, config):
    fill(memory, {f"{number:03}": b"x" for number in range(300)})

    def put(key, body, **kwargs):
        raise StoreUnavailable(folder.url, "write", "No space left on device")

    target = Wrapped(folder, put=put)
    with pytest.raises(SyncInterrupted, match="No space"):
        sync(config(workers=2, max_failures=5, retry={"attempts": 1}), source=memory, target=target)

    assert 5 <= len([name for name, _ in target.calls if name == "put"]) < 100


def test_a_single_key_that_the_target_cannot_hold_fails_alone(memory, folder, config):
    memory.put("a//b", b"1")
    memory.put("c", b"2")

    with pytest.raises(SyncIncomplete, match="a//b") as failed:
        sync_keys(config(), ["a//b", "c"], source=memory, target=folder)

    assert failed.value.total == 1
    assert contents(folder) == {"c": b"2"}
