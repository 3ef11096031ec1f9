"""The Dagster components: assets with metadata and checks, resources, retries, and the sensor."""

from __future__ import annotations

import dagster as dg
import pytest
from tidemill_core.defs import KafkaResource, ObjectStoreResource, PostgresResource
from tidemill_core.lineage_hooks import subscribed
from tidemill_stream import produce, read_manifest
from tidemill_stream.defs import StreamDrainComponent, StreamServiceComponent

SINKS = [
    {"type": "postgres", "rows_table": "events.clicks", "windows_table": "events.hourly", "dlq_table": "events.dead"},
    {"type": "object_store", "url": "lake://events", "rows": "clicks", "windows": "hourly", "dlq": "dead"},
]
ATTRIBUTES = {
    "pipeline": {**StreamDrainComponent.example["pipeline"], "sinks": SINKS, "flush_on_drain": True},
    "assets": StreamDrainComponent.example["assets"],
    "deps": ["events/feed"],
}


@pytest.fixture
def resources(own_mock_broker, postgres_url, tmp_path):
    servers, _ = own_mock_broker()
    records = [(b"k", b'{"at":"2024-01-01T00:%02d:00Z","page":"/p","ms":%d}' % (n % 60, n)) for n in range(600)]
    produce(servers, "clicks", [*records, b"bad", (b"k", b'{"at":"2024-01-01T00:59:00Z","page":"/health"}')])
    return {
        "postgres": PostgresResource(url=postgres_url),
        "lake": ObjectStoreResource(url=tmp_path.as_uri()),
        "kafka": KafkaResource(bootstrap_servers=servers),
    }


def definitions(component, attributes):
    made = component.from_attributes_dict(attributes=attributes)
    return made.build_defs(dg.ComponentTree.for_test().load_context)


def test_drain_reports_assets_checks_and_lineage(resources):
    assets, events = list(definitions(StreamDrainComponent, ATTRIBUTES).assets), []

    with subscribed(events.append):
        first = dg.materialize(assets, resources=resources)
    second = dg.materialize(assets, resources=resources)

    found = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in first.get_asset_materialization_events()
    }
    assert set(found) == {"events/clicks", "events/clicks_hourly", "events/dead_letters"}
    rows = found["events/clicks"]
    assert (rows["dagster/row_count"].value, rows["dagster/table_name"].value, rows["lag"].value) == (
        600,
        "events.clicks",
        0,
    )
    assert rows["this_run"].value["consumed"] == 602
    checks = {each.check_name: each.passed for each in first.get_asset_check_evaluations()}
    assert checks == {"no_lag": True, "every_record_accounted_for": True, "outputs_match_checkpoint": True}
    again = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in second.get_asset_materialization_events()
    }
    assert (again["events/clicks"]["did_work"].value, again["events/clicks"]["dagster/row_count"].value) == (False, 600)
    written = {event.dataset.rsplit("/", 1)[-1]: event for event in events if event.kind == "wrote"}
    assert written["events.clicks"].asset_key == "events/clicks"
    assert written["events.clicks"].inputs[0].startswith("kafka://")
    assert len(read_manifest(resources["lake"].open("events"), "clicks")) >= 3


def test_a_lost_row_fails_the_check(resources):
    assets = list(definitions(StreamDrainComponent, ATTRIBUTES).assets)
    dg.materialize(assets, resources=resources)
    with resources["postgres"].connect() as connection:
        connection.execute("delete from events.clicks where _offset = 3")

    result = dg.materialize(assets, resources=resources, raise_on_error=False)

    checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks["outputs_match_checkpoint"] is False


def test_a_broken_pipeline_is_refused_when_definitions_load():
    attributes = {**ATTRIBUTES, "pipeline": {**ATTRIBUTES["pipeline"], "where": "pagee = 1"}}

    with pytest.raises(Exception, match="pagee"):
        definitions(StreamDrainComponent, attributes)


def test_an_unreachable_broker_asks_for_a_retry(postgres_url, tmp_path, monkeypatch):
    monkeypatch.setattr("tidemill_stream.kafka.source.REQUEST_TIMEOUT_S", 1.0)
    resources = {
        "postgres": PostgresResource(url=postgres_url),
        "lake": ObjectStoreResource(url=tmp_path.as_uri()),
        "kafka": KafkaResource(bootstrap_servers="127.0.0.1:9"),
    }
    (assets,) = definitions(StreamDrainComponent, ATTRIBUTES).assets

    with pytest.raises(dg.RetryRequested):
        list(assets(dg.build_asset_context(resources=resources)))


def test_sensor_reports_once_per_move(resources):
    dg.materialize(list(definitions(StreamDrainComponent, ATTRIBUTES).assets), resources=resources)
    (sensor,) = definitions(StreamServiceComponent, ATTRIBUTES).sensors
    given = {name: resources[name] for name in ("postgres", "lake")}

    first = sensor(dg.build_sensor_context(resources=given))
    second = sensor(dg.build_sensor_context(resources=given, cursor=first.cursor))

    assert [event.asset_key.to_user_string() for event in first.asset_events] == list(ATTRIBUTES["assets"].values())
    assert first.asset_events[0].metadata["dagster/row_count"].value == 600
    assert isinstance(second, dg.SkipReason)
