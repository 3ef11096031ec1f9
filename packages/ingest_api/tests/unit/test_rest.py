"""The REST application in the process of a test, without a port."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from tidemill_ingest_api.api.rest import create_app
from tidemill_ingest_api.config import ServeConfig, SourceConfig
from tidemill_ingest_api.errors import StoreUnavailable
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.suites import SPEC, STREAM, commit_of, record

SOURCE = SourceConfig(
    source="suite",
    base_url="http://h",
    streams=[STREAM],
    serve=ServeConfig(auth={"type": "none"}, freshness_s=0, rate_limit=None),
)


def ask(app, *paths, **headers):
    async def all_of():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return [await client.get(path, headers=headers) for path in paths]

    return asyncio.run(all_of())


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    with store.writer(SPEC) as writer:
        writer.commit(commit_of(record("a,b/c", 1), record("=cmd()", 2)))
    yield store
    store.close()


def test_a_key_may_hold_commas_and_slashes_and_the_app_may_be_mounted(store):
    outer = FastAPI()
    outer.mount("/inner", create_app(SOURCE, store))

    answers = ask(outer, "/inner/v1/things/a%2Cb%2Fc,1", "/inner/v1/things?limit=1")

    assert [200, 200] == [answer.status_code for answer in answers]
    assert 1 == answers[0].json()["number"]
    assert "/inner/v1/things?limit=1&after=" in answers[1].headers["link"]


def test_formulas_in_csv_are_quoted_unless_switched_off(store):
    free = SOURCE.model_copy(update={"serve": SOURCE.serve.model_copy(update={"escape_csv_formulas": False})})
    path = "/v1/things?format=csv&select=place&number=eq.2"

    texts = [ask(create_app(source, store), path)[0].text for source in (SOURCE, free)]

    assert ["place\n'=cmd()\n", "place\n=cmd()\n"] == texts


def test_an_unchanged_page_is_answered_from_memory(store):
    asked = []

    class Counting:
        is_local = True

        def __getattr__(self, name):
            asked.append(name)
            return getattr(store, name)

    ask(create_app(SOURCE, Counting()), "/v1/things", "/v1/things", "/v1/things?limit=5", "/v1/things")

    assert 2 == asked.count("select")


def test_a_store_that_is_away_is_503_without_its_address():
    class Away:
        is_local = True

        def __getattr__(self, name):
            raise StoreUnavailable("postgresql://secret-host/db", "refused")

    answers = ask(create_app(SOURCE, Away()), "/v1/things", "/v1/things/x,1", "/readyz", "/livez")

    assert [503, 503, 503, 200] == [answer.status_code for answer in answers]
    assert all("secret-host" not in answer.text for answer in answers)
