"""Walk a stream's pages: ask conditionally, skip what did not change, stop when paging loops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.errors import InvalidResponse, PagingLoop, UpstreamUnavailable
from tidemill_ingest_api.fetching.client import NO_CONTENT, NOT_MODIFIED, Client
from tidemill_ingest_api.fetching.first import Values, first_request
from tidemill_ingest_api.http.messages import Response
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.paging import PageContent, PageRequest, open_pager
from tidemill_ingest_api.paths import dig
from tidemill_ingest_api.stores._base import PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page; `key` names it in the store, whatever host serves it today."""

    key: str
    following: PageRequest | None
    next_key: str | None
    is_unchanged: bool = False
    records: Sequence[Any] = ()
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None


def read_pages(
    source: SourceConfig, stream: StreamConfig, client: Client, known: Mapping[str, PageState], values: Values
) -> Iterator[Page]:
    """Yield a stream's pages in order.

    Args:
        source: Says how many pages are fetched at once.
        stream: What to read.
        client: Asks the API.
        known: Page states of the last fetch, by key.
        values: Replace ``{name}`` in path, parameters and body.

    Raises:
        PagingLoop: A page came twice, or there are more than `max_pages`.
        InvalidResponse: A page is not what the stream declares.
        UpstreamError: As `Client.get`.
    """
    walk = _Walk(stream, client, known)
    request: PageRequest | None = first_request(client.base_url, stream, values)
    while request is not None:
        page, content = walk.fetch(request)
        yield walk.checked(page, request)
        others = walk.pager.others(content) if content and source.http.concurrency > 1 else ()
        if others:
            yield from _at_once(walk, [each for each in others if not walk.has_seen(each)], source)
            return
        request = page.following


def _at_once(walk: _Walk, requests: Sequence[PageRequest], source: SourceConfig) -> Iterator[Page]:
    """Fetch known pages on threads, a window ahead, and yield them in order."""
    with ThreadPoolExecutor(source.http.concurrency, thread_name_prefix="ingest") as pool:
        pending: list[tuple[PageRequest, Future[tuple[Page, PageContent | None]]]] = []
        rest = iter(requests)
        try:
            while True:
                while len(pending) < source.http.concurrency * 2 and (request := next(rest, None)) is not None:
                    pending.append((request, pool.submit(walk.fetch, request)))
                if not pending:
                    return
                request, future = pending.pop(0)
                yield walk.checked(future.result()[0], request)
        finally:
            for _, future in pending:
                future.cancel()


class _Walk:
    """What a walk over pages remembers."""

    def __init__(self, stream: StreamConfig, client: Client, known: Mapping[str, PageState]) -> None:
        self._stream, self._client = stream, client
        self.pager = open_pager(stream.paginate)
        self._known = known if stream.conditional == "etag" else {}
        self.seen: set[str] = set()
        self._last: Sequence[Any] = ()
        self._reader = client.fingerprint
        self._has_next_in_304 = False

    def key(self, url: str) -> str:
        """Write a URL below base_url without it, so that a new host or port keeps the state."""
        base = self._client.base_url
        return url.removeprefix(base) if url.startswith(base) else url

    def _state_key(self, request: PageRequest) -> str:
        """Name a page's state: other credentials have other ETags, so they have other states."""
        key = self.key(request.url)
        if request.body is not None:
            key += " " + orjson.dumps(request.body, option=orjson.OPT_SORT_KEYS).decode()
        return f"{key}#{self._reader}" if self._reader else key

    def _remembered(self, key: str | None) -> PageRequest | None:
        """Turn a remembered key back into a request; only pages without a body are remembered."""
        if key is None:
            return None
        return PageRequest(url=key if key.startswith(("http://", "https://")) else self._client.base_url + key)

    def fetch(self, request: PageRequest) -> tuple[Page, PageContent | None]:
        """Ask for one page; the content is None when it did not change."""
        key = self._state_key(request)
        state = self._known.get(key)
        headers: dict[str, str] = {}
        if state is not None:
            etag, modified = _echoed(state.etag), _echoed(state.last_modified)
            headers |= {"if-none-match": etag} if etag else {}
            headers |= {"if-modified-since": modified} if modified else {}
        answer = self._ask(request, headers)
        if answer.status == NOT_MODIFIED:
            if state is None:
                raise UpstreamUnavailable(shown(request.url), "304 to a request without a condition")
            following = self._after_unchanged(state, request, answer)
            if following is None and self._may_have_grown(state):
                answer = self._ask(request, {})  # a full last page does not show a new one
            else:
                return self._page(key, following, is_unchanged=True), None
        records = [] if answer.status == NO_CONTENT else find_records(self._stream, answer.value, answer.url)
        content = PageContent(request=request, headers=answer.headers, body=answer.value, records=len(records))
        remember = self._stream.conditional == "etag"
        page = self._page(
            key,
            self._cleaned(self.pager.following(content)),
            records=records,
            etag=_echoed(answer.headers.get("etag")) if remember else None,
            last_modified=_echoed(answer.headers.get("last-modified")) if remember else None,
            total=self.pager.total(answer.value),
        )
        return page, content

    def _ask(self, request: PageRequest, headers: Mapping[str, str]) -> Response:
        method, body = self._stream.method, None
        if method == "POST":
            body = orjson.dumps(request.body if request.body is not None else {})
            headers = {"content-type": "application/json", **headers}
        return self._client.get(request.url, stream=self._stream.name, headers=headers, method=method, body=body)

    def _page(self, key: str, following: PageRequest | None, **more: Any) -> Page:
        next_key = self.key(following.url) if following is not None and following.body is None else None
        return Page(key=key, following=following, next_key=next_key, **more)

    def _cleaned(self, request: PageRequest | None) -> PageRequest | None:
        """Take our own secret out of a URL that the API gave back."""
        return replace(request, url=self._client.clean(request.url)) if request is not None else None

    def _after_unchanged(self, state: PageState, request: PageRequest, answer: Response) -> PageRequest | None:
        """Find the page after one that did not change: its 304 knows better than we do."""
        if self.pager.next_header is not None and self.pager.next_header in answer.headers:
            self._has_next_in_304 = True
            content = PageContent(request=request, headers=answer.headers, body=None, records=state.records)
            return self._cleaned(self.pager.following(content))
        return self._remembered(state.next)

    def _may_have_grown(self, state: PageState) -> bool:
        """Tell whether pages may follow a last page whose 304 does not say: it was as full as any other."""
        if self.pager.next_header is None or self._has_next_in_304:
            return False  # the next page stands in the body, or this API would have said so
        return state.records >= max(each.records for each in self._known.values())

    def has_seen(self, request: PageRequest) -> bool:
        """Whether this page was read in this run."""
        return self._state_key(request) in self.seen

    def checked(self, page: Page, request: PageRequest) -> Page:
        """Refuse a page that shows that paging goes round in circles."""
        url = shown(request.url)
        if page.key in self.seen:
            raise PagingLoop(url, "this page was fetched before in this run")
        self.seen.add(page.key)
        if len(self.seen) > self._stream.paginate.max_pages:
            raise PagingLoop(url, f"more than max_pages ({self._stream.paginate.max_pages}) pages")
        if page.records and page.records == self._last:
            raise PagingLoop(url, "the page is equal to the one before; the API ignores the page parameter")
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
