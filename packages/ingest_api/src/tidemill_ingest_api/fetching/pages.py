"""Walk a stream's pages: ask conditionally, skip what did not change, stop when paging loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tidemill_ingest_api.config import CursorPaging, LinkHeaderPaging, SourceConfig, StreamConfig
from tidemill_ingest_api.errors import InvalidResponse, PagingLoop, UpstreamUnavailable
from tidemill_ingest_api.fetching.client import NO_CONTENT, NOT_MODIFIED, Client
from tidemill_ingest_api.fetching.paginate import PageContent, first_url, next_url, other_urls, told_total
from tidemill_ingest_api.fetching.transport import Response
from tidemill_ingest_api.fetching.urls import shown
from tidemill_ingest_api.records.flatten import dig
from tidemill_ingest_api.stores._base import PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page; `key` names it in the store, whatever host serves it today."""

    key: str
    next_key: str | None
    is_unchanged: bool = False
    records: Sequence[Any] = ()
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None


def read_pages(
    source: SourceConfig, stream: StreamConfig, client: Client, known: Mapping[str, PageState], cursor: str | None
) -> Iterator[Page]:
    """Yield a stream's pages in order.

    Args:
        source: Says how many pages are fetched at once.
        stream: What to read.
        client: Asks the API.
        known: Page states of the last fetch, by key.
        cursor: Replaces ``{cursor}`` in parameters.

    Raises:
        PagingLoop: A page came twice, or there are more than `max_pages`.
        InvalidResponse: A page is not what the stream declares.
        UpstreamError: As `Client.get`.
    """
    walk = _Walk(stream, client, known)
    url: str | None = first_url(client.base_url, stream, cursor)
    while url is not None:
        page, content = walk.fetch(url)
        yield walk.checked(page, url)
        others = other_urls(stream.paginate, content) if content and source.http.concurrency > 1 else ()
        if others:
            yield from _at_once(walk, [each for each in others if not walk.has_seen(each)], source)
            return
        url = walk.url(page.next_key)


def _at_once(walk: _Walk, urls: Sequence[str], source: SourceConfig) -> Iterator[Page]:
    """Fetch known pages on threads, a window ahead, and yield them in order."""
    with ThreadPoolExecutor(source.http.concurrency, thread_name_prefix="ingest") as pool:
        pending: list[tuple[str, Future[tuple[Page, PageContent | None]]]] = []
        rest = iter(urls)
        try:
            while True:
                while len(pending) < source.http.concurrency * 2 and (url := next(rest, None)) is not None:
                    pending.append((url, pool.submit(walk.fetch, url)))
                if not pending:
                    return
                url, future = pending.pop(0)
                yield walk.checked(future.result()[0], url)
        finally:
            for _, future in pending:
                future.cancel()


