"""The marts as Dagster assets: inputs and outputs through IO managers, columns traced, not computed twice."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl
from tidemill_core.defs import ObjectStoreResource, PostgresResource
from tidemill_core.errors import ObjectNotFound
from tidemill_lineage.defs import LineageResource

from tidemill_deploy import mart

DID_WORK = "did_work"
"""Metadata key: false when the inputs are those of the last materialization, so nothing was computed."""


def fingerprint(*frames: pl.LazyFrame) -> str:
    """Digest the rows of frames, whatever their order; equal for equal contents and one version of polars."""
    parts = []
    for frame in frames:
        rows = frame.collect()
        parts.append(f"{rows.height}-{int(rows.hash_rows(seed=2013).cast(pl.Int128).sum()):x}")
    return "_".join([pl.__version__, *parts])


def last(context: dg.AssetExecutionContext) -> dg.AssetMaterialization | None:
    """The last materialization of the asset being made, if this instance remembers one."""
    event = context.instance.get_latest_materialization_event(context.asset_key)
    return event.asset_materialization if event else None


def made(
    context: dg.AssetExecutionContext,
    inputs: tuple[pl.LazyFrame, ...],
    compute: Callable[[], tuple[pl.DataFrame, dict[str, Any]]],
    *,
    is_there: Callable[[], bool],
) -> dg.MaterializeResult[Any]:
    """Compute an asset, unless its inputs are those of last time and its data is still there.

    Args:
        context: Of the asset.
        inputs: What it is computed from; their fingerprint is the asset's data version.
        compute: Makes the frame and its metadata.
        is_there: Tells whether the data of the last materialization is where it was put.
    """
    version = fingerprint(*inputs)
    before = last(context)
    if before and (before.tags or {}).get("dagster/data_version") == version and is_there():
        return dg.MaterializeResult(metadata={**before.metadata, DID_WORK: False}, data_version=dg.DataVersion(version))
    frame, metadata = compute()
    return dg.MaterializeResult(
        value=frame, metadata={**metadata, DID_WORK: True}, data_version=dg.DataVersion(version)
    )


@dg.asset(
    key=["mart", "delay_by_weather"],
    ins={
        "weather": dg.AssetIn(key=["raw", "weather"], input_manager_key="postgres_io_manager"),
        "departures": dg.AssetIn(key=["events", "departures_hourly"], input_manager_key="postgres_io_manager"),
    },
    io_manager_key="io_manager",
    group_name="lineage",
    kinds={"polars", "parquet"},
    description="Mean departure delay per origin and kind of weather; on the lake.",
)
def delay_by_weather(
    context: dg.AssetExecutionContext,
    lineage: LineageResource,
    lake: ObjectStoreResource,
    weather: pl.LazyFrame,
    departures: pl.LazyFrame,
) -> dg.MaterializeResult[Any]:
    """Join weather and departures."""
    lazy = lineage.traced(context, mart.delay_by_weather)(weather, departures)

    def compute() -> tuple[pl.DataFrame, dict[str, Any]]:
        frame = lazy.collect()
        return frame, {"plot": dg.MetadataValue.md(mart.plot(frame))}

    def is_there() -> bool:
        try:
            lake.open().head("mart/delay_by_weather.parquet")
        except ObjectNotFound:
            return False
        return True

    return made(context, (weather, departures), compute, is_there=is_there)


@dg.asset(
    key=["mart", "delay_by_carrier"],
    ins={
        "flights": dg.AssetIn(
            key=["warehouse", "flights"],
            input_manager_key="postgres_io_manager",
            metadata={"columns": ["carrier", "dep_delay"]},
        ),
        "airlines": dg.AssetIn(key=["warehouse", "airlines"], input_manager_key="postgres_io_manager"),
    },
    io_manager_key="postgres_io_manager",
    group_name="lineage",
    kinds={"polars", "postgres"},
    description="Mean departure delay per airline; a table of the warehouse.",
)
def delay_by_carrier(
    context: dg.AssetExecutionContext,
    lineage: LineageResource,
    postgres: PostgresResource,
    flights: pl.LazyFrame,
    airlines: pl.LazyFrame,
) -> dg.MaterializeResult[Any]:
    """Join flights and airlines."""
    lazy = lineage.traced(context, mart.delay_by_carrier)(flights, airlines)

    def is_there() -> bool:
        with postgres.connect() as connection:
            found = connection.execute("select to_regclass('mart.delay_by_carrier')").fetchone()
        return bool(found and found[0])

    return made(context, (flights, airlines), lambda: (lazy.collect(), {}), is_there=is_there)
