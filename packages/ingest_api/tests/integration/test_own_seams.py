"""A stranger's distribution brings a way of paging and of authenticating; POST APIs are asked by a body."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from pydantic import ValidationError
from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream
from tidemill_ingest_api.stores import open_store

STRANGER = '''
from dataclasses import replace
from typing import Literal
from tidemill_core.config import SecretStr
from tidemill_ingest_api.auth import Auth, AuthConfig
from tidemill_ingest_api.paging import Pager, Paging

class HalvesPaging(Paging):
    """Pages until the word stop."""
    type: Literal["until_stop"]
    word: str = "stop"
    """What the last page says."""

class Halves(Pager):
    config_type = HalvesPaging
    def __init__(self, config): self.config = config
    def following(self, page):
        if page.body["say"] == self.config.word: return None
        return page.request.with_param("step", page.request.number("step", 0) + 1)

class SignedAuth(AuthConfig):
    """Sign every request."""
    type: Literal["signed"]
    key: SecretStr
    """The key."""

class Signed(Auth):
    config_type = SignedAuth
    def __init__(self, config, context): self.key = config.key.get_secret_value()
    @property
    def identity(self): return self.key
    @property
    def secrets(self): return (self.key,)
    def apply(self, request):
        return replace(request, headers={**request.headers, "x-signed": self.key[::-1]})
'''
POINTS = """
[tidemill.ingest.paging]
until_stop = stranger:Halves
[tidemill.ingest.auth]
signed = stranger:Signed
"""


@pytest.fixture
def stranger(tmp_path):
    """Lay out a distribution as pip would, and give the environment that finds it."""
    home = tmp_path / "site"
    info = home / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (home / "stranger.py").write_text(STRANGER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    return {**os.environ, "PYTHONPATH": str(home)}


@pytest.fixture
def serving():
    """Serve what `answer(method, path, headers, body)` gives; returns the base URL."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, value = answer(self.command, self.path, self.headers, body)
                encoded = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_POST = do_GET  # noqa: N815  # the base class's name

            def log_message(self, *_):
                """Stay silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def tidemill(environment, *arguments):
    command = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "ingest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_a_strangers_paging_and_auth_fetch_and_are_judged_with_their_place_in_the_file(stranger, serving, tmp_path):
    def answer(_method, path, headers, _body):
        if headers.get("x-signed") != "hsuh":
            return 401, {"error": "not signed"}
        step = int(path.partition("step=")[2] or 0)
        return 200, {"say": "enough" if step == 2 else "more", "data": [{"id": step}]}

    base_url = serving(answer)
    path = tmp_path / "s.yaml"
    lines = [
        "source: s",
        f"base_url: {base_url}",
        "auth: {type: signed, key: hush}",
        "streams:",
        "  - name: x",
        "    path: /x",
        "    records: data",
        "    paginate: {type: until_stop, word: enough}",
        "    primary_key: [id]",
        "    fields: {id: int64}",
    ]
    path.write_text("\n".join(lines))

    done = tidemill(stranger, "run", str(path), "--store", f"sqlite:///{tmp_path}/s.db", "--json")
    path.write_text("\n".join(lines).replace("word:", "wrod:"))
    wrong = tidemill(stranger, "validate", str(path))
    schema = tidemill(stranger, "schema")
    without = tidemill(dict(os.environ), "validate", str(path))

    assert 0 == done.returncode, done.stderr
    assert (3, 3) == (json.loads(done.stdout)[0]["rows"], json.loads(done.stdout)[0]["pages"])
    assert 3 == wrong.returncode
    assert "s.yaml:8" in wrong.stderr
    assert "wrod" in wrong.stderr
    assert {"HalvesPaging", "SignedAuth", "OAuth2Auth"} <= set(json.loads(schema.stdout)["$defs"])
    assert 3 == without.returncode
    assert "until_stop" in without.stderr


def stream_of(**more):
    return {"name": "x", "path": "/x", "records": "data", "primary_key": ["id"], "fields": {"id": "int64"}} | more


@pytest.mark.parametrize(
    ("paginate", "token"),
    [
        ({"type": "cursor", "path": "meta.next", "param": "page.after", "place": "body"}, ("page", "after")),
        ({"type": "page", "param": "page.number", "place": "body", "total_pages": "pages"}, ("page", "number")),
        ({"type": "offset", "limit": 1, "param": "skip", "limit_param": "take", "place": "body"}, ("skip",)),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_api_that_is_asked_by_a_json_body_is_paged_in_its_body(serving, tmp_path, paginate, token, concurrency):
    asked = []

    def answer(method, _path, headers, body):
        value = json.loads(body)
        asked.append((method, headers["content-type"], value))
        found = value
        for part in token:
            found = (found or {}).get(part)
        index = {"cursor": found or 0, "page": (found or 1) - 1, "offset": found or 0}[paginate["type"]]
        rows = [{"id": index}] if index < 4 else []
        return 200, {"data": rows, "pages": 4, "meta": {"next": index + 1 if index < 3 else None}}

    base_url = serving(answer)
    stream = stream_of(method="POST", body={"query": {"state": "open"}, "since": "{cursor}"}, paginate=paginate)
    source = SourceConfig(source="s", base_url=base_url, http={"concurrency": concurrency}, streams=[stream])
    store, client = open_store(f"sqlite:///{tmp_path}/i.db"), Client(source, base_url)
    report = run_stream(source, source.streams[0], store, client)
    client.close()
    store.close()

    assert (4, 4) == (report.rows, report.records)
    assert {("POST", "application/json")} == {(method, kind) for method, kind, _ in asked}
    assert all({"state": "open"} == value["query"] and "since" not in value for _, _, value in asked)


def test_a_body_that_pages_in_a_circle_is_noticed_by_its_body(serving, tmp_path):
    base_url = serving(lambda *_: (200, {"data": [{"id": len(_[3])}], "next": "again"}))
    paginate = {"type": "cursor", "path": "next", "param": "after", "place": "body"}
    source = SourceConfig(source="s", base_url=base_url, streams=[stream_of(method="POST", paginate=paginate)])
    store, client = open_store(f"sqlite:///{tmp_path}/i.db"), Client(source, base_url)

    with pytest.raises(Exception, match="before in this run"):
        run_stream(source, source.streams[0], store, client)
    client.close()
    store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"body": {"a": 1}},
        {"method": "POST", "conditional": "etag"},
        {"paginate": {"type": "cursor", "path": "next", "place": "body"}},
    ],
)
def test_what_a_method_cannot_do_is_refused(wrong):
    with pytest.raises(ValidationError, match="POST"):
        StreamConfig.model_validate(stream_of(**wrong))
