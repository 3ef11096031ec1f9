"""A page that is searched says what a page that is parsed says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.storage import StoreUnavailable, _listing
from tidemill_core.storage._listing import columns, parse

_TEXT = st.text(alphabet="ab%2F+<>&\"'é-", max_size=8)
_ROWS = st.lists(st.tuples(_TEXT, st.integers(0, 9), _TEXT), max_size=6)


def escaped(text, quote):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', quote)


def page(rows, *, quote="&quot;", token=None, extra=""):
    items = "".join(
        f"<Contents><Key>{escaped(key, quote)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
        f"<ETag>{escaped(etag, quote)}</ETag><Size>{size}</Size>{extra}</Contents>"
        for key, size, etag in rows
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    ended = more if token else "<IsTruncated>false</IsTruncated>"
    return f'<?xml version="1.0"?><ListBucketResult xmlns="urn:s3">{ended}{items}</ListBucketResult>'.encode()


@given(rows=_ROWS, quote=st.sampled_from(["&quot;", "&#34;", '"']), token=st.sampled_from([None, "next=="]))
def test_every_page_is_read_as_it_was_written(rows, quote, token):
    found = columns(page(rows, quote=quote, token=token), "s3://b", "list")

    assert list(zip(found.keys, map(int, found.sizes), found.etags, strict=True)) == rows
    assert found.token == token


def test_a_plain_page_is_not_parsed(monkeypatch):
    monkeypatch.setattr(_listing, "parse", lambda *_: pytest.fail("parsed"))

    assert columns(page([("a", 1, '"e"')]), "s3://b", "list").keys == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"<Key>", b"<Key ><!-- <Key>b</Key> -->"),
        lambda text: text.replace(b"<Key>a</Key>", b"<Key><![CDATA[a]]></Key>"),
        lambda text: text.replace(b"<Contents>", b'<Contents class="x">'),
        lambda text: text.replace(b"<ListBucketResult xmlns=", b"<ListBucketResult xmlns:x='y' xmlns="),
        lambda text: text.replace(b"<Size>", b"<Owner><ID>a&amp;b</ID></Owner><Size>"),
        lambda text: text.replace(b"<Size>1</Size>", b"<Size/>"),
    ],
)
def test_an_odd_page_is_read_as_by_the_parser(change):
    odd = change(page([("a", 1, "e")]))
    (row,) = parse(odd, "s3://b", "list").rows("Contents", ("Key", "Size", "ETag"))

    found = columns(odd, "s3://b", "list")

    assert [found.keys[0], found.sizes[0], found.etags[0]] == row


@pytest.mark.parametrize("end", range(1, 400, 7))
def test_a_page_that_is_cut_is_never_a_short_one(end):
    whole = page([("a", 1, "e"), ("b", 2, "f")])

    with pytest.raises(StoreUnavailable):
        columns(whole[:-end], "s3://b", "list")


def test_an_error_is_no_empty_page():
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        columns(b"<Error><Code>SlowDown</Code></Error>", "s3://b", "list")
