"""The component mirrors the lake in a Dagster run, and its check compares both places."""

import dagster as dg
import pytest
from tidemill_core.config import ConfigFaults
from tidemill_core.defs import ObjectStoreResource
from tidemill_core.storage import open_store
from tidemill_sync.defs import SyncComponent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Materialize a component's asset on a lake and a mirror of the test's own."""
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    for name in ("TIDEMILL_POSTGRES_URL", "TIDEMILL_LAKE_URL", "TIDEMILL_MIRROR_URL"):
        monkeypatch.delenv(name, raising=False)

    def materialize(**attributes):
        definitions = SyncComponent.from_attributes_dict(attributes=attributes).build_defs(
            dg.ComponentTree.for_test().load_context
        )
        assets = list(definitions.assets)
        return dg.materialize(
            assets, resources={"lake": ObjectStoreResource(url=(tmp_path / "lake").as_uri())}, raise_on_error=False
        )

    return materialize


@pytest.fixture
def lake(tmp_path):
    store = open_store((tmp_path / "lake").as_uri())
    store.put("raw/a.parquet", b"one")
    store.put("raw/b.parquet", b"two")
    return store


def facts(result):
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_the_lake_is_mirrored_and_compared(run, lake, tmp_path):
    result = run()

    assert result.success
    mirror = open_store((tmp_path / "home" / "mirror").as_uri())
    assert {each.key: mirror.get(each.key) for each in mirror.list()} == {
        "raw/a.parquet": b"one",
        "raw/b.parquet": b"two",
    }
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.metadata["same"].value) == ("verify", True, 2)
    told = facts(result)
    assert (told["copied"], told["bytes"], told["verified"], told["run_id"]) == (2, 6, 2, result.run_id)


def test_a_second_run_copies_nothing(run, lake):
    run()

    told = facts(run(check="content"))

    assert (told["copied"], told["skipped"], told["bytes"]) == (0, 2, 0)


def test_a_part_of_the_lake_goes_under_its_own_key(run, lake, tmp_path):
    definitions = run(source="lake://raw", target=(tmp_path / "out").as_uri(), asset_key="backup/raw", exclude=["b*"])

    assert definitions.asset_materializations_for_node("backup__raw")[0].asset_key == dg.AssetKey(["backup", "raw"])
    assert [each.key for each in open_store((tmp_path / "out").as_uri()).list()] == ["a.parquet"]


def test_an_emptied_lake_fails_the_asset_and_keeps_the_mirror(run, lake, tmp_path):
    run(prune=True)
    lake.delete(["raw/a.parquet", "raw/b.parquet"])

    result = run(prune=True)

    assert not result.success
    assert len(list(open_store((tmp_path / "home" / "mirror").as_uri()).list())) == 2


def test_an_object_a_pruning_mirror_should_not_hold_fails_its_check(lake, tmp_path, monkeypatch):
    from tidemill_sync.defs.component import SyncAssetConfig, _checked
    from tidemill_sync.verification import verify

    config = SyncAssetConfig(prune=True, manifest=f"sqlite:///{tmp_path}/sync.db")
    target = open_store((tmp_path / "t").as_uri())
    target.put("extra", b"")

    check = _checked(config, verify(config, source=lake, target=target))

    assert not check.passed


def test_the_asset_carries_group_kinds_pool_and_dependencies():
    component = SyncComponent.from_attributes_dict(
        attributes={"target": "s3://bucket/x", "deps": ["raw/weather"], "schedule": "0 3 * * *"}
    )
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    (asset,) = definitions.assets
    spec = asset.get_asset_spec(dg.AssetKey(["lake", "mirror"]))

    assert spec.group_name == "lake"
    assert {"sync", "s3"} <= spec.kinds
    assert [each.asset_key for each in spec.deps] == [dg.AssetKey(["raw", "weather"])]
    assert asset.op.pool == "object_store"
    assert [schedule.cron_schedule for schedule in definitions.schedules] == ["0 3 * * *"]


def test_a_wrong_attribute_is_named():
    with pytest.raises(ConfigFaults, match="prune"):
        SyncComponent.from_attributes_dict(attributes={"prunes": True})
