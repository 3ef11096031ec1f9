"""Write the request for a stream's first page: values put into its path, parameters and body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tidemill_ingest_api.config import PLACEHOLDER, StreamConfig
from tidemill_ingest_api.http.urls import with_params
from tidemill_ingest_api.paging import PageRequest, open_pager
from tidemill_ingest_api.paging._base import text_of

Values = Mapping[str, str | None]
_ABSENT = object()


def first_request(base_url: str, stream: StreamConfig, values: Values) -> PageRequest:
    """Ask for a stream's first page.

    Args:
        base_url: Where the API is.
        stream: What to read.
        values: Replace ``{name}``; a parameter or a part of the body whose value is None is left out.
    """
    path = PLACEHOLDER.sub(lambda found: _in_path(found, values), stream.path)
    url = base_url + ("/" + path.lstrip("/") if path else "")
    params = {name: _filled(text_of(value), values) for name, value in stream.params.items()}
    url = with_params(url, {name: text for name, text in params.items() if isinstance(text, str)})
    body = _filled_body(stream.body, values) if stream.method == "POST" else None
    return open_pager(stream.paginate).first(PageRequest(url=url, body=body))


def first_url(base_url: str, stream: StreamConfig, values: Values) -> str:
    """Write the URL of a stream's first page."""
    return first_request(base_url, stream, values).url


def _in_path(found: re.Match[str], values: Values) -> str:
    """Put a value into the path; one that an API gave stays one segment and cannot lead to another path."""
    value = values.get(found[1])
    if value is None:
        return found[0]
    if not found[1].startswith("parent."):
        return quote(value, safe="/")  # the configuration's own, such as owner/name
    return value.replace(".", "%2E") if value in {".", ".."} else quote(value, safe="")


def _filled(text: str, values: Values) -> Any:
    """Replace ``{name}``; `_ABSENT` where a value is None."""
    if any(name in values and values[name] is None for name in PLACEHOLDER.findall(text)):
        return _ABSENT

    def put(found: re.Match[str]) -> str:
        value = values.get(found[1])
        return found[0] if value is None else value

    return PLACEHOLDER.sub(put, text)


def _filled_body(value: Any, values: Values) -> Any:
    if isinstance(value, str):
        return _filled(value, values)
    if isinstance(value, Mapping):
        filled = {name: _filled_body(each, values) for name, each in value.items()}
        return {name: each for name, each in filled.items() if each is not _ABSENT}
    if isinstance(value, list | tuple):
        return [each for each in (_filled_body(inner, values) for inner in value) if each is not _ABSENT]
    return value


__all__ = ["Values", "first_request", "first_url"]
