"""A typed client of the gRPC API: `IngestStub(channel).Get(...)`, for blocking and asyncio channels."""

from __future__ import annotations

from typing import Any

from tidemill_ingest_api.api._generated.tidemill.ingest.v1 import ingest_pb2 as messages

_PREFIX = "/tidemill.ingest.v1.IngestService/"


class IngestStub:
    """The methods of the service, called with the messages of `messages`.

    Args:
        channel: A `grpc.Channel` or a `grpc.aio.Channel`.
    """

    def __init__(self, channel: Any) -> None:
        encode = _encode
        self.ListTables = channel.unary_unary(_PREFIX + "ListTables", encode, messages.ListTablesResponse.FromString)
        self.Get = channel.unary_unary(_PREFIX + "Get", encode, messages.GetResponse.FromString)
        self.List = channel.unary_unary(_PREFIX + "List", encode, messages.ListResponse.FromString)
        self.Stream = channel.unary_stream(_PREFIX + "Stream", encode, messages.StreamResponse.FromString)


def _encode(message: Any) -> bytes:
    return bytes(message.SerializeToString())


__all__ = ["IngestStub", "messages"]
