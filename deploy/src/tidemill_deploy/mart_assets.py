"""The marts as Dagster assets: inputs and outputs through IO managers, columns traced, not computed twice."""

from typing import Any

import dagster as dg
import polars as pl
from tidemill_core.defs import ObjectStoreResource, PostgresResource, code_version, unchanged
from tidemill_core.defs.staleness import DID_WORK
from tidemill_core.errors import ObjectNotFound
from tidemill_lineage.defs import LineageResource

from tidemill_deploy import mart


@dg.asset(
    key=["mart", "delay_by_weather"],
    ins={
        "weather": dg.AssetIn(key=["raw", "weather"], input_manager_key="postgres_io_manager"),
        "departures": dg.AssetIn(key=["events", "departures_hourly"], input_manager_key="postgres_io_manager"),
    },
    io_manager_key="io_manager",
    group_name="mart",
    kinds={"polars", "parquet"},
    code_version=code_version(mart.delay_by_weather, mart.plot),
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
    # A plan costs nothing, so lineage hears of it in every run, also in one that computes nothing.
    lazy = lineage.traced(context, mart.delay_by_weather)(weather, departures)

    def is_there() -> bool:
        try:
            lake.open().head("mart/delay_by_weather.parquet")
        except ObjectNotFound:
            return False
        return True

    if kept := unchanged(context, is_there=is_there):
        return kept
    frame = lazy.collect()
    plot = dg.MetadataValue.md(mart.plot(frame))
    return dg.MaterializeResult(value=frame, metadata={"plot": plot, DID_WORK: True})


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
    group_name="mart",
    kinds={"polars", "postgres"},
    code_version=code_version(mart.delay_by_carrier),
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
    # A plan costs nothing, so lineage hears of it in every run, also in one that computes nothing.
    lazy = lineage.traced(context, mart.delay_by_carrier)(flights, airlines)

    def is_there() -> bool:
        with postgres.connect() as connection:
            found = connection.execute("select to_regclass('mart.delay_by_carrier')").fetchone()
        return bool(found and found[0])

    if kept := unchanged(context, is_there=is_there):
        return kept
    frame = lazy.collect()
    return dg.MaterializeResult(value=frame, metadata={DID_WORK: True})
