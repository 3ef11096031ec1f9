"""The REST API: list with filters, order and cursor; get by key; ETag and 304; JSON, NDJSON, CSV, Arrow.

Routes are plain Starlette endpoints in a FastAPI application: the records are encoded
already, so there is nothing for a response model to do. The OpenAPI document is
written from the configuration.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote, urlencode
from uuid import uuid4

import orjson
from fastapi import FastAPI
from starlette.concurrency import iterate_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from tidemill_core.errors import TransientError
from tidemill_core.telemetry import get_logger
from tidemill_core.telemetry.metrics import CONTENT_TYPE, render

from tidemill_ingest_api import metrics
from tidemill_ingest_api.api import formats, openapi
from tidemill_ingest_api.api.auth import Caller
from tidemill_ingest_api.api.service import Service
from tidemill_ingest_api.config import RESERVED_PARAMS, SourceConfig, StreamConfig
from tidemill_ingest_api.errors import BadQuery, UnknownTable
from tidemill_ingest_api.stores._base import Reader
from tidemill_ingest_api.stores.query import (
    Filter,
    Select,
    filterable,
    parse_filter,
    parse_key,
    parse_limit,
    parse_order,
    sortable,
)

log = get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GZIP_BYTES = 1024
Endpoint = Callable[[Request, Caller], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A list request, checked; equal ones share one page in memory."""

    select: Select
    columns: tuple[str, ...] | None
    format: str
    after: str
    has_limit: bool


def create_app(config: SourceConfig, store: Reader, *, service: Service | None = None) -> FastAPI:
    """Build the application.

    Args:
        config: A source with `serve`.
        store: Where its rows are.
        service: Shares cache, limits and cursors with the gRPC server of the same process.
    """
    service = service or Service(config, store)
    app = FastAPI(title=config.source, docs_url=None, redoc_url=None, openapi_url=None)
    api = _Api(service)
    app.add_route("/v1", api.guarded("tables", api.tables), methods=["GET"])
    app.add_route("/v1/openapi.json", api.guarded("openapi", api.openapi), methods=["GET"])
    app.add_route("/v1/{table}", api.guarded("list", api.list), methods=["GET"])
    app.add_route("/v1/{table}/{key:path}", api.guarded("get", api.get), methods=["GET"])
    app.add_route("/livez", _livez, methods=["GET"])
    app.add_route("/readyz", api.readyz, methods=["GET"])
    app.add_route("/metrics", _metrics, methods=["GET"])
    app.add_middleware(GZipMiddleware, minimum_size=_GZIP_BYTES, compresslevel=5)
    return app


