"""Pages by a token that came with the last one."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from tidemill_ingest_api.errors import InvalidResponse
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, Paging, Place
from tidemill_ingest_api.paths import dig


class CursorPaging(Paging):
    """Send back a token that came with the last page."""

    type: Literal["cursor"]
    param: str = "cursor"
    """Parameter that carries the token."""
    path: str | None = None
    """Path to the token in the body."""
    header: str | None = None
    """Header with the token."""
    place: Place = "query"
    """Where the token goes: the query, or the JSON body of a POST (a dotted path)."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.header is None):
            raise ValueError("give `path` or `header`, one of them")
        return self


class Tokens(Pager):
    """Sends tokens back."""

    config_type = CursorPaging

    def __init__(self, config: CursorPaging) -> None:
        self._config = config

    @property
    def next_header(self) -> str | None:
        """The header of the token, where it comes in one."""
        return self._config.header.lower() if self._config.header else None

    def following(self, page: PageContent) -> PageRequest | None:
        """Ask with the token."""
        token: Any
        if self.next_header:
            token = page.headers.get(self.next_header)
        else:
            token = dig(page.body, (self._config.path or "").split("."))
        if token in (None, "", False):
            return None
        if isinstance(token, dict | list):
            reason = f"{self._config.path!r} should hold a token and holds a {type(token).__name__}"
            raise InvalidResponse(shown(page.url), reason)
        return page.request.with_param(self._config.param, token, place=self._config.place)
