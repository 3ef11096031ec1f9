"""The fetched weather, answered by REST and by gRPC from one process."""

import json
import signal
import subprocess
from pathlib import Path

import grpc
import httpx
import pytest
import tidemill_deploy
from tidemill_core.services.processes import wait_until
from tidemill_ingest_api.api.grpc_client import IngestStub, messages

from .conftest import BIN, Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
CONFIG = Path(tidemill_deploy.__file__).parent / "weather.yaml"


@pytest.fixture
def served(finished: Home, tmp_path: Path):
    ready = tmp_path / "ready.json"
    command = [str(BIN / "tidemill"), "ingest", "serve", str(CONFIG), "--no-auth"]
    command += ["--rest-port", "0", "--grpc-port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(command, env=finished.env)
    try:
        assert wait_until(lambda: ready.exists() and ready.read_text().endswith("}"), 120)
        yield json.loads(ready.read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_get_and_list_of_the_fetched_table_answer_alike_by_rest_and_by_grpc(served) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{served['rest']}", timeout=60) as rest:
        one = rest.get("/v1/weather/EWR,2013-01-01T06:00:00Z")
        page = rest.get("/v1/weather", params={"origin": "eq.JFK", "limit": 3, "order": "-time_hour"})
    with grpc.insecure_channel(f"127.0.0.1:{served['grpc']}") as channel:
        stub = IngestStub(channel)
        record = stub.Get(messages.GetRequest(table="weather", key=["EWR", "2013-01-01T06:00:00Z"]), timeout=60).record
        streamed = sum(len(each.records) for each in stub.Stream(messages.StreamRequest(table="weather"), timeout=120))

    assert 200 == one.status_code == page.status_code
    assert 39.02 == one.json()["temp"]
    assert one.json() == json.loads(record)
    assert ["JFK"] * 3 == [each["origin"] for each in page.json()["data"]]
    assert 26_115 == streamed
