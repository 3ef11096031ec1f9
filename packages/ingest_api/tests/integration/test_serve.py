"""REST and gRPC of a real `tidemill ingest serve` process, on both stores."""

import json
import signal
import subprocess
import sys
import time

import grpc
import httpx
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tidemill_ingest_api.api.auth import new_key
from tidemill_ingest_api.api.grpc_client import IngestStub, messages
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.suites import SPEC, STREAM, commit_of, record

COMMAND = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "ingest", "serve"]
RECORDS = [record(f"p{i % 3}", i, None if i == 5 else float(i), second=i % 60) for i in range(250)]


class Served:
    """A running service."""

    def __init__(self, process, ports, key):
        self.process, self.ports = process, ports
        headers = {"X-API-Key": key} if key else {}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{ports['rest']}", headers=headers, timeout=30)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}")
        self.stub = IngestStub(self.channel)

    def close(self):
        self.http.close()
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def start(tmp_path, store_url, serve, key=None):
    stream = STREAM.model_dump(mode="json", exclude_defaults=True)
    config = {
        "source": "suite",
        "base_url": "http://127.0.0.1:1",
        "store": store_url,
        "streams": [stream],
        "serve": serve,
    }
    path, ready = tmp_path / "serve.json", tmp_path / "ready.json"
    ready.unlink(missing_ok=True)
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        [*COMMAND, str(path), "--rest-port", "0", "--grpc-port", "0", "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return Served(process, json.loads(ready.read_text()), key)


def fill(url, *records, load_id="1"):
    store = open_store(url)
    with store.writer(SPEC) as writer:
        writer.commit(commit_of(*records, load_id=load_id))
    store.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def store_url(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('serve')}/i.db"
        return
    from tidemill_core.testing.postgres import fresh_database

    with fresh_database(request.getfixturevalue("postgres_admin_url")) as url:
        yield url


@pytest.fixture(scope="module")
def served(store_url, tmp_path_factory):
    fill(store_url, *RECORDS)
    serve = {"auth": {"type": "none"}, "freshness_s": 0, "rate_limit": None}
    served = start(tmp_path_factory.mktemp("run"), store_url, serve)
    yield served
    assert 0 == served.close()


def test_rest_pages_meet_every_record_once_and_follow_links(served):
    seen, url = [], "/v1/things?limit=100&order=-heat"
    while url:
        answer = served.http.get(url)
        body = answer.json()
        seen += [each["number"] for each in body["data"]]
        url = answer.links.get("next", {}).get("url")
        assert (body["next"] is None) == (url is None)

    assert sorted(range(250)) == sorted(seen)
    assert [5, 249, 248] == seen[:3]  # descending: nulls first


def test_rest_and_grpc_give_the_same_bytes(served):
    rest = served.http.get("/v1/things/p1,1").content
    answer = served.stub.Get(messages.GetRequest(table="things", key=["p1", "1"]), timeout=30)
    page = served.stub.List(messages.ListRequest(table="things", limit=3), timeout=30)
    listed = served.http.get("/v1/things?limit=3&format=ndjson").content

    assert rest == answer.record
    assert listed == b"\n".join(page.records) + b"\n"
    assert {"place": "p1", "number": 1, "tags": ["a", {"b": None}], "day": "2026-01-02"} == {
        name: orjson.loads(rest)[name] for name in ("place", "number", "tags", "day")
    }


def test_rest_filters_and_projects(served):
    answer = served.http.get(
        "/v1/things", params={"heat": ["gte.10", "lt.13"], "select": "number,heat", "order": "heat"}
    )

    assert [{"number": n, "heat": float(n)} for n in (10, 11, 12)] == answer.json()["data"]
    assert [5] == [each["number"] for each in served.http.get("/v1/things?heat=is.null").json()["data"]]


def test_rest_exports_every_row_as_ndjson_csv_and_arrow(served):
    import pyarrow as pa

    ndjson = served.http.get("/v1/things?format=ndjson").text.splitlines()
    csv = served.http.get("/v1/things?select=number,heat", headers={"Accept": "text/csv"}).text.splitlines()
    arrow = pa.ipc.open_stream(served.http.get("/v1/things?format=arrow&limit=200").content).read_all()

    assert 250 == len({json.loads(line)["number"] for line in ndjson})
    assert ("number,heat", 251) == (csv[0], len(csv))
    assert (200, "timestamp[us, tz=UTC]") == (arrow.num_rows, str(arrow.schema.field("seen_at").type))


def test_rest_answers_304_until_the_table_changes(served, store_url):
    first = served.http.get("/v1/things/p0,0")
    etag = {"If-None-Match": first.headers["etag"]}
    unchanged = served.http.get("/v1/things/p0,0", headers=etag)
    page = served.http.get("/v1/things", headers={"If-None-Match": served.http.get("/v1/things").headers["etag"]})
    fill(store_url, record("p0", 0, -5.0, second=59), load_id="2")
    changed = served.http.get("/v1/things/p0,0", headers=etag)

    assert (304, b"", 304) == (unchanged.status_code, unchanged.content, page.status_code)
    assert (200, -5.0) == (changed.status_code, changed.json()["heat"])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/nothing", 404),
        ("/v1/things/p0,99999", 404),
        ("/v1/things/p0", 400),
        ("/v1/things?tags=eq.1", 400),
        ("/v1/things?limit=5000", 400),
        ("/v1/things?after=forged", 400),
        ("/v1/things?order=nope", 400),
        ("/v1/things?format=xml", 400),
        ("/v1/things?select=nope", 400),
    ],
)
def test_rest_explains_what_is_wrong(served, path, status):
    answer = served.http.get(path, headers={"X-Request-Id": "my-id"})

    assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert answer.json()["detail"]
    assert "my-id" == answer.headers["x-request-id"]


