"""The service keeps its jobs through a kill, guards its places, and takes in events."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from fastapi.testclient import TestClient
from tidemill_core.storage import open_store
from tidemill_sync.api.rest import create_app
from tidemill_sync.config import ServeConfig, SyncConfig
from tidemill_sync.jobs import JobStore
from tidemill_sync.service import PlaceRefused, SyncService, check_allowed


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    for name in ("TIDEMILL_POSTGRES_URL", "TIDEMILL_LAKE_URL", "TIDEMILL_MIRROR_URL"):
        monkeypatch.delenv(name, raising=False)
    source, target = open_store((tmp_path / "from").as_uri()), open_store((tmp_path / "to").as_uri())
    source.put("a", b"1")
    source.put("b/c", b"2")
    return source, target


@pytest.fixture
def serving(tmp_path, places):
    """Start a service in this process, and give its client."""
    clients = []

    def start(**given):
        config = ServeConfig(database=tmp_path / "jobs.db", allow=(tmp_path.as_uri(),), **given)
        client = TestClient(create_app(SyncService(config)))
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def ended(client, job_id, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        job = client.get(f"/jobs/{job_id}").json()
        if job["state"] in {"done", "failed", "cancelled"}:
            return job
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} did not end: {job}")


def test_a_submitted_mirror_is_carried_out(serving, places):
    source, target = places
    client = serving()

    answer = client.post("/jobs", json={"source": source.url, "target": target.url})
    job = ended(client, answer.json()["job_id"])

    assert answer.status_code == 202
    assert (job["state"], job["result"]["copied"]) == ("done", 2)
    assert target.get("b/c") == b"2"
    assert [each["job_id"] for each in client.get("/jobs?state=done").json()] == [job["job_id"]]


def test_a_mirror_that_fails_says_why(serving, places):
    source, target = places
    source.delete(["a", "b/c"])
    target.put("x", b"")
    client = serving()

    answer = client.post("/jobs", json={"source": source.url, "target": target.url, "prune": True})
    job = ended(client, answer.json()["job_id"])

    assert job["state"] == "failed"
    assert "allow_empty_source" in job["error"]


@pytest.mark.parametrize("url", ["/etc", "file:///", "s3://bucket", "{tmp}/../x", "{tmp}-other"])
def test_places_outside_the_allowed_ones_are_refused(serving, places, tmp_path, url):
    client = serving()

    answer = client.post("/jobs", json={"source": url.format(tmp=tmp_path.as_uri()), "target": places[1].url})

    assert answer.status_code == 403


def test_a_link_out_of_the_allowed_folder_is_refused(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)

    check_allowed((inside / "ok").as_uri(), [inside.as_uri()])
    with pytest.raises(PlaceRefused):
        check_allowed((inside / "link" / "x").as_uri(), [inside.as_uri()])


def test_a_caller_may_not_choose_a_manifest_or_a_log(serving, places, tmp_path):
    source, target = places
    client, log = serving(), tmp_path / "log"

    for given in ({"manifest": "sqlite:////tmp/x.db"}, {"change_log": str(log)}):
        assert client.post("/jobs", json={"source": source.url, "target": target.url, **given}).status_code == 403
    assert not log.exists()


def test_every_request_but_health_needs_the_token(serving):
    client = serving(token="s3cret")

    assert [client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]
    assert [client.get(path).status_code for path in ("/jobs", "/metrics")] == [401, 401]
    assert client.post("/events", json={}).status_code == 401
    assert client.get("/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/jobs", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_service_beyond_loopback_must_have_a_token():
    with pytest.raises(ValueError, match="token"):
        ServeConfig(host="0.0.0.0")


def test_metrics_count_what_was_copied(serving, places):
    source, target = places
    client = serving()
    ended(client, client.post("/jobs", json={"source": source.url, "target": target.url}).json()["job_id"])

    assert 'tidemill_sync_objects_total{outcome="copied"}' in client.get("/metrics").text


def test_an_event_copies_the_named_key_only(serving, places, s3_bucket, tmp_path, monkeypatch):
    url, options = s3_bucket
    monkeypatch.setenv("TIDEMILL_S3_ENDPOINT_URL", options.s3_endpoint_url)
    monkeypatch.setenv("TIDEMILL_S3_ACCESS_KEY_ID", options.s3_access_key_id)
    monkeypatch.setenv("TIDEMILL_S3_SECRET_ACCESS_KEY", options.s3_secret_access_key.get_secret_value())
    source = open_store(f"{url}/in")
    source.put("x y", b"1")
    source.put("other", b"2")
    mirror = SyncConfig(source=source.url, target=places[1].url)
    client = serving(mirrors=(mirror,))
    bucket = url.removeprefix("s3://")
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": "in/x+y"}}}] * 2

    answer = client.post("/events", content=json.dumps({"Records": records}), headers={"Content-Type": "text/plain"})
    job = ended(client, answer.json()["jobs"][0])

    assert (job["state"], job["result"]["copied"], job["keys"]) == ("done", 1, ["x y"])
    assert [each.key for each in places[1].list()] == ["x y"]


def test_a_body_that_is_no_event_is_refused(serving):
    client = serving()

    assert client.post("/events", json={"hello": 1}).status_code == 422
    assert client.post("/events", content=b"no json").status_code == 422


def test_unknown_jobs_and_attributes_are_refused(serving):
    client = serving()

    assert client.get("/jobs/none").status_code == 404
    assert client.post("/jobs/none/cancel").status_code == 404
    assert client.post("/jobs", json={"sources": "x"}).status_code == 422


def test_events_of_a_waiting_mirror_are_joined(tmp_path):
    store = JobStore(tmp_path / "jobs.db")
    config = SyncConfig()

    first = store.add_keys(config, ["b", "a"])
    second = store.add_keys(config, ["c", "a"])
    claimed = store.claim()
    third = store.add_keys(config, ["d"])

    assert first.job_id == second.job_id == claimed.job_id != third.job_id
    assert claimed.keys == ("a", "b", "c")


def test_a_job_is_claimed_once_and_a_waiting_one_can_be_cancelled(tmp_path):
    store = JobStore(tmp_path / "jobs.db")
    first, second = store.add(SyncConfig()), store.add(SyncConfig(prune=True))

    assert store.claim().job_id == first.job_id
    assert store.cancel_queued(second.job_id)
    assert not store.cancel_queued(first.job_id)
    assert store.claim() is None


@pytest.fixture
def server(tmp_path):
    """Start `tidemill sync serve` as a process; gives its URL."""
    processes = []

    def start():
        code = "from tidemill_core.cli import main; main()"
        command = [sys.executable, "-c", code, "sync", "serve", "--config", str(tmp_path / "serve.json")]
        config = {"port": 0, "database": str(tmp_path / "jobs.db"), "allow": [tmp_path.as_uri()]}
        (tmp_path / "serve.json").write_text(json.dumps(config))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.chaos
def test_a_killed_service_goes_on_with_its_jobs(server, places):
    source, target = places
    for number in range(60):
        source.put(f"{number:02}", os.urandom(20_000))
    process, url = server()
    body = {"source": source.url, "target": target.url, "bytes_per_s": 400_000, "workers": 2, "commit_rows": 5}
    job_id = httpx.post(f"{url}/jobs", json=body).json()["job_id"]
    while len(list(target.list())) < 10:
        time.sleep(0.02)

    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(target.list())) < 62
    _, url = server()
    with httpx.Client(base_url=url) as client:
        job = ended(client, job_id)

    assert (job["state"], job["tries"]) == ("done", 2)
    assert {each.key for each in source.list()} == {each.key for each in target.list()}
