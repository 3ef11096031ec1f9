"""An asset is skipped only when its inputs and its code are those of last time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest
from tidemill_core.defs import unchanged


@dataclass
class World:
    """What the assets below are made of, and what was computed."""

    instance: dg.DagsterInstance
    source_version: str | None = "1"
    code_version: str | None = "a"
    is_there: bool = True
    computed: list[str] = field(default_factory=list)

    def run(self, *, partitions: dg.PartitionsDefinition[str] | None = None, key: str | None = None) -> bool:
        """Materialize both assets; tells whether the mart was computed."""
        before = len(self.computed)
        assets = [_source(self), _mart(self, partitions)]
        assert dg.materialize(assets, instance=self.instance, partition_key=key).success
        return len(self.computed) > before


def _source(world: World) -> dg.AssetsDefinition:
    @dg.asset(key="source")
    def source() -> dg.MaterializeResult:
        version = dg.DataVersion(world.source_version) if world.source_version else None
        return dg.MaterializeResult(data_version=version)

    return source


def _mart(world: World, partitions: dg.PartitionsDefinition[str] | None) -> dg.AssetsDefinition:
    def mart(context):
        if kept := unchanged(context, is_there=lambda: world.is_there):
            return kept
        world.computed.append(context.run.run_id)
        return dg.MaterializeResult(metadata={"rows": 7})

    decorate = dg.asset(
        key="mart", deps=["source"], code_version=world.code_version, partitions_def=partitions, name=None
    )
    return decorate(mart)


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


def test_nothing_is_computed_twice_from_the_same_inputs_by_the_same_code(world: World) -> None:
    computed = [world.run(), world.run(), world.run()]

    assert computed == [True, False, False]


def test_a_skipped_asset_repeats_its_metadata_and_version_and_says_that_it_did_no_work(world: World) -> None:
    world.run()
    first = world.instance.get_latest_materialization_event(dg.AssetKey("mart")).asset_materialization
    world.run()
    second = world.instance.get_latest_materialization_event(dg.AssetKey("mart")).asset_materialization

    assert second.metadata["rows"] == first.metadata["rows"]
    assert second.metadata["did_work"].value is False
    assert second.tags["dagster/data_version"] == first.tags["dagster/data_version"]


@pytest.mark.parametrize(
    ("change", "value"),
    [("source_version", "2"), ("code_version", "b"), ("is_there", False), ("source_version", None)],
)
def test_another_input_other_code_or_lost_data_is_computed_again(world: World, change: str, value: object) -> None:
    world.run()
    setattr(world, change, value)

    assert world.run()


def test_what_was_true_before_the_last_run_does_not_count(world: World) -> None:
    world.run()
    world.source_version = "2"
    world.run()
    world.source_version = "1"

    assert world.run()


@pytest.mark.parametrize("name", ["source_version", "code_version"])
def test_without_versions_everything_is_always_computed(world: World, name: str) -> None:
    setattr(world, name, None)

    computed = [world.run(), world.run()]

    assert computed == [True, True]


def test_a_partition_is_always_computed(world: World) -> None:
    partitions = dg.StaticPartitionsDefinition(["x"])

    computed = [world.run(partitions=partitions, key="x"), world.run(partitions=partitions, key="x")]

    assert computed == [True, True]
