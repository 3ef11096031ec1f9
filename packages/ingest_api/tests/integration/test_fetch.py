"""Fetch from a real HTTP server that fails in every way, into both stores."""

import sqlite3
from contextlib import closing

import orjson
import pytest
from tidemill_core.errors import Stopped
from tidemill_core.lifecycle import StopToken
from tidemill_core.lineage_hooks import subscribed
from tidemill_core.postgres import connect
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.auth.bearer import BearerAuth
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import (
    InvalidResponse,
    PagingLoop,
    RecordRejected,
    ResponseTooLarge,
    UntrustedUrl,
    UpstreamRefused,
    UpstreamUnavailable,
)
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream, table_spec
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.stores.query import Select, parse_order
from tidemill_ingest_api.testing.fake_api import Answer, FakeApi

PAGINGS = {
    "link": {"type": "link_header"},
    "page": {"type": "page", "size": 2},
    "offset": {"type": "offset", "limit": 2},
    "cursor": {"type": "cursor", "path": "next"},
    "next": {"type": "next_url"},
    "all": {"type": "single"},
}
RETRY = RetryPolicy(attempts=3, delay_s=0.001)


def records(count, **more):
    return [{"id": i, "name": f"n{i}", "at": f"2026-01-01T00:00:{i:02}Z", **more} for i in range(count)]


def source_of(api, route="link", http=None, **more):
    stream = {
        "name": "things",
        "path": f"/{route}",
        "paginate": PAGINGS[route],
        "records": "" if route in {"link", "all"} else "data",
        "conditional": "etag",
        "primary_key": ["id"],
        "batch_rows": 2,
        "fields": {"id": "int64", "name": "string", "at": "timestamp"},
    }
    return SourceConfig(
        source="fake", base_url=api.base_url, http={"retry": RETRY, **(http or {})}, streams=[stream | more]
    )


def run(api, store, route="link", *, stop=None, on_page=None, http=None, **more):
    source = source_of(api, route, http, **more)
    client = Client(source, api.base_url)
    try:
        return run_stream(source, source.streams[0], store, client, stop=stop, on_page=on_page)
    finally:
        client.close()


