"""Answers that are wrong on the wire, sent byte by byte by a real server."""

import gzip
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import InvalidResponse, ResponseTooLarge, UpstreamUnavailable
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream
from tidemill_ingest_api.stores import open_store

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
Talk = Callable[[socket.socket, int], None]


@contextmanager
def talking(talk: Talk) -> Iterator[tuple[str, list[bytes]]]:
    """Listen on loopback; `talk` writes whatever it likes to the connection of each request, numbered from 1."""
    heard: list[bytes] = []
    done = Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                heard.append(connection.recv(65_536))
                try:
                    talk(connection, len(heard))
                except OSError:
                    continue

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        done.set()
        thread.join()
        listener.close()


def source_of(base_url, **http):
    retry = RetryPolicy(attempts=3, delay_s=0, jitter=False)
    stream = {"name": "x", "path": "/x", "primary_key": ["id"], "fields": {"id": "int64"}, "conditional": "etag"}
    return SourceConfig(source="wire", base_url=base_url, http={"retry": retry, **http}, streams=[stream])


def ask(base_url, **http):
    client = Client(source_of(base_url, **http), base_url)
    try:
        return client.get(f"{base_url}/x", stream="x").value
    finally:
        client.close()


def whole(body: bytes, *headers: bytes) -> bytes:
    lines = [b"connection: close", b"content-length: %d" % len(body), *headers]
    return OK + b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize("how", ["silent", "closed", "in a size"])
def test_a_chunked_body_that_stops_is_asked_again_and_nothing_of_it_is_kept(how, tmp_path):
    def talk(connection, number):
        if number > 1:
            connection.sendall(whole(b'[{"id": 1}, {"id": 2}]'))
            return
        connection.sendall(CHUNKED + b'c\r\n[{"id": 7}, \r\n' + (b"1" if how == "in a size" else b""))
        if how == "silent":
            time.sleep(0.6)

    store = open_store(f"sqlite:///{tmp_path}/i.db")
    with talking(talk) as (base_url, heard):
        source = source_of(base_url, timeout_s=0.3)
        client = Client(source, base_url)
        report = run_stream(source, source.streams[0], store, client)
        client.close()
    store.close()

    assert (2, 2, 1) == (len(heard), report.rows, report.retries)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_bytes_that_trickle_end_at_the_deadline_of_an_answer(part):
    def talk(connection, _number):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" if part == "headers" else CHUNKED)
        for _ in range(100):
            connection.sendall(b"x: y\r\n" if part == "headers" else b"1\r\n \r\n")
            time.sleep(0.05)

    with talking(talk) as (base_url, _):
        began = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            ask(base_url, timeout_s=30, max_response_s=0.4, retry=RetryPolicy(attempts=1))

    assert time.monotonic() - began < 3


BOMB = textwrap.dedent("""
    import json, re, sys, time
    from pathlib import Path
    from tidemill_ingest_api.config import SourceConfig
    from tidemill_ingest_api.fetching.client import Client
    base = sys.argv[1]
    source = SourceConfig(source="s", base_url=base,
        streams=[{"name": "x", "primary_key": ["id"], "fields": {"id": "int64"}}])
    client = Client(source, base)
    began = time.process_time()
    try:
        client.get(base + "/x", stream="x")
        error = ""
    except Exception as caught:
        error = type(caught).__name__
    # ru_maxrss begins with what the parent had before exec; VmHWM is this process alone.
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(json.dumps({"error": error, "cpu_s": time.process_time() - began, "peak": peak}))
""")


def gigabyte() -> bytes:
    """Compress a gigabyte of spaces around an empty list."""
    packer = zlib.compressobj(9, wbits=31)
    million = b" " * 1_000_000
    return b"".join([packer.compress(b"["), *(packer.compress(million) for _ in range(1000)), packer.flush()])


def test_a_gzip_bomb_ends_within_a_second_and_100_megabytes():
    bomb = gigabyte()

    with talking(lambda connection, _: connection.sendall(whole(bomb, b"content-encoding: gzip"))) as (base_url, heard):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        done = subprocess.run(
            [sys.executable, "-c", BOMB, base_url], capture_output=True, check=True, timeout=60, env=environment
        )
    told = json.loads(done.stdout)

    assert "ResponseTooLarge" == told["error"]
    assert 1 == len(heard)
    assert told["cpu_s"] <= 1.0
    assert told["peak"] <= 100_000_000


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b'[{"id":1}]'), b"gzip"),
        (gzip.compress(b'[{"id":') + gzip.compress(b"1}]"), b"GZIP"),
        (zlib.compress(b'[{"id":1}]'), b"deflate"),
        (zlib.compress(b'[{"id":1}]')[2:-4], b"deflate"),
        (b'[{"id":1}]', b"identity"),
    ],
    # Named: bytes of gzip hold the time, and each test process must find the same tests.
    ids=["gzip", "two gzip members", "zlib", "raw deflate", "identity"],
)
def test_compressed_bodies_are_read_in_every_form(body, encoding):
    with talking(lambda to, _: to.sendall(whole(body, b"content-encoding: " + encoding))) as (base_url, heard):
        assert [{"id": 1}] == ask(base_url)

    assert b"accept-encoding: gzip, deflate\r\n" in heard[0].lower()


