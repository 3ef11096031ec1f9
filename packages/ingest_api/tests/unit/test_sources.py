"""The built-in sources, on replies shaped as the APIs document them (none was recorded from the live API)."""

from collections import deque

import orjson
import pytest
from tidemill_ingest_api.errors import UpstreamThrottled
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_source, table_spec
from tidemill_ingest_api.sources import load_source
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.transports import FakeTransport, respond

ISSUE = {
    "id": 3000000001,
    "number": 7,
    "title": "It breaks",
    "state": "open",
    "locked": False,
    "user": {"login": "ada", "id": 5},
    "comments": 2,
    "labels": [{"name": "bug"}],
    "pull_request": {"url": "https://api.github.com/repos/o/r/pulls/7"},
    "milestone": None,
    "body": None,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-02T00:00:00Z",
    "closed_at": None,
    "reactions": {"+1": 3},
}
HOURS = {
    "time": ["2026-01-01T00:00", "2026-01-01T01:00"],
    "temperature_2m": [1.5, None],
    "relative_humidity_2m": [80, 81],
    "precipitation": [0.0, 0.1],
    "pressure_msl": [1013.2, 1013.0],
    "wind_speed_10m": [10.0, 11.2],
    "wind_direction_10m": [270, 280],
}
PRICE = {"symbol": "AAPL", "exchange": "XNAS", "date": "2026-01-02T00:00:00+0000", "open": 1.0, "high": 2.0, "low": 0.5}
PRICE |= {"close": 1.5, "volume": 1000.0, "adj_close": 1.5, "dividend": 0.0}


def fetch(name, tmp_path, *replies, **env):
    source = load_source(f"builtin:{name}", env=env)
    transport = FakeTransport(answers=deque(replies))
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    (report,) = run_source(source, store, Client(source, source.base_url, transport=transport, sleep=lambda _: None))
    return source, store, transport, report


def test_github_issues_follow_links_and_ask_again_from_the_cursor(tmp_path):
    link = '<https://api.github.com/repositories/1/issues?page=2>; rel="next"'
    first = respond(200, orjson.dumps([ISSUE]), link=link, etag='"a"')
    second = respond(200, orjson.dumps([{**ISSUE, "id": 2, "updated_at": "2026-01-03T00:00:00Z"}]), etag='"b"')

    source, store, transport, report = fetch("github_issues", tmp_path, first, second, GITHUB_TOKEN="hush-token")
    _, _, again, _ = fetch("github_issues", tmp_path, respond(200, b"[]"), GITHUB_TOKEN="hush-token")

    doc = orjson.loads(store.get(table_spec(source, source.streams[0]), (3000000001,)))
    assert (2, 2) == (report.pages, report.inserted)
    assert ("ada", [{"name": "bug"}], False) == (doc["user__login"], doc["labels"], doc["is_locked"])
    assert transport.asked[0][0].startswith("https://api.github.com/repos/dagster-io/dagster/issues?state=all")
    assert "since=2026-01-02T23%3A55%3A00Z" in again.asked[0][0]
    assert "Bearer hush-token" == transport.asked[1][1]["authorization"]


def test_open_meteo_arrays_become_hours(tmp_path):
    source, store, _, report = fetch(
        "open_meteo", tmp_path, respond(200, orjson.dumps({"hourly": HOURS, "elevation": 1}))
    )

    hour = table_spec(source, source.streams[0])
    assert 2 == report.inserted == store.count(hour)


def test_stock_prices_page_to_the_total_with_the_key_in_the_query(tmp_path):
    page = {"pagination": {"limit": 1000, "offset": 0, "count": 1, "total": 1}, "data": [PRICE]}

    _, _, transport, report = fetch("stock_prices", tmp_path, respond(200, orjson.dumps(page)), MARKETSTACK_KEY="hush")

    assert (1, 1) == (report.requests, report.inserted)
    assert transport.asked[0][0].endswith("&access_key=hush")
    assert "date_from=2024-01-01" in transport.asked[0][0]


def test_stock_prices_notice_a_throttle_told_with_status_200(tmp_path):
    reply = respond(200, b'{"error": {"code": "too_many_requests", "message": "slow down"}}')

    with pytest.raises(UpstreamThrottled):
        fetch("stock_prices", tmp_path, reply, MARKETSTACK_KEY="hush")
