"""Decide which page comes next: pure functions from an answer to the next URL.

A page's URL is all the state there is, so it can be remembered with the page's ETag
and a skipped page (304) still knows its successor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from tidemill_ingest_api import config
from tidemill_ingest_api.errors import InvalidResponse
from tidemill_ingest_api.records.flatten import dig

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^",;=]+(?:=(?:"[^"]*"|[^",;]*))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """What paging needs of an answer."""

    url: str
    headers: Mapping[str, str]
    body: Any
    records: int


def first_url(base_url: str, stream: config.StreamConfig, cursor: str | None) -> str:
    """Write the URL of a stream's first page; parameters that need a missing cursor are left out."""
    url = base_url + ("/" + stream.path.lstrip("/") if stream.path else "")
    params: dict[str, str] = {}
    for name, value in stream.params.items():
        text = _text(value)
        if config.CURSOR_PLACEHOLDER in text:
            if cursor is None:
                continue
            text = text.replace(config.CURSOR_PLACEHOLDER, cursor)
        params[name] = text
    match stream.paginate:
        case config.PageNumberPaging() as paging:
            params[paging.param] = str(paging.start)
            if paging.size_param and paging.size:
                params[paging.size_param] = str(paging.size)
        case config.OffsetPaging() as paging:
            params[paging.param] = "0"
            params[paging.limit_param] = str(paging.limit)
    return with_params(url, params)


def next_url(paging: config.Paginate, page: PageContent) -> str | None:
    """Find the page after this one; None when this is the last.

    Raises:
        InvalidResponse: The place that should name the next page holds something else.
    """
    match paging:
        case config.LinkHeaderPaging():
            found = links(page.headers.get("link", "")).get(paging.rel.lower())
            return urljoin(page.url, found) if found else None
        case config.NextUrlPaging():
            return _next_in_body(page, paging.path)
        case config.CursorPaging():
            token = page.headers.get(paging.header.lower()) if paging.header else dig(page.body, _split(paging.path))
            return with_params(page.url, {paging.param: _text(token)}) if token not in (None, "", False) else None
        case config.PageNumberPaging():
            return _next_number(paging, page)
        case config.OffsetPaging():
            return _next_offset(paging, page)
        case _:
            return None


def other_urls(paging: config.Paginate, page: PageContent) -> Sequence[str]:
    """List every page after the first, where the first one says how many there are; else nothing."""
    match paging:
        case config.PageNumberPaging(total_pages=str() as path):
            count = dig(page.body, path.split("."))
            if isinstance(count, int):
                numbers = range(paging.start + 1, paging.start + min(count, paging.max_pages + 1))
                return [with_params(page.url, {paging.param: str(number)}) for number in numbers]
        case config.OffsetPaging(total=str() as path):
            total = dig(page.body, path.split("."))
            if isinstance(total, int):
                offsets = range(paging.limit, min(total, paging.limit * (paging.max_pages + 1)), paging.limit)
                return [with_params(page.url, {paging.param: str(offset)}) for offset in offsets]
        case config.LinkHeaderPaging(rel="next"):
            return _between(page, paging.max_pages)
    return ()


def told_total(paging: config.Paginate, body: Any) -> int | None:
    """Read how many pages or records there are, where the paging knows the place; else None."""
    match paging:
        case config.PageNumberPaging(total_pages=str() as path) | config.OffsetPaging(total=str() as path):
            found = dig(body, path.split("."))
            return found if isinstance(found, int) else None
    return None


def links(header: str) -> dict[str, str]:
    """Read a Link header (RFC 8288) into relation -> URL.

    >>> links('<https://x/?page=2>; rel="next", <https://x/?page=9>; rel=last')
    {'next': 'https://x/?page=2', 'last': 'https://x/?page=9'}
    """
    found: dict[str, str] = {}
    for url, parameters in _LINK.findall(header):
        for quoted, bare in _REL.findall(parameters):
            for relation in (quoted or bare).lower().split():
                found.setdefault(relation, url)
    return found


def with_params(url: str, params: Mapping[str, str]) -> str:
    """Set query parameters, keeping the others and their order."""
    if not params:
        return url
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in params]
    return urlunsplit(parts._replace(query=urlencode([*kept, *params.items()])))


def _between(page: PageContent, max_pages: int) -> Sequence[str]:
    """Count from rel=next to rel=last where they differ in one number only."""
    named = links(page.headers.get("link", ""))
    if "next" not in named or "last" not in named:
        return ()
    following, last = urljoin(page.url, named["next"]), urljoin(page.url, named["last"])
    after, end = dict(parse_qsl(urlsplit(following).query)), dict(parse_qsl(urlsplit(last).query))
    differ = [name for name in after if after[name] != end.get(name)]
    if after.keys() != end.keys() or len(differ) > 1:
        return ()
    if not differ:
        return [following]
    name = differ[0]
    here = dict(parse_qsl(urlsplit(page.url).query)).get(name, "1")
    if not (after[name].isdigit() and end[name].isdigit() and here.isdigit() and int(after[name]) == int(here) + 1):
        return ()
    stop = min(int(end[name]), int(after[name]) + max_pages)
    return [with_params(following, {name: str(number)}) for number in range(int(after[name]), stop + 1)]


def _next_in_body(page: PageContent, path: str) -> str | None:
    found = dig(page.body, path.split("."))
    if found in (None, "", False):
        return None
    if not isinstance(found, str):
        raise InvalidResponse(page.url, f"{path!r} should hold a URL and holds {type(found).__name__}")
    return urljoin(page.url, found)


def _next_number(paging: config.PageNumberPaging, page: PageContent) -> str | None:
    number = _number(page.url, paging.param, paging.start)
    if paging.total_pages is not None:
        count = dig(page.body, paging.total_pages.split("."))
        if isinstance(count, int):
            is_last = number - paging.start + 1 >= count
            return None if is_last else with_params(page.url, {paging.param: str(number + 1)})
    if page.records == 0 or (paging.size is not None and page.records < paging.size):
        return None
    return with_params(page.url, {paging.param: str(number + 1)})


def _next_offset(paging: config.OffsetPaging, page: PageContent) -> str | None:
    after = _number(page.url, paging.param, 0) + paging.limit
    if paging.total is not None:
        total = dig(page.body, paging.total.split("."))
        if isinstance(total, int):
            return with_params(page.url, {paging.param: str(after)}) if after < total else None
    return with_params(page.url, {paging.param: str(after)}) if page.records >= paging.limit else None


def _number(url: str, param: str, default: int) -> int:
    text = dict(parse_qsl(urlsplit(url).query)).get(param, "")
    return int(text) if text.lstrip("-").isdigit() else default


def _split(path: str | None) -> list[str]:
    return path.split(".") if path else []


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
