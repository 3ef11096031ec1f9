"""The bundled API behaves as real ones do: pages, links, etags, and 429 now and then."""

import re

import httpx
import pytest
from tidemill_deploy.upstream import RETRY_AFTER_S, THROTTLE_EVERY, Upstream, weather_records


@pytest.fixture
def upstream():
    with Upstream(records=tuple({"n": number} for number in range(25))) as server:
        yield server


def test_following_the_links_gives_every_record_once(upstream) -> None:
    url, seen = f"{upstream.base_url}/v1/weather?per_page=10", []
    while url:
        answer = httpx.get(url)
        seen += [each["n"] for each in answer.json()]
        following = re.search(r'<([^>]+)>; rel="next"', answer.headers["Link"])
        url = following.group(1) if following else ""

    assert list(range(25)) == seen


def test_a_page_that_has_not_changed_is_answered_304_without_a_body(upstream) -> None:
    first = httpx.get(f"{upstream.base_url}/v1/weather")

    again = httpx.get(f"{upstream.base_url}/v1/weather", headers={"If-None-Match": first.headers["ETag"]})
    other = httpx.get(f"{upstream.base_url}/v1/weather", headers={"If-None-Match": '"something else"'})

    assert (304, b"") == (again.status_code, again.content)
    assert 200 == other.status_code


def test_every_twentieth_request_is_throttled_and_says_for_how_long(upstream) -> None:
    with httpx.Client(base_url=upstream.base_url) as client:
        answers = [client.get("/v1/weather") for _ in range(2 * THROTTLE_EVERY)]

    throttled = [number for number, each in enumerate(answers, 1) if each.status_code == 429]
    assert [THROTTLE_EVERY, 2 * THROTTLE_EVERY] == throttled
    assert str(RETRY_AFTER_S) == answers[THROTTLE_EVERY - 1].headers["Retry-After"]


@pytest.mark.parametrize(("path", "status"), [("/v1/weather?page=0", 400), ("/v1/weather?page=x", 400), ("/v2", 404)])
def test_a_wrong_request_is_refused_with_a_reason(upstream, path, status) -> None:
    answer = httpx.get(upstream.base_url + path)

    assert status == answer.status_code
    assert answer.json()["error"]


def test_missing_measurements_are_null_and_types_are_kept() -> None:
    record = weather_records()[0]

    assert ("EWR", 39.02, 270, None) == (record["origin"], record["temp"], record["wind_dir"], record["wind_gust"])
