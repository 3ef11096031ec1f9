"""Paging: from an answer to the next URL."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_ingest_api import config
from tidemill_ingest_api.errors import InvalidResponse
from tidemill_ingest_api.fetching import first
from tidemill_ingest_api.http.urls import with_params
from tidemill_ingest_api.paging import PageContent, PageRequest, open_pager
from tidemill_ingest_api.paging.cursor import CursorPaging
from tidemill_ingest_api.paging.link_header import LinkHeaderPaging, links
from tidemill_ingest_api.paging.next_url import NextUrlPaging
from tidemill_ingest_api.paging.offset import OffsetPaging
from tidemill_ingest_api.paging.page import PageNumberPaging


def stream(**more):
    return config.StreamConfig(name="s", primary_key=["id"], fields={"id": "int64"}, **more)


def page(url="http://h/x", body=None, records=2, **headers):
    return PageContent(request=PageRequest(url=url), headers=headers, body=body, records=records)


def first_url(base_url, stream, cursor):
    return first.first_url(base_url, stream, {"cursor": cursor})


def next_url(paging, page):
    found = open_pager(paging).following(page)
    return found.url if found else None


def other_urls(paging, page):
    return tuple(each.url for each in open_pager(paging).others(page))


def test_link_header_names_the_next_page_relative_to_this_one():
    paging = LinkHeaderPaging(type="link_header")

    assert "http://h/x?page=2" == next_url(paging, page(link='</x?page=9>; rel="last", </x?page=2>; rel="next"'))
    assert next_url(paging, page(link='</x?page=1>; rel="prev"')) is None
    assert next_url(paging, page()) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<http://x/?a=1,2&b=3>; rel="next"', {"next": "http://x/?a=1,2&b=3"}),
        ('<http://x/1>; title="a, b"; rel="next last"', {"next": "http://x/1", "last": "http://x/1"}),
        ("<http://x/1>;rel=next", {"next": "http://x/1"}),
        ("<http://x/1>", {}),
        ("", {}),
        ("garbage", {}),
    ],
)
def test_link_headers_of_many_writers_are_read(header, expected):
    assert expected == links(header)


@given(st.text(max_size=200))
def test_any_link_header_is_read_without_an_error(text):
    links(text)


def test_page_numbers_end_at_a_short_or_empty_page_or_at_the_total():
    sized = PageNumberPaging(type="page", size=2)
    counted = PageNumberPaging(type="page", total_pages="pages")

    assert "http://h/x?page=2" == next_url(sized, page("http://h/x?page=1"))
    assert next_url(sized, page("http://h/x?page=2", records=1)) is None
    assert next_url(PageNumberPaging(type="page"), page(records=0)) is None
    assert "http://h/x?page=3" == next_url(counted, page("http://h/x?page=2", {"pages": 3}))
    assert next_url(counted, page("http://h/x?page=3", {"pages": 3})) is None


@given(total=st.integers(0, 500), limit=st.integers(1, 60))
def test_offset_paging_covers_every_record_once(total, limit):
    paging = OffsetPaging(type="offset", limit=limit)
    url, seen = first_url("http://h", stream(paginate=paging), None), []

    while url:
        offset = int(dict(parse_qsl(urlsplit(url).query))["offset"])
        found = range(offset, min(offset + limit, total))
        seen += found
        url = next_url(paging, page(url, records=len(found)))

    assert list(range(total)) == seen


@given(total=st.integers(1, 300), limit=st.integers(1, 60))
def test_known_totals_list_the_pages_that_following_would_meet(total, limit):
    paging = OffsetPaging(type="offset", limit=limit, total="total")
    first = first_url("http://h", stream(paginate=paging), None)
    followed, url = [], first

    while url := next_url(paging, page(url, {"total": total})):
        followed.append(url)

    assert followed == list(other_urls(paging, page(first, {"total": total})))


def test_link_header_with_a_numbered_last_page_lists_all_pages():
    paging = LinkHeaderPaging(type="link_header")
    header = '</x?n=5&page=2>; rel="next", </x?n=5&page=4>; rel="last"'

    found = other_urls(paging, page("http://h/x?n=5", link=header))

    assert [f"http://h/x?n=5&page={number}" for number in (2, 3, 4)] == list(found)


def test_link_header_with_an_opaque_token_lists_nothing():
    header = '</x?token=abc>; rel="next", </x?token=xyz>; rel="last"'

    assert () == other_urls(LinkHeaderPaging(type="link_header"), page(link=header))


def test_tokens_and_urls_in_the_body_are_followed():
    token, url = CursorPaging(type="cursor", path="meta.next"), NextUrlPaging(type="next_url")

    assert "http://h/x?cursor=a%2Fb" == next_url(token, page(body={"meta": {"next": "a/b"}}))
    assert next_url(token, page(body={"meta": {"next": ""}})) is None
    assert "http://h/y" == next_url(url, page(body={"next": "/y"}))
    with pytest.raises(InvalidResponse):
        next_url(url, page(body={"next": {"href": "/y"}}))


def test_a_token_in_a_header_is_followed():
    paging = CursorPaging(type="cursor", header="X-Next")

    assert "http://h/x?cursor=t" == next_url(
        paging, PageContent(request=PageRequest(url="http://h/x"), headers={"x-next": "t"}, body=[], records=1)
    )


def test_parameters_without_a_cursor_are_left_out_the_first_time():
    incremental = stream(path="/x", params={"since": "{cursor}", "state": "all", "flag": True})

    assert "http://h/x?state=all&flag=true" == first_url("http://h", incremental, None)
    assert "http://h/x?since=2026-01-01T00%3A00%3A00Z&state=all&flag=true" == first_url(
        "http://h", incremental, "2026-01-01T00:00:00Z"
    )


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8), max_size=4))
def test_parameters_survive_being_written_into_a_url(params):
    url = with_params("http://h/x?kept=1", {name: value for name, value in params.items() if name != "kept"})

    expected = {"kept": "1"} | {name: value for name, value in params.items() if name != "kept"}
    assert expected == dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
