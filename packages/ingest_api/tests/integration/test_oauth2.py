"""OAuth2 against a real token endpoint and an API that checks every token."""

import json
import os
import stat
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote_plus

import pytest
from pydantic import ValidationError
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import InvalidResponse, UpstreamRefused, UpstreamUnavailable
from tidemill_ingest_api.fetching.client import Client

SECRET, REFRESH = "s3cr/et+äö", "refresh-000"


class Server:
    """A token endpoint at /token and an API at /things; a token lives for `life_s` of the test's clock."""

    def __init__(self) -> None:
        self.now, self.life_s = 1000.0, 3600.0
        self.rotates, self.revoked = False, set[str]()
        self.refresh, self.pages = REFRESH, 4
        self.forms: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.tokens: dict[str, float] = {}
        self.script: list[tuple[int, bytes]] = []
        self.api_script: list[tuple[int, bytes]] = []
        self.lock = Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def token(self, headers, body: str) -> tuple[int, bytes]:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        authorization = headers.get("authorization", "")
        if authorization.startswith("Basic "):
            user, _, password = b64decode(authorization[6:]).decode().partition(":")
            form |= {"client_id": unquote_plus(user), "client_secret": unquote_plus(password), "by": "basic"}
        self.forms.append(form)
        if self.script:
            return self.script.pop(0)
        if (form.get("client_id"), form.get("client_secret")) != ("me", SECRET):
            echoed = {"error": "invalid_client", "error_description": f"{form.get('client_secret')} is wrong"}
            return 401, json.dumps(echoed).encode()
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
            return 400, b'{"error": "invalid_grant"}'
        token = f"access-{len(self.tokens)}"
        self.tokens[token] = self.now + self.life_s
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}
        if self.rotates:
            self.refresh = f"refresh-{len(self.tokens):03}"
            answer["refresh_token"] = self.refresh
        return 200, json.dumps(answer).encode()

    def things(self, headers, path: str) -> tuple[int, bytes]:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        self.asked.append(token)
        if self.api_script:
            return self.api_script.pop(0)
        if token in self.revoked or self.tokens.get(token, 0) <= self.now:
            return 401, b'{"error": "expired"}'
        page = int(path.rpartition("page=")[2])
        return 200, json.dumps({"pages": self.pages, "data": [{"id": page}]}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                with server.lock:
                    self.reply(*server.token(self.headers, body))

            def do_GET(self) -> None:
                with server.lock:
                    self.reply(*server.things(self.headers, self.path))

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def written(server, **auth):
    auth = {
        "type": "oauth2",
        "token_url": f"{server.base_url}/token",
        "client_id": "me",
        "client_secret": SECRET,
    } | auth
    stream = {
        "name": "things",
        "path": "/things",
        "records": "data",
        "paginate": {"type": "page", "total_pages": "pages"},
        "primary_key": ["id"],
        "fields": {"id": "int64"},
    }
    http = {"retry": {"attempts": 3, "delay_s": 0, "jitter": False}}
    return {"source": "o", "base_url": server.base_url, "auth": auth, "http": http, "streams": [stream]}


def client_of(server, **auth):
    source = SourceConfig.model_validate(written(server, **auth))
    return Client(source, server.base_url, wall=lambda: server.now)


def ask(client, page=1):
    return client.get(f"{client.base_url}/things?page={page}", stream="things").value["data"]


@pytest.mark.parametrize("client_auth", ["basic", "body"])
def test_client_credentials_are_exchanged_for_one_token_that_serves_many_requests(server, client_auth):
    client = client_of(server, client_auth=client_auth, scopes=["read", "list"], params={"audience": "https://x"})

    for page in (1, 2, 3):
        assert [{"id": page}] == ask(client, page)
    client.close()

    (form,) = server.forms
    assert ("client_credentials", "read list", "https://x") == (form["grant_type"], form["scope"], form["audience"])
    assert ("me", SECRET, client_auth == "basic") == (form["client_id"], form["client_secret"], "by" in form)
    assert ["access-0"] * 3 == server.asked


def test_a_token_is_renewed_before_it_ends_and_the_api_never_says_401(server):
    client = client_of(server, early_s=60)

    for _ in range(6):
        ask(client)
        server.now += 1780
    client.close()

    # At 3,560 s sixty seconds are not left of 3,600: renewed without a single 401.
    assert ["access-0", "access-0", "access-1", "access-1", "access-2", "access-2"] == server.asked


def test_a_short_life_is_used_for_its_first_half_at_least(server):
    server.life_s = 30
    client = client_of(server, early_s=60)

    for _ in range(3):
        ask(client)
        server.now += 10
    client.close()

    assert ["access-0", "access-0", "access-1"] == server.asked


def test_a_token_that_the_api_refuses_is_renewed_once_and_the_page_is_read(server):
    client = client_of(server)
    ask(client)
    server.revoked.add("access-0")

    assert [{"id": 2}] == ask(client, 2)
    client.close()

    assert ["access-0", "access-0", "access-1"] == server.asked
    assert 0 == client.traffic.retries


def test_an_api_that_refuses_every_token_is_asked_twice_and_no_more(server):
    server.api_script = [(401, b"no")] * 9
    client = client_of(server)

    with pytest.raises(UpstreamRefused, match="check `auth`"):
        ask(client)
    client.close()

    assert ["access-0", "access-1"] == server.asked


def test_many_threads_ask_for_one_token(server):
    client = client_of(server)

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda page: ask(client, page), range(1, 33)))
    client.close()

    assert [[{"id": page}] for page in range(1, 33)] == pages
    assert 1 == len(server.forms)


