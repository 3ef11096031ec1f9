"""A kept plan is carried out as it was seen, and nothing that has changed since is touched."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.lifecycle import Stopped, StopToken
from tidemill_core.storage import StoreUnavailable, open_store
from tidemill_sync.apply import apply_plan, keep_plan
from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import sync
from tidemill_sync.errors import PlanElsewhere, PlanFileWrong, PlanOutdated, SyncIncomplete, TooManyDeletes
from tidemill_sync.verification import verify


class Through:
    """A store some of whose calls go elsewhere first."""

    def __init__(self, store, **instead):
        self._store, self._instead = store, instead

    def __getattr__(self, name):
        return self._instead.get(name) or getattr(self._store, name)


def contents(store):
    return {each.key: store.get(each.key) for each in store.list()}


@pytest.fixture
def changed(memory, folder, config, tmp_path):
    """A mirror with a key to copy, one to replace, one to delete, and its plan."""
    for key in ("kept", "old", "gone"):
        memory.put(key, b"1")
    mirror = config(prune=True, retry={"attempts": 3, "delay_s": 0.01})
    sync(mirror, source=memory, target=folder)
    memory.put("old", b"22")
    memory.put("new", b"3")
    memory.delete(["gone"])
    path = tmp_path / "plan.parquet"
    keep_plan(mirror, path, source=memory, target=folder)
    return memory, folder, path


@pytest.fixture
def apply(changed, config):
    """Carry the plan out on the stores it was made for."""
    source, target, path = changed
    manifest = config().manifest

    def run(**given):
        stores = {"source": source, "target": target, **given}
        return apply_plan(path, changes={"manifest": manifest, **stores.pop("changes", {})}, **stores)

    return run


def test_a_plan_says_what_a_run_would_do_and_does_nothing(changed, config, tmp_path):
    source, target, path = changed

    kept = keep_plan(config(prune=True), path, source=source, target=target)

    assert (kept.copy, kept.replace, kept.delete, kept.unchanged, kept.bytes) == (1, 1, 1, 1, 3)
    assert pq.read_table(path, columns=["kind", "key"]).to_pylist() == [
        {"kind": "delete", "key": "gone"},
        {"kind": "copy", "key": "new"},
        {"kind": "replace", "key": "old"},
    ]
    assert contents(target) == {"kept": b"1", "old": b"1", "gone": b"1"}
    assert [each.name for each in tmp_path.iterdir() if "plan" in each.name] == ["plan.parquet"]


def test_a_plan_is_carried_out(changed, apply, config):
    source, target, _ = changed

    result = apply()

    assert contents(target) == contents(source)
    assert (result.copied, result.replaced, result.deleted) == (1, 1, 1)
    assert sync(config(prune=True), source=source, target=target).skipped == 3


def test_what_the_plan_does_not_show_is_left(changed, apply):
    source, target, _ = changed
    source.put("later", b"x")
    source.delete(["kept"])

    apply()

    assert contents(target) == {"kept": b"1", "old": b"22", "new": b"3"}


@pytest.mark.parametrize(
    ("key", "side", "body"),
    [
        ("old", "source", b"later"),
        ("old", "source", None),
        ("old", "target", b"edited"),
        ("old", "target", None),
        ("new", "source", b"later"),
        ("new", "source", None),
        ("new", "target", b"made there"),
    ],
)
def test_a_copy_whose_sides_have_changed_is_refused_and_nothing_is_deleted(changed, apply, key, side, body):
    source, target, _ = changed
    store = source if side == "source" else target
    if body is None:
        store.delete([key])
    else:
        store.put(key, body)
    before = contents(target)

    with pytest.raises(SyncIncomplete, match=rf"'{key}' in .* has changed since the plan"):
        apply()

    after = contents(target)
    other = {"old": ("new", b"3"), "new": ("old", b"22")}[key]
    assert after == {**before, other[0]: other[1]}


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_delete_whose_sides_have_changed_is_refused_alone(changed, apply, side):
    source, target, _ = changed
    (source if side == "source" else target).put("gone", b"back")

    with pytest.raises(PlanOutdated, match=r"'gone' in .* has changed since the plan"):
        apply()

    assert contents(target) == {"kept": b"1", "old": b"22", "new": b"3", "gone": target.get("gone")}


def test_without_a_plan_the_same_edit_is_overwritten(changed, config):
    source, target, _ = changed
    target.put("old", b"edited")

    sync(config(prune=True), source=source, target=target)

    assert contents(target) == contents(source)


def test_a_deletion_done_by_somebody_else_is_no_change(changed, apply):
    _, target, _ = changed
    target.delete(["gone"])

    apply()

    assert "gone" not in contents(target)


def test_an_attempt_that_was_stopped_goes_on(changed, apply):
    source, target, _ = changed
    stop = StopToken()

    def put(key, body, **options):
        stop.set("enough")
        return target.put(key, body, **options)

    with pytest.raises(Stopped):
        apply(target=Through(target, put=put), stop=stop)
    second = apply()
    third = apply()

    assert contents(target) == contents(source)
    assert second.adopted + second.copied + second.replaced == 2
    assert (third.adopted, third.changed) == (2, 1)


def test_a_write_whose_answer_was_lost_is_found_done(changed, apply):
    source, target, _ = changed
    lost = []

    def put(key, body, **options):
        written = target.put(key, body, **options)
        if key not in lost:
            lost.append(key)
            raise StoreUnavailable(target.url, "put", "the answer was lost")
        return written

    apply(target=Through(target, put=put))

    assert contents(target) == contents(source)


def test_the_limits_of_the_plan_hold(memory, folder, config, tmp_path):
    for number in range(4):
        memory.put(str(number), b"1")
    mirror = config(prune=True)
    sync(mirror, source=memory, target=folder)
    memory.delete(["0", "1", "2"])
    keep_plan(mirror, tmp_path / "p", source=memory, target=folder)

    with pytest.raises(TooManyDeletes):
        apply_plan(tmp_path / "p", source=memory, target=folder)

    assert len(contents(folder)) == 4


def test_old_versions_are_kept_once(memory, folder, config, tmp_path):
    memory.put("a", b"1")
    mirror = config(trash=".trash")
    sync(mirror, source=memory, target=folder)
    memory.put("a", b"2")
    keep_plan(mirror, tmp_path / "p", source=memory, target=folder)

    for _ in range(2):
        apply_plan(tmp_path / "p", source=memory, target=folder)

    assert [folder.get(each.key) for each in folder.list(".trash/")] == [b"1"]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2", b"33"])),
    after=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2", b"33"])),
    later=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([None, b"4", b"55"])),
    where=st.booleans(),
)
def test_no_edit_made_after_the_plan_is_lost(config, tmp_path_factory, before, after, later, where):
    place = tmp_path_factory.mktemp("edits")
    (place / "from").mkdir()
    source, target = open_store((place / "from").as_uri()), open_store((place / "to").as_uri())
    mirror = SyncConfig(
        prune=True, max_delete_percent=100, allow_empty_source=True, manifest=f"sqlite:///{place}/sync.db"
    )
    fill(source, before)
    sync(mirror, source=source, target=target)
    fill(source, after)
    keep_plan(mirror, place / "plan", source=source, target=target)
    planned, store = contents(source), source if where else target
    edits = {key for key, body in later.items() if contents(store).get(key) != body}
    fill(store, later, is_all=False)
    edited, untouched = contents(target), set(after) - edits

    try:
        apply_plan(place / "plan", source=source, target=target)
    except (SyncIncomplete, PlanOutdated):
        pass
    else:
        untouched |= set(before) - edits  # all deletes were done too

    found = contents(target)
    for key in untouched:
        assert found.get(key) == planned.get(key)
    for key in edits:
        assert found.get(key) == edited.get(key)


def fill(store, files, *, is_all=True):
    if is_all:
        store.delete([each.key for each in list(store.list()) if each.key not in files])
    for key, body in files.items():
        if body is None:
            store.delete([key])
        elif contents(store).get(key) != body:
            store.put(key, body)


def test_a_plan_for_other_places_is_refused(changed, memory, tmp_path):
    source, _, path = changed

    with pytest.raises(PlanElsewhere, match="was made for"):
        apply_plan(path, source=source, target=open_store((tmp_path / "elsewhere").as_uri()))


def rewritten(path, change):
    """Write the plan again with other rows, and what it says about itself."""
    table = pq.read_table(path)
    about = {**(table.schema.metadata or {}), **pq.ParquetFile(path).metadata.metadata}
    rows = change(table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema).replace_schema_metadata(about), path)


def test_rows_may_be_taken_out(changed, apply):
    _, target, path = changed
    rewritten(path, lambda rows: [row for row in rows if row["kind"] != "delete"])

    apply()

    assert contents(target) == {"kept": b"1", "old": b"22", "new": b"3", "gone": b"1"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[::-1], "order of their keys"),
        (lambda rows: rows + rows, "order of their keys"),
        (lambda rows: [{**row, "kind": "burn"} for row in rows], "kind 'burn'"),
        (lambda rows: [{**row, "source_size_bytes": None} for row in rows], "what the source of 'new' was"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_as_a_whole(changed, apply, change, told):
    _, target, path = changed
    rewritten(path, change)

    with pytest.raises(PlanFileWrong, match=told):
        apply()

    assert contents(target) == {"kept": b"1", "old": b"1", "gone": b"1"}


@pytest.mark.parametrize("body", [None, b"", b"PAR1", b"text", "other", "cut"])
def test_what_is_no_plan_is_refused(changed, tmp_path, body):
    path = tmp_path / "odd"
    if body == "other":
        pq.write_table(pa.table({"a": [1]}), path)
    elif body == "cut":
        path.write_bytes(changed[2].read_bytes()[:-20])
    elif body is not None:
        path.write_bytes(body)

    with pytest.raises(PlanFileWrong, match=r"odd (cannot be read|is no)"):
        apply_plan(path)


def test_a_plan_that_cannot_be_written_leaves_nothing(memory, folder, config, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(PlanFileWrong, match="cannot be written"):
        keep_plan(config(), tmp_path / "file" / "plan", source=memory, target=folder)


def test_a_plan_holds_no_password(memory, folder, config, tmp_path, monkeypatch):
    monkeypatch.setattr("tidemill_sync.session.open_manifest", lambda _: __import__("unittest.mock").mock.MagicMock())
    mirror = config(manifest="postgresql://me:hush-hush@db/x")

    keep_plan(mirror, tmp_path / "plan", source=memory, target=folder)

    about = json.loads(pq.ParquetFile(tmp_path / "plan").metadata.metadata[b"tidemill.sync.plan"])
    assert "hush-hush" not in json.dumps(about)


def test_a_plan_made_from_a_listing_of_many_pages_is_whole(memory, folder, config, tmp_path):
    for number in range(2_500):
        memory.put(f"{number:05}", b"1")

    keep_plan(config(), tmp_path / "plan", source=memory, target=folder)
    apply_plan(tmp_path / "plan", source=memory, target=folder)

    assert verify(config(), source=memory, target=folder).is_exact
