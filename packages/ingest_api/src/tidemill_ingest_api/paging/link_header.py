"""Pages by the header ``Link`` (RFC 8288)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from urllib.parse import parse_qsl, urljoin, urlsplit

from tidemill_ingest_api.http.urls import with_params
from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, Paging

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^",;=]+(?:=(?:"[^"]*"|[^",;]*))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


class LinkHeaderPaging(Paging):
    """Follow ``Link: <url>; rel="next"``."""

    type: Literal["link_header"]
    rel: str = "next"
    """Relation to follow."""


class LinkHeaders(Pager):
    """Follows links."""

    config_type = LinkHeaderPaging

    def __init__(self, config: LinkHeaderPaging) -> None:
        self._config = config

    @property
    def next_header(self) -> str | None:
        """The header itself."""
        return "link"

    def following(self, page: PageContent) -> PageRequest | None:
        """Take the link, relative to this page's URL."""
        found = links(page.headers.get("link", "")).get(self._config.rel.lower())
        return replace(page.request, url=urljoin(page.url, found)) if found else None

    def others(self, page: PageContent) -> Sequence[PageRequest]:
        """Count up to ``rel="last"``."""
        if self._config.rel != "next":
            return ()
        return [replace(page.request, url=url) for url in _between(page, self._config.max_pages)]


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
