"""The client: waits, retries, trust and secrets, without a network."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.config import HttpConfig, RateConfig, SourceConfig
from tidemill_ingest_api.errors import (
    InvalidResponse,
    ResponseTooLarge,
    UntrustedUrl,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from tidemill_ingest_api.fetching.client import Client, Pacer
from tidemill_ingest_api.fetching.limits import ratelimit_reset_s, retry_after_s
from tidemill_ingest_api.testing.transports import FakeTransport, respond

BASE = "https://api.example.org"


def client_of(*answers, base=BASE, slept=None, **more):
    http = more.pop("http", HttpConfig(retry=RetryPolicy(attempts=3, delay_s=0, jitter=False)))
    source = SourceConfig(
        source="s",
        base_url=base,
        http=http,
        streams=[{"name": "x", "primary_key": ["id"], "fields": {"id": "int64"}}],
        **more,
    )
    transport = FakeTransport(answers=deque(answers))
    waits = slept if slept is not None else []
    return Client(source, base, transport=transport, sleep=waits.append, wall=lambda: 1000.0), transport


def test_retry_after_is_kept_in_seconds_and_dates_however_long():
    waits: list[float] = []
    client, transport = client_of(
        respond(429, retry_after="3600"),
        respond(429, retry_after="Thu, 01 Jan 1970 02:16:40 GMT"),
        respond(200),
        slept=waits,
    )

    client.get(f"{BASE}/x", stream="x")

    assert [3600.0, 7200.0] == waits
    assert 3 == len(transport.asked) == client.traffic.requests
    assert (2, 10800.0) == (client.traffic.retries, client.traffic.wait_s)


@pytest.mark.parametrize(("value", "expected"), [("", None), (None, None), ("soon", None), ("0", 0.0), ("1.5", 1.5)])
def test_unreadable_retry_after_is_none(value, expected):
    assert expected == retry_after_s(value, 0.0)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_worth_another_try_are_tried_again(status):
    client, transport = client_of(respond(status), respond(200))

    answer = client.get(f"{BASE}/x", stream="x")

    assert (200, 2) == (answer.status, len(transport.asked))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_other_statuses_fail_at_once(status):
    client, transport = client_of(respond(status, b"why"))

    with pytest.raises(UpstreamRefused, match="why"):
        client.get(f"{BASE}/x", stream="x")

    assert 1 == len(transport.asked)


def test_a_403_with_an_empty_quota_is_a_throttle_until_the_reset():
    waits: list[float] = []
    client, _ = client_of(respond(403, x_ratelimit_remaining="0", x_ratelimit_reset="1060"), respond(200), slept=waits)

    client.get(f"{BASE}/x", stream="x")

    assert 60.0 == pytest.approx(max(waits), abs=1)


def test_an_empty_quota_delays_the_next_request_by_epoch_or_delta():
    for unit, reset in (("epoch", "1030"), ("delta", "30")):
        waits: list[float] = []
        http = HttpConfig(rate=RateConfig(reset_unit=unit))
        client, _ = client_of(respond(200, x_ratelimit_remaining="0", x_ratelimit_reset=reset), slept=waits, http=http)

        client.get(f"{BASE}/x", stream="x")
        client.get(f"{BASE}/x", stream="x")

        assert [pytest.approx(30.0, abs=1)] == waits


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit": '"default";r=0;t=30'}, 30.0),
        ({"ratelimit": '"default";r=1;t=30'}, None),
        ({"ratelimit": '"minute";r=0;t=12, "day";r=0;t=400;pk=:abc:'}, 400.0),
        ({"ratelimit": '"a, b;r=0;t=99";r=5;t=1'}, None),
        ({"ratelimit": "limit=100, remaining=0, reset=5"}, 5.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7.0),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "7"}, None),
        ({"ratelimit": "nonsense"}, None),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "\u0663"}, None),
        ({}, None),
    ],
)
def test_the_ratelimit_fields_of_every_draft_are_read(headers, expected):
    assert expected == ratelimit_reset_s(headers)


@given(st.dictionaries(st.sampled_from(["ratelimit", "ratelimit-remaining", "ratelimit-reset"]), st.text()))
def test_any_ratelimit_field_is_read_without_an_error(headers):
    ratelimit_reset_s(headers)


def test_a_spent_ietf_limit_delays_the_next_request_and_times_a_429():
    waits: list[float] = []
    client, _ = client_of(
        respond(200, ratelimit='"default";r=0;t=30'),
        respond(429, ratelimit='"default";r=0;t=45'),
        respond(200),
        slept=waits,
    )

    client.get(f"{BASE}/x", stream="x")
    client.get(f"{BASE}/x", stream="x")

    assert pytest.approx(30.0, abs=1) == waits[0]
    assert pytest.approx(45.0, abs=1) == waits[1]


@pytest.mark.parametrize("header", [{"ratelimit": '"d";r=0;t=999999999'}, {"x_ratelimit_reset": "99999999999"}])
def test_a_window_that_never_ends_is_temporary_and_not_slept_through(header):
    waits: list[float] = []
    http = HttpConfig(retry=RetryPolicy(attempts=3, delay_s=0, jitter=False, deadline_s=60))
    client, transport = client_of(respond(200, x_ratelimit_remaining="0", **header), slept=waits, http=http)

    client.get(f"{BASE}/x", stream="x")
    with pytest.raises(UpstreamThrottled, match="no request is left in its window"):
        client.get(f"{BASE}/x", stream="x")

    assert ([], 1) == (waits, len(transport.asked))


def test_our_own_limit_lets_a_window_pass():
    now = [0.0]
    pacer = Pacer(RateConfig(limit="2/s"), clock=lambda: now[0])

    waits = [pacer.take() for _ in range(5)]

    assert [0.0, 0.0, 1.0, 1.0, 2.0] == waits


def test_a_throttle_told_in_a_body_of_status_200_is_tried_again():
    http = HttpConfig(retry=RetryPolicy(attempts=2, delay_s=0), rate=RateConfig(throttled_text="call frequency"))
    client, _ = client_of(respond(200, b'{"Note":"our call frequency is"}'), http=http)

    with pytest.raises(UpstreamThrottled):
        client.get(f"{BASE}/x", stream="x")


def test_json_cut_short_is_tried_again_and_other_text_is_not():
    client, transport = client_of(respond(200, b'[{"id":'), respond(200, b"[]"))
    html, html_transport = client_of(respond(200, b"<html>"))

    assert [] == client.get(f"{BASE}/x", stream="x").value
    with pytest.raises(InvalidResponse):
        html.get(f"{BASE}/x", stream="x")

    assert (2, 1) == (len(transport.asked), len(html_transport.asked))


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.net/x",
        "http://api.example.org/x",
        "https://api.example.org:444/x",
        "file:///etc/passwd",
        "//evil.example.net/x",
    ],
)
def test_redirects_never_leave_the_allowed_hosts(target):
    client, transport = client_of(respond(302, location=target), respond(200))

    with pytest.raises(UntrustedUrl):
        client.get(f"{BASE}/x", stream="x")

    assert 1 == len(transport.asked)


def test_an_allowed_foreign_host_is_followed_without_our_credentials():
    client, transport = client_of(
        respond(302, location="https://cdn.example.net/y"),
        respond(200),
        allowed_hosts=["cdn.example.net"],
        auth={"type": "bearer", "token": "hush-hush"},
    )

    client.get(f"{BASE}/x", stream="x")

    assert ["Bearer hush-hush", None] == [headers.get("authorization") for _, headers in transport.asked]


def test_a_key_in_the_query_is_sent_and_never_shown():
    client, transport = client_of(
        respond(400, b"bad access_key hush-hush"),
        auth={"type": "api_key", "place": "query", "name": "access_key", "key": "hush-hush"},
    )

    with pytest.raises(UpstreamRefused) as caught:
        client.get(f"{BASE}/x?page=1", stream="x")

    assert f"{BASE}/x?page=1&access_key=hush-hush" == transport.asked[0][0]
    assert "hush-hush" not in str(caught.value)
    assert f"{BASE}/x?page=2" == client.clean(f"{BASE}/x?access_key=hush-hush&page=2")
    assert "hush-hush" not in repr(client.source)


def test_the_last_error_is_raised_when_every_try_failed():
    for error in (UpstreamUnavailable("u", "cut"), ResponseTooLarge("u", 1)):
        client, transport = client_of(error)

        with pytest.raises(type(error)):
            client.get(f"{BASE}/x", stream="x")

        assert (3 if isinstance(error, UpstreamUnavailable) else 1) == len(transport.asked)


def test_endless_redirects_end():
    client, transport = client_of(respond(302, location=f"{BASE}/x"))

    with pytest.raises(UpstreamRefused, match="too many redirects"):
        client.get(f"{BASE}/x", stream="x")

    assert 6 == len(transport.asked)
