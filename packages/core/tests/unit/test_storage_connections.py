"""What kept-open connections do with replies of every shape, whole, broken and odd."""

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager

import pytest
from tidemill_core.storage._connections import Connections, NotConnected
from tidemill_core.storage._net import _context

HOST = {"host": "store"}


class Scripted:
    """Answers each request with the next bytes; None closes the connection instead.

    Args:
        replies: Bytes per request, in order, over all connections.
        wrap: Turns an accepted socket into what is served on, such as TLS.
    """

    def __init__(self, replies, wrap=lambda sock: sock):
        self.replies, self.requests, self.connections = list(replies), [], 0
        self._wrap = wrap
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            served = self._wrap(sock)
            with served, served.makefile("rb") as file:
                while self.replies and (head := self._head(file)):
                    self.requests.append(head)
                    reply = self.replies.pop(0)
                    if reply is None:
                        return
                    served.sendall(reply)
                    if b"onnection: close" in reply or reply.endswith(b"CUT"):
                        return
        except OSError:
            return

    def _head(self, file):
        lines = []
        while (line := file.readline()) not in {b"\r\n", b""}:
            lines.append(line.decode("latin-1").strip())
        length = next((int(each.partition(":")[2]) for each in lines if each.lower().startswith("content-length")), 0)
        return [*lines, file.read(length)] if lines else None

    def close(self):
        self._listener.close()


@contextmanager
def scripted(*replies, **more):
    server = Scripted(replies, **more)
    try:
        yield server, Connections(f"http://127.0.0.1:{server.port}")
    finally:
        server.close()


def whole(body=b"ok", *headers):
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def get(connections, method="GET", **more):
    exchange = connections.send(method, "/k", headers={**HOST, **more}, body=None)
    return exchange.status, exchange.read_all()


def test_a_connection_is_used_again_and_each_reply_is_its_own():
    with scripted(whole(b"one"), whole(b""), whole(b"three")) as (server, connections):
        found = [get(connections)[1] for _ in range(3)]

    assert (found, server.connections) == ([b"one", b"", b"three"], 1)


def test_a_connection_that_the_server_will_close_is_not_used_again():
    with scripted(whole(b"1", b"Connection: close"), whole(b"2")) as (server, connections):
        found = [get(connections)[1] for _ in range(2)]

    assert (found, server.connections) == ([b"1", b"2"], 2)


def test_a_connection_that_was_closed_while_idle_is_not_used_again():
    with scripted(whole(b"1CUT"), whole(b"2")) as (server, connections):
        get(connections)
        connections._idle[0].sock.recv(1, socket.MSG_PEEK)  # waits for the end

        assert get(connections)[1] == b"2"
        assert server.connections == 2


def test_a_path_with_dot_segments_is_sent_as_it_is():
    with scripted(whole()) as (server, connections):
        connections.send("GET", "/b/x/../y/./z", headers=HOST, body=None).read_all()

    assert server.requests[0][0] == "GET /b/x/../y/./z HTTP/1.1"


@pytest.mark.parametrize("body", [b"", b"small", memoryview(b"view"), b"large" * 100_000])
def test_a_body_arrives_as_it_is_with_its_length(body):
    with scripted(whole()) as (server, connections):
        connections.send("PUT", "/k", headers=HOST, body=body).read_all()

    assert server.requests[0][-1] == bytes(body)
    assert f"Content-Length: {len(body)}" in server.requests[0]


def test_a_chunked_body_is_joined_its_trailers_dropped_and_the_connection_kept():
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    )
    with scripted(chunked, whole(b"next")) as (server, connections):
        assert get(connections)[1] == b"abc0123456789"
        assert get(connections)[1] == b"next"
        assert server.connections == 1


def test_a_body_without_a_length_ends_with_the_connection():
    with scripted(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it") as (_, connections):
        assert get(connections)[1] == b"all of it"


def test_replies_that_say_go_on_are_passed_over():
    with scripted(b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"done")) as (_, connections):
        assert get(connections) == (200, b"done")


