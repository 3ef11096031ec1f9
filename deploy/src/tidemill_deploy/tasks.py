"""The callables of `dags/nyc_flights.yaml`: thin, each hands resources to plain functions."""

import time
from pathlib import Path

import dagster as dg
from tidemill_core.dag.load import load_dags
from tidemill_core.defs import KafkaResource, ObjectStoreResource, PostgresResource, materialization
from tidemill_core.lineage_hooks import announce_wrote
from tidemill_core.storage import open_store
from tidemill_stream import PipelineConfig, Plan, produce, sink_context, watermarks
from tidemill_stream.running.status import status

from tidemill_deploy.events import PARTITIONS, flight_events
from tidemill_deploy.source import data_folder
from tidemill_deploy.truth import truth

DAG_FILE = Path(__file__).parent / "dags" / "nyc_flights.yaml"


def pipeline(task: str = "events") -> PipelineConfig:
    """Read the stream pipeline that a task of the DAG file drains."""
    (dag,) = load_dags(DAG_FILE)
    (found,) = (each for each in dag.spec.tasks if each.name == task)
    return PipelineConfig.model_validate(found.with_["pipeline"])


def publish_flights(
    context: dg.AssetExecutionContext, kafka: KafkaResource, postgres: PostgresResource, lake: ObjectStoreResource
) -> dg.MaterializeResult[None]:
    """Publish the flight events that the topic does not hold yet.

    An embedded broker forgets its topics when it ends; what the pipeline has processed to the
    end already is then not published again.
    """
    began = time.monotonic()
    config = pipeline()
    (topic,) = config.source.topics
    servers = kafka.get_bootstrap()
    counted = truth()
    expected = counted.flights + counted.bad_events
    sinks = sink_context(
        Plan(config),
        postgres_url=postgres.get_url,
        open_store=lambda url: (
            lake.open(url.removeprefix("lake://")) if url.startswith("lake://") else open_store(url, lake.options())
        ),
    )
    held = sum(high for _, high in watermarks(servers, topic).values())
    progress = status(Plan(config), sinks)
    if held == 0 and progress.is_drained and progress.totals.consumed == expected:
        context.log.info("the broker is new; all %d events were processed before", expected)
        sent = 0
    else:
        events = ((each.partition, each.key, each.value) for each in flight_events())
        published = produce(servers, topic, events, partitions=PARTITIONS, resume=True)
        sent = published.sent
        context.log.info("%d events sent, %d were there", published.sent, published.skipped)
    announce_wrote(
        f"kafka://{servers}/{topic}",
        job="publish_flights",
        inputs=[f"{data_folder().as_uri()}/flights.csv.zip"],
        rows=expected,
        asset_key="events/flight_feed",
    )
    return dg.MaterializeResult(
        metadata=materialization(
            rows=expected, seconds=time.monotonic() - began, where=f"topic {topic}", sent=sent, did_work=sent > 0
        )
    )
