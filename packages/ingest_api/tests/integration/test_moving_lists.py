"""Lists that change while they are read page by page, on a real server: no record is lost, none is doubled."""

import random

import orjson
import pytest
from tidemill_core.errors import TransientError
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import ListMoved
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream, table_spec
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.stores.query import Select, parse_order
from tidemill_ingest_api.testing.fake_api import FakeApi


def records(count):
    return [{"id": i, "at": f"2026-01-01T00:00:{i:02}Z"} for i in range(count)]


class MovingApi(FakeApi):
    """Changes its list after the answers of these numbers (all for None)."""

    def __init__(self, change, *, after=frozenset({2}), has_total=True):
        super().__init__(records(9), per_page=2, has_etags=False, has_total=has_total)
        self.change, self.after = change, after

    def answer(self, path, headers):
        found = super().answer(path, headers)
        if self.after is None or len(self.seen) in self.after:
            self.change(self.records)
        return found


def delete_first(rows):
    del rows[0]


def insert_first(rows):
    rows.insert(0, {"id": 100 + len(rows), "at": "2026-02-01T00:00:00Z"})


def touch(rows):
    """What a list sorted by the last change does with a record that changed."""
    rows.insert(0, rows.pop(5))


def swap_ends(rows):
    """Keeps the total and shows nothing twice on neighbouring pages: one end is lost, the other doubled."""
    rows[0], rows[8] = rows[8], rows[0]


PAGINGS = {
    "page": {"type": "page", "size": 2, "total_pages": "pages"},
    "offset": {"type": "offset", "limit": 2, "total": "total"},
}


def stream_of(api, route, **paging):
    stream = {
        "name": "things",
        "path": f"/{route}",
        "records": "data",
        "paginate": {**PAGINGS[route], **paging},
        "primary_key": ["id"],
        "cursor": {"field": "at"},
        "batch_rows": 2,
        "fields": {"id": "int64", "at": "timestamp"},
    }
    retry = RetryPolicy(attempts=2, delay_s=0.001)
    return SourceConfig(source="moving", base_url=api.base_url, http={"retry": retry}, streams=[stream])


def fetch(api, store, source):
    client = Client(source, api.base_url)
    try:
        return run_stream(source, source.streams[0], store, client)
    finally:
        client.close()


def stored(store, source):
    select = Select(order=parse_order(source.streams[0], "id"), limit=1000)
    docs = store.select(table_spec(source, source.streams[0]), select)
    return [orjson.loads(doc)["id"] for doc in docs]


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    yield store
    store.close()


@pytest.mark.parametrize("change", [delete_first, insert_first, touch])
@pytest.mark.parametrize("route", PAGINGS)
@pytest.mark.parametrize("place", [1, 2, 3, 4])
def test_a_list_that_moves_once_is_read_again_and_ends_whole(store, change, route, place):
    with MovingApi(change, after={place}) as api:
        source = stream_of(api, route, verify=(change, route) == (delete_first, "page"))
        report = fetch(api, store, source)

        found = stored(store, source)
        assert {each["id"] for each in api.records} <= set(found)
        assert len(found) == len(set(found)) == report.rows


@pytest.mark.parametrize("change", [delete_first, touch, swap_ends])
def test_verify_finds_what_no_total_and_no_neighbour_shows(store, change):
    with MovingApi(change, has_total=False) as api:
        source = stream_of(api, "page", verify=True, total_pages=None)
        report = fetch(api, store, source)

        assert {each["id"] for each in api.records} <= set(stored(store, source))
        assert report.rereads >= 1


def test_without_another_reading_a_record_would_be_lost(store):
    with MovingApi(delete_first) as api:
        source = stream_of(api, "offset", rereads=0)
        fetch(api, store, source)

        assert {each["id"] for each in api.records} - set(stored(store, source))


def test_a_list_in_another_order_at_every_request_ends_as_temporary_and_moves_no_cursor(store):
    chance = random.Random(5)
    with MovingApi(chance.shuffle, after=None) as api:
        source = stream_of(api, "page", verify=True)
        with pytest.raises(ListMoved, match="4 readings") as caught:
            fetch(api, store, source)

        assert isinstance(caught.value, TransientError)
        assert store.state(table_spec(source, source.streams[0])).cursor is None


def test_a_total_that_never_fits_costs_one_more_reading_and_no_failure(store):
    class Boastful(FakeApi):
        def answer(self, path, headers):
            found = super().answer(path, headers)
            body = orjson.loads(found.body) | {"total": 12}
            return type(found)(headers=found.headers, body=orjson.dumps(body))

    with Boastful(records(9), has_etags=False, has_total=True) as api:
        source = stream_of(api, "offset")
        report = fetch(api, store, source)

        assert (1, 9) == (report.rereads, report.rows)


def test_a_list_at_rest_is_read_once(store):
    with FakeApi(records(9), has_etags=False, has_total=True) as api:
        for route in PAGINGS:
            report = fetch(api, store, stream_of(api, route))
            assert (0, 5) == (report.rereads, report.pages)
