"""OpenLineage events: what the spec asks of them, and how they are sent."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tidemill_core.retry import RetryPolicy
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.emitters.openlineage import OpenLineageEmitter, dataset_name, events_of
from tidemill_lineage.errors import EmitRefused, EmitterDown
from tidemill_lineage.model import Column, Dataset, Run

CATALOG = {"orders": {"id": "int", "amount": "int", "day": "date"}}
RUN = capture_sql(
    "SELECT day, sum(amount) AS total, count(*) AS n FROM orders WHERE id > 3 GROUP BY day",
    output="postgres://h:5432/db/mart.daily",
    tables={"orders": "postgres://h:5432/db/raw.orders"},
    catalog=CATALOG,
    job="daily",
    run_id="r1",
    at=1_700_000_000.0,
)


def facet_of(event: dict[str, Any]) -> dict[str, Any]:
    facet: dict[str, Any] = event["outputs"][0]["facets"]["columnLineage"]
    return facet


def test_a_run_is_one_start_and_one_complete() -> None:
    assert [event["eventType"] for event in events_of([RUN])] == ["START", "COMPLETE"]


def test_many_announcements_of_one_job_are_still_one_complete() -> None:
    parts = [Run(id="r", job="j", ended_at=at, writes=(Dataset(urn=f"s3://b/{at}"),)) for at in range(5)]

    events = events_of(parts)

    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    assert len(events[1]["outputs"]) == 5


def test_every_event_has_what_the_spec_requires() -> None:
    for event in events_of([RUN]):
        uuid.UUID(event["run"]["runId"])
        datetime.fromisoformat(event["eventTime"])
        assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/OpenLineage.json#/")
        assert event["producer"]
        assert {"namespace", "name"} <= event["job"].keys()
        for dataset in event["inputs"] + event["outputs"]:
            assert {"namespace", "name"} <= dataset.keys()
            for facet in dataset["facets"].values():
                assert facet["_producer"]
                assert facet["_schemaURL"].startswith("https://openlineage.io/spec/facets/")


def test_direct_sources_stand_with_the_field() -> None:
    fields = facet_of(events_of([RUN])[1])["fields"]

    assert fields["total"]["inputFields"] == [
        {
            "namespace": "postgres://h:5432",
            "name": "db.raw.orders",
            "field": "amount",
            "transformations": [
                {"type": "DIRECT", "subtype": "AGGREGATION", "description": "found by sql", "masking": False}
            ],
        }
    ]


def test_deciding_sources_stand_with_the_dataset() -> None:
    whole = facet_of(events_of([RUN])[1])["dataset"]

    assert {(each["field"], each["transformations"][0]["subtype"]) for each in whole} == {
        ("day", "GROUP_BY"), ("id", "FILTER"),
    }  # fmt: skip


def test_a_failed_run_has_no_outputs_and_its_error() -> None:
    failed = Run(id="r", job="j", state="FAIL", error="ValueError: no", reads=(Dataset(urn="s3://b/k"),))

    end = events_of([failed])[1]

    assert (end["eventType"], end["outputs"]) == ("FAIL", [])
    assert end["run"]["facets"]["errorMessage"]["message"] == "ValueError: no"


def test_ids_are_the_same_when_sent_again() -> None:
    assert events_of([RUN]) == events_of([RUN])


@pytest.mark.parametrize(
    ("urn", "expected"),
    [
        ("postgres://h:5432/db/raw.orders", ("postgres://h:5432", "db.raw.orders")),
        ("postgresql://h:5432/db/raw.orders", ("postgres://h:5432", "db.raw.orders")),
        ("s3://bucket/a/b.parquet", ("s3://bucket", "a/b.parquet")),
        ("kafka://h:9092/flights", ("kafka://h:9092", "flights")),
        ("file:///data/x.csv", ("file", "/data/x.csv")),
        ("asset://mart/daily", ("dagster", "mart/daily")),
    ],
)
def test_names_follow_openlineages_naming(urn: str, expected: tuple[str, str]) -> None:
    assert dataset_name(urn) == expected


def test_events_are_read_by_openlineages_own_client() -> None:
    """A check by a third party."""
    from openlineage.client import event_v2
    from openlineage.client.facet_v2 import column_lineage_dataset

    event = events_of([RUN])[1]
    facet = facet_of(event)
    fields = {
        name: column_lineage_dataset.Fields(
            inputFields=[
                column_lineage_dataset.InputField(
                    **{k: v for k, v in each.items() if k != "transformations"},
                    transformations=[column_lineage_dataset.Transformation(**t) for t in each["transformations"]],
                )
                for each in value["inputFields"]
            ]
        )
        for name, value in facet["fields"].items()
    }
    theirs = column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields, dataset=[])
    event_v2.RunEvent(
        eventType=event_v2.RunState[event["eventType"]],
        eventTime=event["eventTime"],
        run=event_v2.Run(runId=event["run"]["runId"]),
        job=event_v2.Job(namespace=event["job"]["namespace"], name=event["job"]["name"]),
        inputs=[event_v2.InputDataset(namespace=d["namespace"], name=d["name"]) for d in event["inputs"]],
        producer=event["producer"],
    )

    assert theirs._get_schema().rsplit("/", 1)[1] == facet["_schemaURL"].rsplit("/", 1)[1]


def facets_in(event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every facet of an event by its key, wherever it stands."""
    found = {**event["run"]["facets"], **event["job"]["facets"]}
    for dataset in event["inputs"] + event["outputs"]:
        found |= {**dataset["facets"], **dataset.get("outputFacets", {}), **dataset.get("inputFacets", {})}
    return found