def test_a_refresh_token_that_rotates_is_kept_in_its_file_for_the_next_process(server, tmp_path):
    server.rotates, kept = True, tmp_path / "refresh"

    for expected in ("refresh-001", "refresh-002"):
        client = client_of(server, refresh_token=REFRESH, refresh_token_file=str(kept))
        assert [{"id": 1}] == ask(client)
        client.close()
        assert expected == kept.read_text()

    assert 0o600 == stat.S_IMODE(kept.stat().st_mode)
    assert [REFRESH, "refresh-001"] == [form["refresh_token"] for form in server.forms]
    assert [kept] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((400, b'{"error": "invalid_scope", "error_description": "s3cr/et"}'), UpstreamRefused, "invalid_scope"),
        ((302, b""), UpstreamRefused, "HTTP 302"),
        ((200, b"<html>"), InvalidResponse, "no access_token"),
        ((200, b'{"access_token": ""}'), InvalidResponse, "no access_token"),
        ((200, b'{"access_token": "a\\r\\nx-evil: 1"}'), InvalidResponse, "cannot go into a header"),
        ((200, b'{"access_token": "a", "token_type": "mac"}'), InvalidResponse, "of type mac"),
    ],
)
def test_an_answer_without_a_usable_token_is_permanent_and_says_nothing_secret(server, answer, error, words):
    server.script = [answer] * 9
    client = client_of(server)

    with pytest.raises(error, match=words) as caught:
        ask(client)
    client.close()

    assert 1 == len(server.forms)
    assert "s3cr" not in str(caught.value)
    assert "evil" not in str(caught.value)


def test_a_token_endpoint_that_fails_for_a_while_is_asked_again(server):
    server.script = [(503, b""), (500, b"")]
    client = client_of(server)

    assert [{"id": 1}] == ask(client)
    server.script, server.now = [(500, b"")] * 9, server.now + 9999
    with pytest.raises(UpstreamUnavailable, match="no access token"):
        ask(client)
    client.close()


def test_wrong_credentials_are_refused_without_showing_them_although_the_server_does(server):
    client = client_of(server, client_secret="wrong-hush")

    with pytest.raises(UpstreamRefused, match=r"invalid_client.*check `auth`") as caught:
        ask(client)
    client.close()

    assert "hush" not in str(caught.value)


def test_an_api_that_repeats_the_token_in_its_error_does_not_get_it_shown(server):
    server.api_script = [(403, b"token access-0 may not")]
    client = client_of(server)

    with pytest.raises(UpstreamRefused, match=r"token \*\*\* may not"):
        ask(client)
    client.close()


@pytest.mark.parametrize("is_refused", [False, True])
def test_no_secret_is_in_logs_output_or_state(server, tmp_path, is_refused):
    server.rotates = True
    server.api_script = [(403, b"access-0 may not")] if is_refused else []
    path, store = tmp_path / "o.json", tmp_path / "o.db"
    path.write_text(json.dumps(written(server, refresh_token="${REFRESH}", client_secret="${SECRET}")))
    environment = {**os.environ, "REFRESH": REFRESH, "SECRET": SECRET}
    command = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "ingest"]
    server.now = 1e12

    done = subprocess.run(
        [*command, "run", str(path), "--store", f"sqlite:///{store}", "--json"],
        capture_output=True,
        check=False,
        timeout=60,
        env=environment,
    )

    assert (1 if is_refused else 0) == done.returncode, done.stderr
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file != path)
    for secret in (SECRET.encode(), b"access-0", REFRESH.encode(), b"refresh-001"):
        assert secret not in done.stdout + done.stderr + kept
    assert b"refresh_token_rotated" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"token_url": "http://id.example/token"},
        {"token_url": "https://me:pw@id.example/token"},
        {"params": {"client_secret": "x"}},
        {"grant": "password"},
    ],
)
def test_unsafe_settings_are_refused(server, wrong):
    with pytest.raises(ValidationError, match="auth"):
        SourceConfig.model_validate(written(server, **wrong))