@pytest.mark.parametrize("header", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_the_reply_to_head_has_no_body_whatever_its_headers_say(header):
    with scripted(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n", whole(b"next")) as (_, connections):
        assert get(connections, "HEAD") == (200, b"")
        assert get(connections)[1] == b"next"


def test_headers_are_found_whatever_their_case():
    with scripted(whole(b"", b'eTaG:  "x" ')) as (_, connections):
        headers = connections.send("GET", "/k", headers=HOST, body=None).headers

    assert (headers["ETag"], headers.get("etag"), headers.get("missing")) == ('"x"', '"x"', None)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"HTTP/1.1 200 OK\r\nContent-LengthCUT",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123CUT",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nCUT",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabCUT",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nCUT",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nCUT",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\nCUT",
        b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 300 + b"\r\nCUT",
        b"SSH-2.0-OpenSSH\r\nCUT",
        b"HTTP/1.1 abc\r\n\r\nCUT",
    ],
)
def test_a_broken_reply_is_an_error_and_never_a_short_body(reply):
    with scripted(reply) as (_, connections), pytest.raises((OSError, http.client.HTTPException)):
        get(connections)


def test_a_body_cut_while_it_is_read_in_chunks_is_an_error():
    with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123CUT") as (_, connections):
        exchange = connections.send("GET", "/k", headers=HOST, body=None)

        with pytest.raises(http.client.IncompleteRead):
            list(exchange.chunks(2))


def test_what_is_left_of_a_body_never_reaches_the_next_reply():
    with scripted(whole(b"0123456789"), whole(b"next")) as (server, connections):
        chunks = connections.send("GET", "/k", headers=HOST, body=None).chunks(2)
        assert next(chunks) == b"01"
        chunks.close()

        assert get(connections)[1] == b"next"
        assert server.connections == 2


@pytest.mark.parametrize("value", ["a\r\nX: 1", "a\nb", "a\rb", "\u0416"])
def test_a_header_that_cannot_be_sent_is_refused_before_anything_is(value):
    with scripted(whole()) as (server, connections):
        with pytest.raises(ValueError, match=r"line break|latin-1"):
            get(connections, meta=value)
        assert server.requests == []


def test_a_server_that_is_not_there_is_told_apart():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(NotConnected):
        get(Connections(f"http://127.0.0.1:{port}"))


@pytest.fixture
def certificate(tmp_path):
    """A certificate of its own for `localhost`, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    _context.cache_clear()
    yield made, key
    _context.cache_clear()


def over_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def test_a_server_is_trusted_by_the_environments_certificates(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with scripted(whole(b"1"), whole(b"2"), wrap=over_tls(certificate)) as (server, _):
        connections = Connections(f"https://localhost:{server.port}")
        assert [get(connections)[1], get(connections)[1]] == [b"1", b"2"]
        assert server.connections == 1


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(certificate):
    with scripted(whole(b"1"), wrap=over_tls(certificate)) as (server, _):
        with pytest.raises(NotConnected, match="CERTIFICATE_VERIFY_FAILED"):
            get(Connections(f"https://localhost:{server.port}"))
        assert server.requests == []


def test_an_https_store_is_reached_through_the_environments_proxy(certificate, monkeypatch):
    tunnels = []

    def proxied(sock):
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        tunnels.append(head.decode())
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return over_tls(certificate)(sock)

    with scripted(whole(b"inside"), wrap=proxied) as (server, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        monkeypatch.setenv("https_proxy", f"http://me:p%40ss@127.0.0.1:{server.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        exchange = Connections("https://localhost").send("GET", "/k", headers={}, body=None)

        assert exchange.read_all() == b"inside"
    assert tunnels[0].startswith("CONNECT localhost:443 HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in tunnels[0]
    assert "Host: localhost" in server.requests[0]
