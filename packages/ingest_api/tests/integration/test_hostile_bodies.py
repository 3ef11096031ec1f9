"""Bodies that no careful API sends, sent by a real server: what we read, and how often we ask."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.config import HttpConfig, SourceConfig
from tidemill_ingest_api.errors import InvalidResponse, UpstreamUnavailable
from tidemill_ingest_api.fetching.client import Client

ATTEMPTS = 3


@contextmanager
def serving(body: bytes, content_type: str) -> Iterator[tuple[Client, list[str]]]:
    """Serve one body on loopback; gives a client and the paths that arrived."""
    arrived: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.append(self.path)
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    source = SourceConfig(
        source="hostile",
        base_url=base,
        http=HttpConfig(retry=RetryPolicy(attempts=ATTEMPTS, delay_s=0, jitter=False)),
        streams=[{"name": "x", "primary_key": ["id"], "fields": {"id": "int64"}}],
    )
    client = Client(source, base)
    try:
        yield client, arrived
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


TEXT = '[{"id": 1, "name": "Žluťoučký Müller"}]'
JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (TEXT.encode(), JSON),
        (TEXT.encode("utf-8-sig"), JSON),
        (TEXT.encode(), f'{JSON}; charset="UTF-8"'),
        (TEXT.encode("iso8859-2"), f"{JSON}; charset=ISO-8859-2"),
        (TEXT.encode("cp1250"), f"{JSON}; charset=windows-1250"),
        (TEXT.encode("utf-16"), f"{JSON}; charset=utf-16"),
        (TEXT.encode("utf-8-sig"), f"{JSON}; charset=utf-8"),
    ],
)
def test_every_declared_encoding_and_a_byte_order_mark_read_the_same(body: bytes, content_type: str) -> None:
    with serving(body, content_type) as (client, arrived):
        answer = client.get(f"{client.base_url}/x", stream="x")

    assert [{"id": 1, "name": "Žluťoučký Müller"}] == answer.value
    assert ["/x"] == arrived


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b'[{"id": NaN}]', JSON, "NaN and infinity are no JSON numbers"),
        (b'[{"id":NaN}]', JSON, "NaN and infinity are no JSON numbers"),
        (b"[Infinity]", JSON, "NaN and infinity are no JSON numbers"),
        (b'{"a":-Infinity}', JSON, "NaN and infinity are no JSON numbers"),
        (b'{"a":1e400}', JSON, "NaN and infinity are no JSON numbers"),
        (b"[" * 1500 + b"]" * 1500, JSON, "deeper than 1,024 levels"),
        (b"[" * 500_000, JSON, "deeper than 1,024 levels"),
        (TEXT.encode("cp1250"), JSON, "the body is not UTF-8"),
        (TEXT.encode("cp1250"), f"{JSON}; charset=us-ascii", "is not the ascii"),
        (b"[]", f"{JSON}; charset=no-such", "'no-such' is none we can read"),
        (b"[]", f"{JSON}; charset=unicode_escape", "'unicode_escape' is none we can read"),
        (b"<html>", "text/html", "the body is not JSON"),
    ],
)
def test_what_another_try_cannot_change_fails_after_one_request(body: bytes, content_type: str, words: str) -> None:
    with serving(body, content_type) as (client, arrived), pytest.raises(InvalidResponse, match=words):
        client.get(f"{client.base_url}/x", stream="x")

    assert ["/x"] == arrived


@pytest.mark.parametrize("end", range(1, len('[{"id": 1, "é": [-2.5e3, true]}]'.encode())))
def test_json_cut_at_any_byte_is_temporary(end: int) -> None:
    whole = '[{"id": 1, "é": [-2.5e3, true]}]'.encode()

    with serving(whole[:end], JSON) as (client, arrived), pytest.raises(UpstreamUnavailable):
        client.get(f"{client.base_url}/x", stream="x")

    assert ["/x"] * ATTEMPTS == arrived
