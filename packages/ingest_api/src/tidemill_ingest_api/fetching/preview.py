"""Look at a stream without writing: its first records as rows, and what its fields could be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tidemill_core.errors import ConfigError

from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.errors import RecordRejected
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.pages import read_pages
from tidemill_ingest_api.fetching.partitions import first_window, value_partitions, window_values, windows
from tidemill_ingest_api.http.urls import shown
from tidemill_ingest_api.records.flatten import compile_stream

_WIDER = {("int64", "float64"): "float64", ("date", "timestamp"): "timestamp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a look at a stream found; `fields` is a guess from the sample, in the words of a configuration."""

    urls: tuple[str, ...]
    rows: tuple[bytes, ...]
    rejected: tuple[str, ...]
    fields: Mapping[str, str]


def preview(source: SourceConfig, stream: StreamConfig, client: Client, *, pages: int = 1, rows: int = 10) -> Preview:
    """Fetch a few pages and show them.

    Args:
        source: Where from.
        stream: One of its streams.
        client: Asks the API.
        pages: Pages to fetch, at most.
        rows: Rows to return, at most.

    Raises:
        ConfigError: The stream has a parent, whose rows a preview does not have.
    """
    if stream.parent is not None:
        raise ConfigError(
            f"stream {stream.name!r} is read for each row of {stream.parent.stream!r}, and a preview has none;"
            f" preview {stream.parent.stream!r}, or run both"
        )
    flatten = compile_stream(stream).flatten
    first = value_partitions(stream)[0]
    values: dict[str, str | None] = {**first.values, "cursor": cursors.request_text(stream, None)}
    if stream.window is not None:
        whole = first_window(stream.window, None, datetime.now(UTC))
        values |= window_values(stream.window, next(windows(stream.window, whole), whole))
    urls, docs, rejected, sample = [], [], [], []
    for page in read_pages(source, stream, client, {}, values):
        urls.append(shown(page.key))
        for record in page.records:
            sample.append(record)
            try:
                docs.append(flatten(record)[-1])
            except RecordRejected as error:
                rejected.append(str(error))
        if len(urls) >= pages:
            break
    return Preview(urls=tuple(urls), rows=tuple(docs[:rows]), rejected=tuple(rejected), fields=infer_fields(sample))


def infer_fields(records: Iterable[Any]) -> dict[str, str]:
    """Guess field types from records; objects become ``a__b``, lists and mixed values json.

    >>> infer_fields([{"id": 1, "user": {"name": "ada"}, "tags": []}, {"id": 2.5}])
    {'id': 'float64', 'user__name': 'string', 'tags': 'json'}
    """
    found: dict[str, str | None] = {}
    for record in records:
        if isinstance(record, dict):
            _note(found, "", record)
    return {name: kind or "string" for name, kind in found.items()}


def _note(found: dict[str, str | None], prefix: str, record: Mapping[str, Any]) -> None:
    for key, value in record.items():
        name = prefix + re.sub(r"[^a-z0-9_]", "_", str(key).lower())
        if isinstance(value, dict) and value:
            _note(found, f"{name}__", value)
            continue
        kind, known = _guess(value), found.get(name)
        if known is None or kind is None:
            found[name] = known or kind
        elif kind != known:
            pair = (min(kind, known), max(kind, known))
            found[name] = _WIDER.get(pair) or _WIDER.get(pair[::-1]) or _mixed(pair)


def _mixed(pair: tuple[str, str]) -> str:
    return "json" if "json" in pair else "string"


def _guess(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case str():
            return _guess_text(value)
        case _:
            return "json"


def _guess_text(text: str) -> str:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return "date" if _parses(date.fromisoformat, text) else "string"
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text):
        return "timestamp" if _parses(datetime.fromisoformat, text) else "string"
    return "string"


def _parses(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
