"""Pages by a URL in the body."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal
from urllib.parse import urljoin

from tidemill_ingest_api.errors import InvalidResponse
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, Paging
from tidemill_ingest_api.paths import dig


class NextUrlPaging(Paging):
    """Follow a URL found in the body."""

    type: Literal["next_url"]
    path: str = "next"
    """Path to the URL in the body."""


class NextUrls(Pager):
    """Follows URLs."""

    config_type = NextUrlPaging

    def __init__(self, config: NextUrlPaging) -> None:
        self._config = config

    def following(self, page: PageContent) -> PageRequest | None:
        """Take the URL, relative to this page's."""
        found = dig(page.body, self._config.path.split("."))
        if found in (None, "", False):
            return None
        if not isinstance(found, str):
            reason = f"{self._config.path!r} should hold a URL and holds {type(found).__name__}"
            raise InvalidResponse(shown(page.url), reason)
        return replace(page.request, url=urljoin(page.url, found))
