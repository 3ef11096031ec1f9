"""Skip what is unchanged: the same inputs and the same code as last time, by Dagster's own records."""

from collections.abc import Callable
from typing import Any

import dagster as dg

DATA_VERSION_TAG = "dagster/data_version"
DID_WORK = "did_work"


def unchanged(context: dg.AssetExecutionContext, *, is_there: Callable[[], bool]) -> dg.MaterializeResult[Any] | None:
    """Give the last materialization again, if computing it again would make the same data.

    That is so when the asset's code version and the data versions of all its inputs are those
    that Dagster recorded at the last materialization, so that the UI's "stale" and this agree.
    No input is read. An asset without a code version, or with partitions, is always computed.

    Args:
        context: Of the asset that is about to be computed.
        is_there: Tells whether the data of the last materialization still is where it was put.

    Returns:
        What to return instead of computing, its metadata with ``did_work`` false; None to compute.
    """
    key = context.asset_key
    version = context.assets_def.specs_by_key[key].code_version
    provenance = context.get_asset_provenance(key)
    if version is None or provenance is None or provenance.code_version != version or context.has_partition_key:
        return None
    current = {each: data_version(context.instance, each) for each in _inputs(context, key)}
    recorded = {each: version.value for each, version in provenance.input_data_versions.items()}
    if None in current.values() or current != recorded or not is_there():
        return None
    event = context.instance.get_latest_materialization_event(key)
    before = event.asset_materialization if event else None
    if before is None or before.tags is None:
        return None
    return dg.MaterializeResult(
        metadata={**before.metadata, DID_WORK: False},
        data_version=dg.DataVersion(before.tags[DATA_VERSION_TAG]),
    )


def data_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """Read the data version of an asset's last materialization; None without one."""
    event = instance.get_latest_materialization_event(key)
    materialization = event.asset_materialization if event else None
    return (materialization.tags or {}).get(DATA_VERSION_TAG) if materialization else None


def _inputs(context: dg.AssetExecutionContext, key: dg.AssetKey) -> set[dg.AssetKey]:
    return {dep.asset_key for dep in context.assets_def.specs_by_key[key].deps}
