"""The gRPC API: Get, List and Stream of encoded records, with reflection and health.

The same service, cache, limits and cursors as REST; errors are gRPC status codes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tidemill_core.errors import TransientError

from tidemill_ingest_api import metrics
from tidemill_ingest_api.api._generated.tidemill.ingest.v1 import ingest_pb2 as pb
from tidemill_ingest_api.api.auth import Caller
from tidemill_ingest_api.api.service import Service
from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.errors import BadQuery, UnknownTable
from tidemill_ingest_api.stores.query import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Select,
    build_filter,
    filterable,
    parse_key,
    parse_order,
    sortable,
)

SERVICE = "tidemill.ingest.v1.IngestService"
STREAM_BATCH_ROWS = 500
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_CONCURRENT_STREAMS = 100
_OPTIONS = (
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", _CONCURRENT_STREAMS),
    ("grpc.so_reuseport", 0),
)
Context = Any


def create_server(service: Service) -> tuple[aio.Server, health.aio.HealthServicer]:
    """Build the server, without ports; must be called in its event loop.

    Returns:
        The server, and the health servicer that says whether it serves.
    """
    server = aio.server(options=_OPTIONS)
    api = _Api(service)
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    handlers = {
        "ListTables": unary(api.unary("ListTables", api.list_tables), *_codec(pb.ListTablesRequest)),
        "Get": unary(api.unary("Get", api.get), *_codec(pb.GetRequest)),
        "List": unary(api.unary("List", api.list), *_codec(pb.ListRequest)),
        "Stream": stream(api.streamed("Stream", api.stream), *_codec(pb.StreamRequest)),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, status


async def set_serving(status: health.aio.HealthServicer, *, is_serving: bool) -> None:
    """Tell health checks whether we serve."""
    value = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", SERVICE):
        await status.set(name, value)


def _codec(request: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    return request.FromString, lambda message: message.SerializeToString()


class _Api:
    def __init__(self, service: Service) -> None:
        self.service = service

    def unary(self, route: str, method: Callable[[Any, Caller], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def handle(request: Any, context: Context) -> Any:
            began = time.perf_counter()
            code = "OK"
            try:
                return await method(request, await self._enter(context))
            except Exception as error:  # noqa: BLE001  # every error becomes a status; unknown ones are raised on
                code = await _fail(context, error)
            finally:
                metrics.SERVED.labels(api="grpc", route=route, code=code).inc()
                metrics.SERVE_SECONDS.labels(api="grpc", route=route).observe(time.perf_counter() - began)

        return handle

    def streamed(
        self, route: str, method: Callable[[Any, Caller], AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            code = "OK"
            try:
                async for message in method(request, await self._enter(context)):
                    yield message
            except Exception as error:  # noqa: BLE001  # every error becomes a status; unknown ones are raised on
                code = await _fail(context, error)
            finally:
                metrics.SERVED.labels(api="grpc", route=route, code=code).inc()

        return handle

    async def list_tables(self, _request: Any, caller: Caller) -> Any:
        """Answer ListTables."""
        tables = [
            pb.Table(
                name=stream.name,
                primary_key=stream.primary_key,
                columns=[pb.Column(name=name, type=field.type) for name, field in stream.fields.items()],
                filters=filterable(stream),
                sort=sortable(stream),
                version=await self.service.version(stream.name),
            )
            for stream in self.service.source.streams
            if caller.may_read(stream.name)
        ]
        return pb.ListTablesResponse(tables=tables)

    async def get(self, request: Any, caller: Caller) -> Any:
        """Answer Get."""
        stream, _ = self.service.table(request.table, caller)
        key = parse_key(stream, list(request.key))
        doc = await self.service.get(stream.name, key)
        if doc is None:
            raise _NoRecord(f"{stream.name} has no record with key {', '.join(request.key)}")
        return pb.GetResponse(record=doc)

    async def list(self, request: Any, caller: Caller) -> Any:
        """Answer List."""
        stream, _ = self.service.table(request.table, caller)
        select = _select(stream, request, _bounded(request.limit, DEFAULT_LIMIT, MAX_LIMIT, "limit"))
        page = await self.service.page(stream.name, select, request.after)
        metrics.ROWS.labels(format="grpc").inc(len(page.docs))
        return pb.ListResponse(records=page.docs, next=page.next, version=page.version)

    async def stream(self, request: Any, caller: Caller) -> AsyncIterator[Any]:
        """Answer Stream: batches, read on a thread one at a time as the caller takes them."""
        from starlette.concurrency import iterate_in_threadpool

        stream, _ = self.service.table(request.table, caller)
        select = _select(stream, request, DEFAULT_LIMIT)
        allowed = self.service.serve.max_export_rows
        rows = _bounded(request.limit, allowed, allowed, "limit")
        size = _bounded(request.batch_rows, STREAM_BATCH_ROWS, MAX_LIMIT, "batch_rows")
        batches = self.service.scan(stream.name, select, rows=rows, cursor=request.after, batch_rows=size)
        async for batch in iterate_in_threadpool(batches):
            metrics.ROWS.labels(format="grpc").inc(len(batch.docs))
            yield pb.StreamResponse(records=batch.docs, next=batch.next, version=batch.version)

    async def _enter(self, context: Context) -> Caller:
        """Identify the caller and hold its limit."""
        given = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        caller = self.service.identify(given.get("authorization"), given.get("x-api-key"))
        if caller is None:
            raise _NoKey("give a valid key as metadata: authorization: Bearer KEY, or x-api-key: KEY")
        quota = self.service.take(caller, context.peer().rpartition(":")[0])
        if quota is not None and quota.is_exceeded:
            context.set_trailing_metadata((("retry-after", str(quota.reset_s)),))
            raise _TooMany(f"too many requests; try again in {quota.reset_s} s")
        return caller


class _NoRecord(BadQuery):
    """No record has this key."""


class _NoKey(BadQuery):
    """The caller is unknown."""


class _TooMany(BadQuery):
    """The caller asked too often."""


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (_NoRecord, grpc.StatusCode.NOT_FOUND),
    (UnknownTable, grpc.StatusCode.NOT_FOUND),
    (_NoKey, grpc.StatusCode.UNAUTHENTICATED),
    (_TooMany, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BadQuery, grpc.StatusCode.INVALID_ARGUMENT),
    (TransientError, grpc.StatusCode.UNAVAILABLE),
)


async def _fail(context: Context, error: Exception) -> str:
    """End the call with the status of an error; never returns normally."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            text = "the store does not answer" if code is grpc.StatusCode.UNAVAILABLE else str(error)
            await context.abort(code, text)
    raise error


def _select(stream: StreamConfig, request: Any, limit: int) -> Select:
    filters = tuple(build_filter(stream, each.column, each.operator, _values(each.values)) for each in request.filters)
    return Select(filters=filters, order=parse_order(stream, request.order), limit=limit)


def _values(values: Sequence[str]) -> list[str]:
    return list(values)


def _bounded(given: int, default: int, maximum: int, name: str) -> int:
    if not 0 <= given <= maximum:
        raise BadQuery(f"{name} must be from 1 to {maximum}, or 0 for {default}")
    return int(given) or default
