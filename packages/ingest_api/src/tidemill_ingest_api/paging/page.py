"""Pages by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, PlacePaging, whole_number


class PageNumberPaging(PlacePaging):
    """Count pages up until one is empty or short."""

    type: Literal["page"]
    param: str = "page"
    """Parameter of the page number."""
    start: int = 1
    """Number of the first page."""
    size_param: str | None = None
    """Parameter of the page size; unset means the API decides."""
    size: int | None = Field(default=None, gt=0)
    """Records per page; a shorter page is the last one."""
    total_pages: str | None = None
    """Path to the number of pages in the body; allows fetching pages at once."""

    @property
    def counts_pages(self) -> bool:
        """Its total is one of pages."""
        return True


class PageNumbers(Pager):
    """Counts up."""

    config_type = PageNumberPaging

    def __init__(self, config: PageNumberPaging) -> None:
        self._config = config

    def first(self, request: PageRequest) -> PageRequest:
        """Ask for the first number, and the size where it is given."""
        config = self._config
        request = self._at(request, config.start)
        if config.size_param and config.size:
            request = request.with_param(config.size_param, config.size, place=config.place)
        return request

    def following(self, page: PageContent) -> PageRequest | None:
        """Ask for the next number, unless the total or a short page says that there is none."""
        config = self._config
        number = page.request.number(config.param, config.start, place=config.place)
        count = self.total(page.body)
        if count is not None:
            is_last = number - config.start + 1 >= count
        else:
            is_last = page.records == 0 or (config.size is not None and page.records < config.size)
        return None if is_last else self._at(page.request, number + 1)

    def others(self, page: PageContent) -> Sequence[PageRequest]:
        """List the numbers up to the total."""
        count, config = self.total(page.body), self._config
        if count is None:
            return ()
        numbers = range(config.start + 1, config.start + min(count, config.max_pages + 1))
        return [self._at(page.request, number) for number in numbers]

    def total(self, body: Any) -> int | None:
        """Read the number of pages."""
        return whole_number(body, self._config.total_pages)

    def _at(self, request: PageRequest, number: int) -> PageRequest:
        return request.with_param(self._config.param, number, place=self._config.place)
