"""One page."""

from __future__ import annotations

from typing import Literal

from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, Paging


class SinglePage(Paging):
    """The whole answer is one page."""

    type: Literal["single"] = "single"


class Single(Pager):
    """There is no next page."""

    config_type = SinglePage

    def __init__(self, config: SinglePage) -> None:
        self.config = config

    def following(self, page: PageContent) -> PageRequest | None:  # noqa: ARG002  # the contract
        """Nothing follows."""
        return None