class _Walk:
    """What a walk over pages remembers."""

    def __init__(self, stream: StreamConfig, client: Client, known: Mapping[str, PageState]) -> None:
        self._stream, self._client = stream, client
        self._known = known if stream.conditional == "etag" else {}
        self.seen: set[str] = set()
        self._last: Sequence[Any] = ()
        self._reader = client.fingerprint
        self._has_links_in_304 = False

    def key(self, url: str) -> str:
        """Write a URL below base_url without it, so that a new host or port keeps the state."""
        base = self._client.base_url
        return url.removeprefix(base) if url.startswith(base) else url

    def _state_key(self, url: str) -> str:
        """Name a page's state: other credentials have other ETags, so they have other states."""
        return f"{self.key(url)}#{self._reader}" if self._reader else self.key(url)

    def url(self, key: str | None) -> str | None:
        """Turn a key back into a URL."""
        if key is None or key.startswith(("http://", "https://")):
            return key
        return self._client.base_url + key

    def fetch(self, url: str) -> tuple[Page, PageContent | None]:
        """Ask for one page; the content is None when it did not change."""
        key = self._state_key(url)
        state = self._known.get(key)
        headers: dict[str, str] = {}
        if state is not None:
            etag, modified = _echoed(state.etag), _echoed(state.last_modified)
            headers |= {"if-none-match": etag} if etag else {}
            headers |= {"if-modified-since": modified} if modified else {}
        answer = self._client.get(url, stream=self._stream.name, headers=headers)
        if answer.status == NOT_MODIFIED:
            if state is None:
                raise UpstreamUnavailable(shown(url), "304 to a request without a condition")
            following = self._after_unchanged(state, url, answer)
            if following is None and self._may_have_grown(state):
                answer = self._client.get(url, stream=self._stream.name)  # a full last page does not show a new one
            else:
                return Page(key=key, next_key=following, is_unchanged=True), None
        records = [] if answer.status == NO_CONTENT else find_records(self._stream, answer.value, answer.url)
        content = PageContent(url=url, headers=answer.headers, body=answer.value, records=len(records))
        following = next_url(self._stream.paginate, content)
        remember = self._stream.conditional == "etag"
        page = Page(
            key=key,
            next_key=self.key(self._client.clean(following)) if following else None,
            records=records,
            etag=_echoed(answer.headers.get("etag")) if remember else None,
            last_modified=_echoed(answer.headers.get("last-modified")) if remember else None,
            total=told_total(self._stream.paginate, answer.value),
        )
        return page, content

    def _after_unchanged(self, state: PageState, url: str, answer: Response) -> str | None:
        """Find the page after one that did not change: its 304 knows better than we do."""
        if isinstance(self._stream.paginate, LinkHeaderPaging) and "link" in answer.headers:
            self._has_links_in_304 = True
            content = PageContent(url=url, headers=answer.headers, body=None, records=state.records)
            following = next_url(self._stream.paginate, content)
            return self.key(self._client.clean(following)) if following else None
        return state.next

    def _may_have_grown(self, state: PageState) -> bool:
        """Tell whether pages may follow a last page whose 304 does not say: it was as full as any other."""
        paging = self._stream.paginate
        if isinstance(paging, LinkHeaderPaging) and self._has_links_in_304:
            return False  # this API would have said so
        is_outside = isinstance(paging, LinkHeaderPaging) or (isinstance(paging, CursorPaging) and paging.header)
        return bool(is_outside) and state.records >= max(each.records for each in self._known.values())

    def has_seen(self, url: str) -> bool:
        """Whether this page was read in this run."""
        return self._state_key(url) in self.seen

    def checked(self, page: Page, url: str) -> Page:
        """Refuse a page that shows that paging goes round in circles."""
        if page.key in self.seen:
            raise PagingLoop(shown(url), "this page was fetched before in this run")
        self.seen.add(page.key)
        if len(self.seen) > self._stream.paginate.max_pages:
            raise PagingLoop(shown(url), f"more than max_pages ({self._stream.paginate.max_pages}) pages")
        if page.records and page.records == self._last:
            raise PagingLoop(shown(url), "the page is equal to the one before; the API ignores the page parameter")
        self._last = page.records
        return page


def _echoed(value: str | None) -> str | None:
    """Give a header's value that we may send back: the server chose it, so only what a header can carry."""
    return value if value and value.isascii() and value.isprintable() else None


def find_records(stream: StreamConfig, body: Any, url: str) -> list[Any]:
    """Take the records out of a body.

    Raises:
        InvalidResponse: There is no list or object where `records` points.
    """
    found = dig(body, stream.records.split(".")) if stream.records else body
    where = f"at {stream.records!r}" if stream.records else "as the body"
    if stream.zip_columns:
        return _zipped(found, url, where)
    if isinstance(found, list):
        return found
    if isinstance(found, dict):
        return [found]
    raise InvalidResponse(shown(url), f"a list of records was expected {where}, {type(found).__name__} found")


def _zipped(found: Any, url: str, where: str) -> list[Any]:
    """Turn parallel arrays into records."""
    if not isinstance(found, dict) or not all(isinstance(column, list) for column in found.values()):
        raise InvalidResponse(shown(url), f"an object of parallel arrays was expected {where}")
    if len({len(column) for column in found.values()}) > 1:
        raise InvalidResponse(shown(url), f"the arrays {where} differ in length")
    names = list(found)
    return [dict(zip(names, values, strict=True)) for values in zip(*found.values(), strict=True)]
