"""The contract of a way of paging: pure functions from an answer to the next request.

A page's request is all the state there is, so it can be remembered with the page's ETag
and a skipped page (304) still knows its successor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator
from tidemill_core.config import Config

from tidemill_ingest_api.http.urls import with_params
from tidemill_ingest_api.paths import dig, planted

Place = Literal["query", "body"]


class Paging(Config):
    """What every way of paging has: ``type: Literal["name"]`` and a bound."""

    type: str
    max_pages: int = Field(default=100_000, gt=0)
    """More pages than this count as a loop."""


class PlacePaging(Paging):
    """What paging by places has, where a list that moves can hide records or show them twice."""

    rereads: int = Field(default=3, ge=0, le=100)
    """Times the list is read again when it moved meanwhile: a record came on two pages, or the total changed or
    does not fit. Moved each time, the run ends with exit code 75. 0 only warns."""
    verify: bool = False
    """Read the list again until two readings find the same records: for lists from which records are deleted, or
    whose order changes, while they are read, and which tell no total. Doubles the requests."""
    place: Place = "query"
    """Where the parameters go: the query, or the JSON body of a POST (dotted paths)."""

    @model_validator(mode="after")
    def _can_verify(self) -> Self:
        if self.verify and not self.rereads:
            raise ValueError("`verify` reads the list again; give `rereads` of at least 1")
        return self

    @property
    def counts_pages(self) -> bool:
        """Whether the total it knows is one of pages."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """What asks for a page; `body` is the JSON value of a POST."""

    url: str
    body: Any = None

    def with_param(self, name: str, value: Any, *, place: Place = "query") -> PageRequest:
        """Set a parameter, keeping the others and their order."""
        if place == "body":
            return replace(self, body=planted(self.body, name, value))
        return replace(self, url=with_params(self.url, {name: text_of(value)}))

    def number(self, name: str, default: int, *, place: Place = "query") -> int:
        """Read a parameter that is a whole number."""
        if place == "body":
            found = dig(self.body, name.split("."))
            return found if isinstance(found, int) else default
        text = dict(parse_qsl(urlsplit(self.url).query)).get(name, "")
        return int(text) if text.lstrip("-").isdigit() else default


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """What paging needs of an answer."""

    request: PageRequest
    headers: Mapping[str, str]
    body: Any
    records: int

    @property
    def url(self) -> str:
        """Where it came from."""
        return self.request.url


class Pager(Protocol):
    """Finds pages; it has no state, because a run may begin at any page."""

    @property
    def next_header(self) -> str | None:
        """The header, in lower case, that names the next page; None where the body or a count does.

        A 304 may carry it, but has no body: what follows an unchanged page is then known from it.
        """
        return None

    def first(self, request: PageRequest) -> PageRequest:
        """Add what asks for the first page."""
        return request

    def following(self, page: PageContent) -> PageRequest | None:
        """Find the page after this one; None when this is the last.

        Raises:
            InvalidResponse: The place that should name the next page holds something else.
        """

    def others(self, page: PageContent) -> Sequence[PageRequest]:  # noqa: ARG002  # the contract
        """List every page after the first, where the first one says how many there are; else nothing."""
        return ()

    def total(self, body: Any) -> int | None:  # noqa: ARG002  # the contract
        """Read how many pages or records there are, where a page tells; else None."""
        return None


def text_of(value: Any) -> str:
    """Write a value as a query carries it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def whole_number(body: Any, path: str | None) -> int | None:
    """Read a count at a dotted path."""
    found = dig(body, path.split(".")) if path else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None
