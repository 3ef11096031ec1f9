"""The callables of `dags/nyc_flights.yaml`: thin, each hands resources to a plain function."""

import time
from collections import Counter

import dagster as dg
import polars as pl
from tidemill_core.defs import KafkaResource, PostgresResource

from tidemill_deploy import mart
from tidemill_deploy.events import PARTITIONS, TOPIC, flight_events


def publish_flights(
    context: dg.AssetExecutionContext, kafka: KafkaResource, postgres: PostgresResource, pipeline: str
) -> dg.MaterializeResult:
    """Publish every flight event that is not in the topic yet, unless the pipeline already has them all."""
    ...
