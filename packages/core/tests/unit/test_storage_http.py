"""What an object store does when its server is slow, busy, broken or says no."""

import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tidemill_core.errors import ObjectNotFound, PreconditionFailed, exit_code
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import StoreRefused, StoreUnavailable, open_store
from tidemill_core.storage._http import Request
from tidemill_core.storage._sigv4 import Credentials, sign

SECRET = "never-shown"


@contextmanager
def serving(answers):
    """Serve the given answers in order, the last one for ever; gives the store and what was asked.

    An answer is (status, headers, body), or a function of the handler that does as it likes.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            size = int(self.headers.get("Content-Length") or 0)
            asked.append((self.command, self.path, dict(self.headers), self.rfile.read(size)))
            answer = answers[min(len(asked), len(answers)) - 1]
            if callable(answer):
                answer(self)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815  # the names of the base class

        def log_message(self, *args):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    options = StorageOptions(
        s3_endpoint_url=f"http://127.0.0.1:{server.server_port}", s3_access_key_id="me", s3_secret_access_key=SECRET
    )
    try:
        yield open_store("s3://bucket", options), asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("tidemill_core.retry.RetryPolicy.wait_s", lambda *_args: 0.0)


OK = (200, {"ETag": '"e1"'}, b"")
BUSY = (503, {"Retry-After": "7"}, b"<Error><Code>SlowDown</Code></Error>")


def cut(handler):
    """Promise ten bytes, send four, and break the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.send_header("ETag", '"e1"')
    handler.end_headers()
    handler.wfile.write(b"0123")
    handler.close_connection = True


def hang_up(handler):
    handler.close_connection = True


def test_a_throttled_write_is_sent_again():
    with serving([BUSY, BUSY, OK]) as (store, asked):
        written = store.put("key", b"body")

    assert written.etag == "e1"
    assert [body for _, _, _, body in asked] == [b"body"] * 3


def test_a_store_that_stays_busy_is_unavailable_and_tells_for_how_long():
    with serving([BUSY]) as (store, _), pytest.raises(StoreUnavailable, match="SlowDown") as error:
        store.get("key")

    assert error.value.retry_after_s == 7
    assert exit_code(error.value) == 75


def test_a_lost_answer_to_a_conditional_write_is_never_repeated_blindly():
    with serving([hang_up, OK]) as (store, asked):
        with pytest.raises(StoreUnavailable) as error:
            store.put("key", b"body", if_absent=True)

        assert error.value.is_unclear
        assert len(asked) == 1


def test_a_throttled_conditional_write_is_sent_again_because_it_was_not_done():
    with serving([BUSY, OK]) as (store, asked):
        store.put("key", b"body", if_absent=True)

    assert len(asked) == 2


def test_a_lost_answer_to_a_plain_write_is_repeated():
    with serving([hang_up, OK]) as (store, _):
        assert store.put("key", b"body").etag == "e1"


def test_a_broken_stream_goes_on_at_the_same_byte_of_the_same_version():
    rest = (206, {"ETag": '"e1"'}, b"456789")
    with serving([cut, rest]) as (store, asked):
        body = b"".join(store.stream("key", chunk_bytes=2))

    assert body == b"0123456789"
    assert asked[1][2]["Range"] == "bytes=4-"
    assert asked[1][2]["If-Match"] == '"e1"'


def test_a_stream_whose_object_changed_in_between_fails_and_is_not_mixed():
    with serving([cut, (412, {}, b"")]) as (store, _), pytest.raises(PreconditionFailed):
        list(store.stream("key"))


def test_a_stream_that_never_comes_gives_up():
    with serving([hang_up]) as (store, asked):
        with pytest.raises(StoreUnavailable):
            list(store.stream("key"))

        assert len(asked) == 4


def test_a_truncated_listing_is_an_error_and_not_a_short_list():
    broken = (200, {}, b"<ListBucketResult><Contents><Key>a</Key>")
    with serving([broken]) as (store, _), pytest.raises(StoreUnavailable, match="not XML"):
        list(store.list())


def test_an_error_inside_a_200_of_a_copy_is_an_error():
    inside = (200, {}, b"<Error><Code>InternalError</Code><Message>oh</Message></Error>")
    with serving([inside]) as (store, _), pytest.raises(StoreUnavailable, match="InternalError"):
        store.copy("a", "b")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b"<Error><Code>AccessDenied</Code></Error>", StoreRefused),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", StoreRefused),
        (404, b"<Error><Code>NoSuchKey</Code></Error>", ObjectNotFound),
        (412, b"", PreconditionFailed),
        (400, b"<Error><Code>BadDigest</Code></Error>", StoreRefused),
    ],
)
def test_every_status_is_an_error_that_names_the_store_and_no_secret(status, body, kind):
    with serving([(status, {}, body)]) as (store, _), pytest.raises(kind, match="s3://bucket") as error:
        store.get("key")

    assert SECRET not in str(error.value)


def test_a_failed_part_aborts_the_upload(monkeypatch):
    monkeypatch.setattr("tidemill_core.storage.s3.PART_BYTES", 4)
    begun = (200, {}, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
    refused = (403, {}, b"<Error><Code>AccessDenied</Code></Error>")
    with serving([begun, refused]) as (store, asked):
        with pytest.raises(StoreRefused):
            store.put("key", b"0123456789")

        assert ("DELETE", "/bucket/key?uploadId=u1") in [(method, path) for method, path, _, _ in asked]


def test_a_server_that_is_not_there_is_unavailable():
    options = StorageOptions(s3_endpoint_url="http://127.0.0.1:9", s3_access_key_id="a", s3_secret_access_key=SECRET)

    with pytest.raises(StoreUnavailable, match="no answer"):
        open_store("s3://bucket", options).get("key")


def test_a_dot_segment_is_sent_as_it_is():
    with serving([OK]) as (store, asked):
        store.put("x/../y/./z", b"")

    assert asked[0][1] == "/bucket/x/../y/./z"


def test_the_signature_equals_the_example_of_aws():
    """GET with a range, from the documentation of S3's signature version 4."""
    request = Request(method="GET", path="/test.txt", headers={"range": "bytes=0-9"}, doing="read")
    credentials = Credentials(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")

    headers = sign(
        request,
        credentials,
        host="examplebucket.s3.amazonaws.com",
        base_path="",
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
        payload="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    )

    assert headers["Authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_credentials_never_show_their_secret():
    assert SECRET not in repr(Credentials(access_key="a", secret_key=SECRET, token=SECRET))