def ids(store, api, **more):
    source = source_of(api, **more)
    spec = table_spec(source, source.streams[0])
    docs = store.select(spec, Select(order=parse_order(source.streams[0], "id"), limit=1000))
    return [orjson.loads(doc)["id"] for doc in docs]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path}/i.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def sqlite(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    yield store
    store.close()


@pytest.mark.parametrize("route", PAGINGS)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_way_of_paging_fetches_every_record_once(sqlite, route, concurrency):
    with FakeApi(records(9), has_total=True) as api:
        report = run(api, sqlite, route, http={"concurrency": concurrency})

        assert list(range(9)) == ids(sqlite, api)
        assert (9, 9, 0) == (report.records, report.inserted, report.duplicates)


@pytest.mark.parametrize("route", ["page", "offset"])
def test_pages_are_fetched_at_once_where_the_total_is_known(sqlite, route):
    paging = PAGINGS[route] | ({"total_pages": "pages"} if route == "page" else {"total": "total"})
    with FakeApi(records(20), has_total=True) as api:
        run(api, sqlite, route, http={"concurrency": 4}, paginate=paging)

        assert list(range(20)) == ids(sqlite, api)
        assert 10 == len(api.seen)


def test_an_unchanged_second_run_reads_no_page_and_rewrites_no_row(store):
    with FakeApi(records(9)) as api:
        first = run(api, store)
        second = run(api, store)

    assert (5, 0, 9) == (first.pages, first.not_modified, first.inserted)
    assert (5, 5, 0) == (second.pages, second.not_modified, second.records)
    assert second.is_unchanged
    assert first.version == second.version


def test_equal_rows_are_not_rewritten_without_etags_either(store):
    with FakeApi(records(9), has_etags=False) as api:
        run(api, store)
        second = run(api, store)

    assert (9, 0, 0, 9) == (second.records, second.inserted, second.updated, second.unchanged)


def test_state_is_kept_when_the_api_moves_to_another_port(store):
    with FakeApi(records(9)) as api:
        run(api, store)
    with FakeApi(records(9)) as moved:
        source = source_of(moved).model_copy(update={"base_url": api.base_url})
        report = run_stream(source, source.streams[0], store, Client(source, moved.base_url))

    assert 5 == report.not_modified


def test_other_credentials_read_every_page_again_and_keep_the_cursor(store):
    with FakeApi(records(9)) as api:
        for token, skipped in (("a", 0), ("a", 5), ("b", 0), ("b", 5)):
            source = source_of(api, cursor={"field": "at"}).model_copy(
                update={"auth": BearerAuth(type="bearer", token=token)}
            )
            report = run_stream(source, source.streams[0], store, Client(source, api.base_url))

            assert skipped == report.not_modified
            assert "2026-01-01T00:00:08+00:00" == report.cursor
        state = store.state(table_spec(source, source.streams[0]))

    assert 5 == len(state.pages)


def test_an_answer_without_content_is_an_empty_page(sqlite):
    with FakeApi(records(4)) as api:
        api.fail(Answer(status=204, body=b""))
        report = run(api, sqlite)

    assert (1, 0) == (report.pages, report.records)


def test_only_changed_pages_are_read_again(store):
    with FakeApi(records(9)) as api:
        run(api, store)
        api.records[4]["name"] = "changed"
        second = run(api, store)

        assert (4, 1, 0, 1) == (second.not_modified, second.updated, second.inserted, second.unchanged)


def test_a_page_added_after_a_full_last_page_is_found_although_that_page_is_unchanged(store):
    with FakeApi(records(8)) as api:
        run(api, store)
        api.records.extend(records(10)[8:])
        second = run(api, store)

        assert list(range(10)) == ids(store, api)
        assert (4, 2) == (second.not_modified, second.inserted)


def test_a_full_last_page_is_read_again_where_304_tells_no_link(sqlite):
    class Terse(FakeApi):
        def answer(self, path, headers):
            found = super().answer(path, headers)
            return (
                Answer(status=304, headers={"ETag": found.headers["ETag"]}, body=b"") if found.status == 304 else found
            )

    with Terse(records(8)) as api:
        run(api, sqlite)
        api.records.extend(records(10)[8:])
        run(api, sqlite)

        assert list(range(10)) == ids(sqlite, api)


def test_new_fields_are_filled_by_reading_everything_again(store):
    wider = {"fields": {"id": "int64", "name": "string", "at": "timestamp", "size": "int32"}}
    with FakeApi(records(5, size=7)) as api:
        run(api, store)
        report = run(api, store, **wider)

    assert (0, 5) == (report.not_modified, report.updated)


def test_faults_on_the_way_change_nothing_in_the_table(store):
    body = b'[{"id": 0}, {"id": 1}]'
    faults = [
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(status=503),
        Answer(body=body, cut=True),
        Answer(status=500),
        Answer(body=body[:10]),
    ]
    with FakeApi(records(9)) as api:
        for fault in faults:
            api.fail(fault)
            run(api, store)

        assert list(range(9)) == ids(store, api)
        assert all(run(api, store).retries == 0 for _ in range(1))


def test_a_slow_answer_times_out_and_is_asked_again(sqlite):
    with FakeApi(records(4)) as api:
        arrived, release = api.hold(page=2)
        with pytest.raises(UpstreamUnavailable):
            run(api, sqlite, http={"timeout_s": 0.2, "retry": RetryPolicy(attempts=2, delay_s=0)})
        release.set()
        run(api, sqlite)

        assert arrived.is_set()
        assert list(range(4)) == ids(sqlite, api)


def test_what_was_committed_before_a_fault_stays_and_is_skipped_next_time(store):
    with FakeApi(records(9)) as api:

        def break_later(report):
            if report.pages == 3:
                api.fail(Answer(status=404))

        with pytest.raises(UpstreamRefused):
            run(api, store, on_page=break_later)
        kept = ids(store, api)
        report = run(api, store)

        assert [0, 1, 2, 3, 4, 5] == kept
        assert (3, 3) == (report.not_modified, report.inserted)
        assert list(range(9)) == ids(store, api)


def test_a_stop_request_ends_between_pages(sqlite):
    stop = StopToken()
    with FakeApi(records(9)) as api:
        with pytest.raises(Stopped):
            run(api, sqlite, stop=stop, on_page=lambda report: stop.set("test") if report.pages == 2 else None)

        assert [0, 1, 2, 3] == ids(sqlite, api)


def test_a_redirect_or_next_link_to_a_foreign_host_is_refused(sqlite):
    foreign = "http://localhost:9/evil"
    answers = [
        Answer(status=302, headers={"Location": foreign}),
        Answer(headers={"Link": f'<{foreign}>; rel="next"'}, body=b'[{"id": 1}]'),
    ]
    for answer in answers:
        with FakeApi(records(2)) as api:
            api.fail(answer)
            with pytest.raises(UntrustedUrl, match="localhost"):
                run(api, sqlite)


def test_an_api_that_ignores_the_page_number_is_noticed(sqlite):
    with FakeApi([]) as api:
        api.fail(*[Answer(body=b'{"data": [{"id": 1}, {"id": 2}]}')] * 3)
        with pytest.raises(PagingLoop):
            run(api, sqlite, "page")


def test_next_links_in_a_circle_and_endless_ones_are_noticed(sqlite):
    with FakeApi([]) as api:
        api.fail(*[Answer(body=b'[{"id": %d}]' % i, headers={"Link": '</link>; rel="next"'}) for i in range(3)])
        with pytest.raises(PagingLoop, match="before"):
            run(api, sqlite)
    with FakeApi(records(20)) as api, pytest.raises(PagingLoop, match="max_pages"):
        run(api, sqlite, paginate={"type": "link_header", "max_pages": 3})


def test_large_and_strange_answers_are_refused(sqlite):
    with FakeApi(records(4, text="x" * 5000)) as api, pytest.raises(ResponseTooLarge):
        run(api, sqlite, http={"max_response_bytes": 2000})
    for body in (b"<html>", b'"text"', b"5"):
        with FakeApi(records(4)) as api:
            api.fail(Answer(body=body))
            with pytest.raises(InvalidResponse):
                run(api, sqlite)


def test_an_answer_that_trickles_too_long_is_given_up(sqlite):
    with FakeApi(records(4)) as api, pytest.raises(UpstreamUnavailable, match="too slowly"):
        run(api, sqlite, http={"max_response_s": 1e-9})


def test_a_bad_record_stops_the_fetch_or_is_counted_as_declared(sqlite):
    mixed = [*records(3), {"id": 9, "name": "bad", "at": "never"}]
    with FakeApi(mixed) as api:
        with pytest.raises(RecordRejected, match="at"):
            run(api, sqlite)
        report = run(api, sqlite, on_bad_record="skip")

        assert 1 == report.rejected
        assert [0, 1, 2] == ids(sqlite, api)


def test_of_records_with_the_same_key_the_one_with_the_later_cursor_wins(store):
    twice = [
        {"id": 1, "name": "new", "at": "2026-01-01T00:00:09Z"},
        {"id": 1, "name": "old", "at": "2026-01-01T00:00:01Z"},
    ]
    for per_page in (1, 2):
        with FakeApi(twice, per_page=per_page, has_etags=False) as api:
            report = run(api, store, cursor={"field": "at"}, batch_rows=1)

            source = source_of(api, cursor={"field": "at"})
            assert b'"new"' in store.get(table_spec(source, source.streams[0]), (1,))
            assert 1 == report.rows


def test_the_cursor_is_sent_with_its_lag_and_saved_only_at_the_end(store):
    incremental = {"cursor": {"field": "at", "lag_s": 2}, "params": {"since": "{cursor}"}, "conditional": "none"}
    with FakeApi(records(9)) as api:

        def break_later(report):
            if report.pages == 3:
                api.fail(Answer(status=404))

        with pytest.raises(UpstreamRefused):
            run(api, store, on_page=break_later, **incremental)
        run(api, store, **incremental)
        report = run(api, store, **incremental)

    firsts = [seen.path for seen in api.seen if "page=" not in seen.path]
    assert ["/link", "/link", "/link?since=2026-01-01T00%3A00%3A06Z"] == firsts
    assert "2026-01-01T00:00:08+00:00" == report.cursor
    assert report.is_unchanged


def test_old_page_states_do_not_pile_up(store):
    incremental = {"cursor": {"field": "at"}, "params": {"since": "{cursor}"}}
    with FakeApi(records(9)) as api:
        for day in range(4):
            api.records.append({"id": 100 + day, "name": "x", "at": f"2026-02-0{day + 1}T00:00:00Z"})
            run(api, store, **incremental)
        source = source_of(api, **incremental)
        state = store.state(table_spec(source, source.streams[0]))

    assert len(state.pages) <= 7


def test_parallel_arrays_are_zipped(sqlite):
    with FakeApi([]) as api:
        api.fail(Answer(body=b'{"hourly": {"id": [1, 2], "name": ["a", null]}}'))
        run(api, sqlite, "all", records="hourly", zip_columns=True)

        assert [1, 2] == ids(sqlite, api)


def test_the_table_is_announced_to_lineage(store):
    events = []
    with FakeApi(records(3)) as api, subscribed(events.append):
        run(api, store)

    (event,) = events
    assert ("wrote", 3, "raw/things") == (event.kind, event.rows, event.asset_key)
    assert [f"{api.base_url}/link"] == list(event.inputs)
    assert {"id", "name", "at"} <= {column.name for column in event.columns}


def test_records_that_do_not_fit_are_kept_aside_with_their_reason_once(store):
    mixed = [*records(3), {"id": 9, "name": "bad", "at": "never"}, "no object", {"id": 8, "name": "x\x00"}]
    with FakeApi(mixed, has_etags=False) as api:
        first = run(api, store, on_bad_record="keep")
        second = run(api, store, on_bad_record="keep")

        assert [0, 1, 2] == ids(store, api)
    found = {each.field: each for each in store.rejects("fake")}

    assert (3, 3) == (first.rejected, second.rejected)
    assert {"at", "", "name"} == found.keys()
    assert {"id": 9, "name": "bad", "at": "never"} == orjson.loads(found["at"].record)
    assert "'never' is not an ISO 8601 timestamp" == found["at"].reason
    assert {second.load_id} == {each.load_id for each in found.values()}


def test_a_store_of_before_gets_the_table_of_rejects(store):
    with FakeApi(records(3)) as api:
        run(api, store)
        forget_rejects_table(store)
        api.records.append({"id": 9, "at": "never"})
        run(api, store, on_bad_record="keep")

    assert 1 == len(store.rejects("fake"))


def forget_rejects_table(store):
    """Make the store as it was before rejects were kept."""
    if store.is_local:
        with closing(sqlite3.connect(store.path)) as connection:
            connection.execute("DROP TABLE tidemill_ingest_rejects")
        return
    with connect(store._dsn, autocommit=True, application="test") as connection:
        connection.execute("DROP TABLE tidemill_ingest.rejects")
