"""Pages by the number of records before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, PlacePaging, whole_number


class OffsetPaging(PlacePaging):
    """Skip the records already seen."""

    type: Literal["offset"]
    param: str = "offset"
    """Parameter of the offset."""
    limit_param: str = "limit"
    """Parameter of the page size."""
    limit: int = Field(default=100, gt=0)
    """Records per page; a shorter page is the last one."""
    total: str | None = None
    """Path to the number of records in the body; allows fetching pages at once."""


class Offsets(Pager):
    """Steps over what was seen."""

    config_type = OffsetPaging

    def __init__(self, config: OffsetPaging) -> None:
        self._config = config

    def first(self, request: PageRequest) -> PageRequest:
        """Ask for the first records."""
        request = self._at(request, 0)
        return request.with_param(self._config.limit_param, self._config.limit, place=self._config.place)

    def following(self, page: PageContent) -> PageRequest | None:
        """Step on, unless the total or a short page says that there is no more."""
        config = self._config
        after = page.request.number(config.param, 0, place=config.place) + config.limit
        total = self.total(page.body)
        has_more = after < total if total is not None else page.records >= config.limit
        return self._at(page.request, after) if has_more else None

    def others(self, page: PageContent) -> Sequence[PageRequest]:
        """List the offsets up to the total."""
        total, config = self.total(page.body), self._config
        if total is None:
            return ()
        end = min(total, config.limit * (config.max_pages + 1))
        return [self._at(page.request, offset) for offset in range(config.limit, end, config.limit)]

    def total(self, body: Any) -> int | None:
        """Read the number of records."""
        return whole_number(body, self._config.total)

    def _at(self, request: PageRequest, offset: int) -> PageRequest:
        return request.with_param(self._config.param, offset, place=self._config.place)