def test_rest_tells_health_metrics_and_openapi(served):
    described = served.http.get("/v1/openapi.json").json()
    metrics = served.http.get("/metrics").text

    assert {200} == {served.http.get(path).status_code for path in ("/livez", "/readyz", "/v1")}
    assert ("3.1.0", {"/v1", "/v1/things", "/v1/things/{key}"}) == (described["openapi"], set(described["paths"]))
    assert 'tidemill_ingest_api_served_requests_total{api="rest",code="200",route="list"}' in metrics


def test_long_pages_are_compressed(served):
    assert "gzip" == served.http.get("/v1/things").headers["content-encoding"]


def test_grpc_streams_batches_and_continues_where_a_stream_broke(served):
    batches = list(served.stub.Stream(messages.StreamRequest(table="things", batch_rows=60), timeout=30))
    rest = served.stub.Stream(messages.StreamRequest(table="things", after=batches[1].next), timeout=30)

    assert [60, 60, 60, 60, 10] == [len(batch.records) for batch in batches]
    assert [each for batch in batches[2:] for each in batch.records] == [
        each for batch in rest for each in batch.records
    ]
    assert 70 == sum(
        len(b.records) for b in served.stub.Stream(messages.StreamRequest(table="things", limit=70), timeout=30)
    )


@pytest.mark.parametrize(
    ("key", "table", "code"),
    [
        (["p0", "99999"], "things", grpc.StatusCode.NOT_FOUND),
        (["p0", "1"], "nothing", grpc.StatusCode.NOT_FOUND),
        (["p0"], "things", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_grpc_explains_what_is_wrong(served, key, table, code):
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.Get(messages.GetRequest(table=table, key=key), timeout=30)

    assert code == caught.value.code()
    assert caught.value.details()


def test_grpc_filters_and_lists_tables(served):
    condition = messages.Filter(column="number", operator="in", values=["3", "4"])
    page = served.stub.List(messages.ListRequest(table="things", filters=[condition], order="-number"), timeout=30)
    tables = served.stub.ListTables(messages.ListTablesRequest(), timeout=30).tables

    assert [4, 3] == [orjson.loads(each)["number"] for each in page.records]
    assert [("things", ["place", "number"])] == [(table.name, list(table.primary_key)) for table in tables]


def test_grpc_has_health_and_reflection(served):
    health = health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(served.channel).ServerReflectionInfo(asked, timeout=30)

    assert health_pb2.HealthCheckResponse.SERVING == health.status
    assert "tidemill.ingest.v1.IngestService" in {each.name for each in answer.list_services_response.service}


def test_keys_scopes_and_limits_hold_for_both_apis(tmp_path):
    url = f"sqlite:///{tmp_path}/i.db"
    fill(url, *RECORDS[:3])
    (good, good_hash), (other, other_hash) = new_key(), new_key()
    keys = [{"id": "good", "sha256": good_hash}, {"id": "other", "sha256": other_hash, "scopes": ["elsewhere"]}]
    served = start(tmp_path, url, {"auth": {"type": "api_keys", "keys": keys}, "rate_limit": "3/minute"}, good)
    try:
        bare = httpx.get(f"{served.http.base_url}/v1/things")
        scoped = served.http.get("/v1/things", headers={"X-API-Key": other})
        answers = [served.http.get("/v1/things") for _ in range(4)]
        codes = []
        for metadata in ((), (("x-api-key", good),), (("authorization", f"Bearer {other}"),)):
            with pytest.raises(grpc.RpcError) as caught:
                served.stub.List(messages.ListRequest(table="things"), metadata=metadata, timeout=30)
            codes.append(caught.value.code().name)
    finally:
        served.close()

    assert (401, 404) == (bare.status_code, scoped.status_code)
    assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
    assert int(answers[3].headers["retry-after"]) >= 1
    assert ["UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "NOT_FOUND"] == codes


def test_a_config_without_an_audience_is_not_served(tmp_path):
    stream = STREAM.model_dump(mode="json", exclude_defaults=True)
    path = tmp_path / "s.json"
    path.write_text(
        json.dumps({"source": "s", "base_url": "http://h", "store": f"sqlite:///{tmp_path}/i.db", "streams": [stream]})
    )

    done = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, check=False, timeout=60)

    assert 3 == done.returncode
    assert "who may read" in done.stderr