def theirs_of(key: str, facet: dict[str, Any]) -> Any:
    """The same facet as openlineage-python makes it; it refuses a field that its class does not have."""
    from openlineage.client import facet_v2 as their

    fields = {name: value for name, value in facet.items() if not name.startswith("_")}
    if key == "schema":
        parts = [their.schema_dataset.SchemaDatasetFacetFields(**each) for each in fields["fields"]]
        return their.schema_dataset.SchemaDatasetFacet(fields=parts)
    classes = {
        "jobType": their.job_type_job.JobTypeJobFacet,
        "processing_engine": their.processing_engine_run.ProcessingEngineRunFacet,
        "errorMessage": their.error_message_run.ErrorMessageRunFacet,
        "outputStatistics": their.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
        "columnLineage": their.column_lineage_dataset.ColumnLineageDatasetFacet,
    }
    return classes[key](**fields)


def test_every_facet_is_one_of_openlineages_own_in_its_version() -> None:
    """The schemas are in no package; the client's classes are made from them."""
    failed = Run(id="r", job="j", state="FAIL", error="ValueError: no")
    counted = replace(RUN, rows=7)
    facets = [each for event in events_of([failed, counted]) for each in facets_in(event).items()]

    assert {key for key, _ in facets} == {
        "schema", "columnLineage", "jobType", "processing_engine", "errorMessage", "outputStatistics",
    }  # fmt: skip
    for key, facet in facets:
        assert facet["_schemaURL"] == theirs_of(key, facet)._get_schema(), key


def test_the_check_of_facets_notices_a_field_that_is_none() -> None:
    with pytest.raises(TypeError, match="invented"):
        theirs_of("jobType", {"processingType": "BATCH", "integration": "X", "invented": 1})


class Endpoint:
    """A small OpenLineage server that answers with the next of `answers`, then 201."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.events: list[dict[str, Any]] = []
        self.paths: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = endpoint.answers.pop(0) if endpoint.answers else (201, {})
                if status < 300:
                    endpoint.events.append(json.loads(body))
                    endpoint.paths.append(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.fixture
def quick() -> RetryPolicy:
    return RetryPolicy(attempts=3, delay_s=0.01, max_delay_s=0.02)


def test_events_are_posted_in_order_to_the_usual_path(endpoint: Endpoint) -> None:
    emitter = OpenLineageEmitter(endpoint.url)

    emitter.emit([RUN])
    emitter.close()

    assert [event["eventType"] for event in endpoint.events] == ["START", "COMPLETE"]
    assert endpoint.paths == ["/api/v1/lineage"] * 2


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint, quick: RetryPolicy) -> None:
    endpoint.answers = [(503, {}), (429, {"Retry-After": "0"})]
    emitter = OpenLineageEmitter(endpoint.url, retry=quick)

    emitter.emit([RUN])
    emitter.close()

    assert len(endpoint.events) == 2


def test_a_refusing_endpoint_is_asked_once(endpoint: Endpoint, quick: RetryPolicy) -> None:
    endpoint.answers = [(400, {}), (400, {})]
    emitter = OpenLineageEmitter(endpoint.url, retry=quick)

    with pytest.raises(EmitRefused, match="status 400"):
        emitter.emit([RUN])
    emitter.close()

    assert len(endpoint.answers) == 1


def test_a_dead_endpoint_is_a_transient_error(quick: RetryPolicy) -> None:
    emitter = OpenLineageEmitter("http://127.0.0.1:9", retry=quick, timeout_s=0.5)

    with pytest.raises(EmitterDown, match="not answering"):
        emitter.emit([RUN])
    emitter.close()


def test_a_run_emitted_again_adds_nothing_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    emitter = OpenLineageEmitter(file.as_uri())

    emitter.emit([RUN])
    emitter.emit([RUN])

    assert len(file.read_text().splitlines()) == 2


def test_columns_without_a_type_have_none_in_the_schema() -> None:
    run = Run(
        id="r", job="j", writes=(Dataset(urn="s3://b/k", columns=(Column(name="a"), Column(name="b", type="int"))),)
    )

    assert events_of([run])[1]["outputs"][0]["facets"]["schema"]["fields"] == [
        {"name": "a", "ordinal_position": 1},
        {"name": "b", "ordinal_position": 2, "type": "int"},
    ]