class _Api:
    def __init__(self, service: Service) -> None:
        self.service = service

    def guarded(self, route: str, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """Identify the reader, hold its limit, answer errors as problems, count."""

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            given = request.headers.get("x-request-id", "")
            request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
            response = await self._answer(request, endpoint, request_id)
            response.headers["X-Request-Id"] = request_id
            response.headers["X-Content-Type-Options"] = "nosniff"
            metrics.SERVED.labels(api="rest", route=route, code=response.status_code).inc()
            metrics.SERVE_SECONDS.labels(api="rest", route=route).observe(time.perf_counter() - began)
            return response

        return handle

    async def _answer(self, request: Request, endpoint: Endpoint, request_id: str) -> Response:
        caller = self.service.identify(request.headers.get("authorization"), request.headers.get("x-api-key"))
        address = request.client.host if request.client else ""
        if caller is None:
            headers = {"WWW-Authenticate": "Bearer"}
            return problem(401, "Give a valid key", "Authorization: Bearer KEY, or X-API-Key: KEY", request_id, headers)
        quota = self.service.take(caller, address)
        limits = {}
        if quota is not None:
            limits = {
                "RateLimit-Limit": str(quota.limit),
                "RateLimit-Remaining": str(quota.remaining),
                "RateLimit-Reset": str(quota.reset_s),
            }
            if quota.is_exceeded:
                headers = {**limits, "Retry-After": str(quota.reset_s)}
                return problem(429, "Too many requests", f"try again in {quota.reset_s} s", request_id, headers)
        response = await self._try(request, endpoint, caller, request_id)
        response.headers.update(limits)
        return response

    async def _try(self, request: Request, endpoint: Endpoint, caller: Caller, request_id: str) -> Response:
        try:
            return await endpoint(request, caller)
        except UnknownTable as error:
            return problem(404, "No such table", str(error), request_id)
        except BadQuery as error:
            return problem(400, "The question is not understood", str(error), request_id)
        except TransientError as error:
            log.warning("store_unavailable", error=str(error), request_id=request_id)
            return problem(503, "The store does not answer", "try again later", request_id, {"Retry-After": "1"})

    async def list(self, request: Request, caller: Caller) -> Response:
        """Answer ``GET /v1/TABLE``."""
        stream, _ = self.service.table(request.path_params["table"], caller)
        asked = read_question(stream, request)
        version_now = await self.service.version(stream.name)
        etag = _etag(stream.name, version_now, asked)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
        if _matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        media = formats.MEDIA_TYPES[asked.format]
        if asked.format in {"ndjson", "csv"} and not asked.has_limit:
            return StreamingResponse(self._export(stream, asked), headers=headers, media_type=media)
        page = await self.service.page(stream.name, asked.select, asked.after)
        if page.next:
            query = [(k, v) for k, v in request.query_params.multi_items() if k != "after"]
            target = f"{request.url.path}?{urlencode([*query, ('after', page.next)])}"
            headers |= {"Link": f'<{target}>; rel="next"', "X-Next-Cursor": page.next}
        metrics.ROWS.labels(format=asked.format).inc(len(page.docs))
        is_guarded = self.service.serve.escape_csv_formulas
        body = _encode(stream, asked, page.docs, page.next, is_guarded=is_guarded)
        return Response(body, headers=headers, media_type=media)

    async def get(self, request: Request, caller: Caller) -> Response:
        """Answer ``GET /v1/TABLE/KEY``."""
        stream, _ = self.service.table(request.path_params["table"], caller)
        raw = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
        text = raw.partition(f"/v1/{stream.name}/")[2]  # not decoded yet: a comma inside a part is %2C
        key = parse_key(stream, [unquote(part) for part in text.split(",")])
        version_now = await self.service.version(stream.name)
        etag = f'W/"{stream.name}-{version_now}-{_digest(repr(key))}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if _matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        doc = await self.service.get(stream.name, key)
        if doc is None:
            shown = ", ".join(f"{name}={value}" for name, value in zip(stream.primary_key, key, strict=True))
            return problem(404, "No such record", f"{stream.name} has no record with {shown}", "")
        return Response(doc, headers=headers, media_type="application/json")

    async def tables(self, _request: Request, caller: Caller) -> Response:
        """Answer ``GET /v1``."""
        tables = [_describe(stream) for stream in self.service.source.streams if caller.may_read(stream.name)]
        return Response(orjson.dumps({"tables": tables}), media_type="application/json")

    async def openapi(self, _request: Request, caller: Caller) -> Response:
        """Answer ``GET /v1/openapi.json``."""
        source = self.service.source
        visible = source.model_copy(update={"streams": tuple(s for s in source.streams if caller.may_read(s.name))})
        return Response(
            orjson.dumps(openapi.document(visible, version("tidemill-ingest-api"))), media_type="application/json"
        )

    async def readyz(self, _request: Request) -> Response:
        """Answer 200 when the store can be asked, else 503."""
        sick = await self.service.call(self.service.sick)
        if sick:
            log.warning("not_ready", error=sick)
        text = "the store does not answer\n" if sick else "ok\n"
        return Response(text, status_code=503 if sick else 200, media_type="text/plain")

    async def _export(self, stream: StreamConfig, asked: Question) -> AsyncIterator[bytes]:
        rows = self.service.serve.max_export_rows
        is_first = True
        if asked.format == "csv":
            yield formats.csv_rows([], asked.columns or tuple(stream.fields), has_header=True)
            is_first = False
        batches = self.service.scan(stream.name, asked.select, rows=rows, cursor=asked.after)
        async for batch in iterate_in_threadpool(batches):
            metrics.ROWS.labels(format=asked.format).inc(len(batch.docs))
            is_guarded = self.service.serve.escape_csv_formulas
            yield _encode(stream, asked, batch.docs, batch.next, has_header=is_first, is_guarded=is_guarded)


def read_question(stream: StreamConfig, request: Request) -> Question:
    """Check the parameters of a list request.

    Raises:
        BadQuery: One is unknown or wrong.
    """
    params = request.query_params
    filters: list[Filter] = []
    for name, value in params.multi_items():
        if name not in RESERVED_PARAMS:
            filters.append(parse_filter(stream, name, value))
    columns = None
    if params.get("select"):
        columns = tuple(dict.fromkeys(params["select"].split(",")))
        unknown = [name for name in columns if name not in stream.fields]
        if unknown:
            raise BadQuery(f"no column {unknown[0]!r}; known: {', '.join(stream.fields)}")
    return Question(
        select=Select(
            filters=tuple(filters),
            order=parse_order(stream, params.get("order")),
            limit=parse_limit(params.get("limit")),
        ),
        columns=columns,
        format=_format(params.get("format"), request.headers.get("accept", "")),
        after=params.get("after", ""),
        has_limit="limit" in params,
    )


def problem(
    status: int, title: str, detail: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Write an error as RFC 9457 says."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id}
    return Response(
        orjson.dumps({name: value for name, value in body.items() if value}),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


def _encode(
    stream: StreamConfig,
    asked: Question,
    docs: tuple[bytes, ...],
    following: str,
    *,
    has_header: bool = True,
    is_guarded: bool = True,
) -> bytes:
    columns = asked.columns or tuple(stream.fields)
    match asked.format:
        case "csv":
            return formats.csv_rows(docs, columns, has_header=has_header, is_guarded=is_guarded)
        case "arrow":
            return formats.arrow_stream(stream, docs, columns)
        case "ndjson":
            return formats.ndjson(list(formats.project(docs, asked.columns)))
        case _:
            return formats.json_page(list(formats.project(docs, asked.columns)), following)


def _format(given: str | None, accept: str) -> str:
    if given is not None:
        if given not in formats.MEDIA_TYPES:
            raise BadQuery(f"unknown format {given!r}; known: {', '.join(formats.MEDIA_TYPES)}")
        return given
    for part in accept.split(","):
        media = part.partition(";")[0].strip().lower()
        for name, type_ in formats.MEDIA_TYPES.items():
            if media == type_.partition(";")[0]:
                return name
    return "json"


def _describe(stream: StreamConfig) -> dict[str, Any]:
    return {
        "name": stream.name,
        "primary_key": stream.primary_key,
        "columns": {name: field.type for name, field in stream.fields.items()},
        "filters": filterable(stream),
        "sort": sortable(stream),
    }


def _etag(table: str, version_now: int, asked: Question) -> str:
    return f'W/"{table}-{version_now}-{_digest(repr(asked))}"'


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _matches(given: str | None, etag: str) -> bool:
    if not given:
        return False
    bare = etag.removeprefix("W/")
    return any(each.strip().removeprefix("W/") in {bare, "*"} for each in given.split(","))


async def _livez(_request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def _metrics(_request: Request) -> Response:
    return Response(render(), headers={"Content-Type": CONTENT_TYPE})