def test_a_large_compressed_body_within_the_limit_is_read_whole():
    body = json.dumps([{"id": i, "text": "x" * 50} for i in range(20_000)]).encode()

    with talking(lambda to, _: to.sendall(whole(gzip.compress(body), b"content-encoding: gzip"))) as (base_url, _):
        assert json.loads(body) == ask(base_url)


@pytest.mark.parametrize("end", [12, 20, -9, -1])
def test_a_compressed_body_that_is_torn_is_temporary(end):
    torn = gzip.compress(b'[{"id":1}, {"id": 2}]')[:end]

    with (
        talking(lambda to, _: to.sendall(whole(torn, b"content-encoding: gzip"))) as (base_url, heard),
        pytest.raises(UpstreamUnavailable),
    ):
        ask(base_url)

    assert 3 == len(heard)


def test_an_encoding_nobody_asked_for_is_permanent():
    with (
        talking(lambda to, _: to.sendall(whole(b"[]", b"content-encoding: br"))) as (base_url, heard),
        pytest.raises(InvalidResponse, match="'br' is none that was asked for"),
    ):
        ask(base_url)

    assert 1 == len(heard)


@pytest.mark.parametrize("etag", [b'"\xe9"', b'"a\tb"', b'"\xc3\xa9"', b'W/"\x7f"'])
def test_an_etag_that_no_request_can_carry_is_not_sent_back(etag, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    with talking(lambda to, _: to.sendall(whole(b'[{"id": 1}]', b"etag: " + etag))) as (base_url, heard):
        source = source_of(base_url)
        reports = []
        for _ in range(2):
            client = Client(source, base_url)
            reports.append(run_stream(source, source.streams[0], store, client))
            client.close()
    store.close()

    assert [1, 1] == [report.rows for report in reports]
    assert b"if-none-match" not in heard[1].lower()


def test_a_next_token_cannot_write_headers_or_paths_of_its_own(tmp_path):
    def talk(connection, number):
        token = "x\r\nx-evil: 1\r\n\r\nGET /other HTTP/1.1"
        connection.sendall(
            whole(json.dumps({"data": [{"id": number}], "next": token if number == 1 else None}).encode())
        )

    store = open_store(f"sqlite:///{tmp_path}/i.db")
    with talking(talk) as (base_url, heard):
        source = source_of(base_url)
        stream = source.streams[0].model_copy(
            update={"records": "data", "paginate": {"type": "cursor", "path": "next"}}
        )
        stream = type(stream).model_validate(stream.model_dump(mode="json", warnings=False))
        client = Client(source, base_url)
        run_stream(source, stream, store, client)
        client.close()
    store.close()

    head, _, rest = heard[1].partition(b"\r\n\r\n")
    assert b"" == rest
    assert b"\r\nx-evil" not in head
    assert head.startswith(b"GET /x?cursor=x%0D%0Ax-evil")


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "bearer", "token": "hush-1\n"},
        {"type": "api_key", "key": "hush-2\r\nx-evil: 1"},
        {"type": "api_key", "key": " hush-3"},
        {"type": "api_key", "name": "x evil", "key": "hush-4"},
    ],
)
def test_a_secret_that_no_header_can_carry_is_a_fault_of_the_configuration_that_does_not_show_it(auth, tmp_path):
    path = tmp_path / "s.json"
    stream = {"name": "x", "primary_key": ["id"], "fields": {"id": "int64"}}
    path.write_text(json.dumps({"source": "s", "base_url": "https://a.example", "auth": auth, "streams": [stream]}))

    done = subprocess.run(
        [sys.executable, "-c", "from tidemill_core.cli import main; main()", "ingest", "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 3 == done.returncode
    assert "header" in done.stderr
    assert "hush" not in done.stderr + done.stdout


def test_an_answer_larger_than_allowed_is_refused_before_it_is_read():
    with (
        talking(lambda to, _: to.sendall(OK + b"content-length: 999999999\r\n\r\n[")) as (base_url, _),
        pytest.raises(ResponseTooLarge),
    ):
        ask(base_url)
