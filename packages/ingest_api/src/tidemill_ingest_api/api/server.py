"""Run REST and gRPC in one process and one event loop, and stop them gracefully."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tidemill_core.errors import ConfigError
from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api.config import OpenServe, SourceConfig
from tidemill_ingest_api.stores._base import Reader

log = get_logger(__name__)
GRACE_S = 10.0
_OFF = -1
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the APIs answer; None where one is off."""

    host: str
    rest: int | None
    grpc: int | None


def serve_until(
    stop: StopToken,
    source: SourceConfig,
    store: Reader,
    *,
    host: str = "127.0.0.1",
    rest_port: int = 0,
    grpc_port: int = 0,
    on_ready: Callable[[Ports], None] | None = None,
) -> None:
    """Serve until `stop` is set, then let running requests end.

    Args:
        stop: Ends the service.
        source: What is served, and to whom.
        store: Where the rows are.
        host: Address to listen on.
        rest_port: 0 takes a free one, -1 none.
        grpc_port: As `rest_port`.
        on_ready: Told the ports once both answer.

    Raises:
        ConfigError: A port is taken, or keys would go over an open network in plain text.
    """
    if host not in _LOOPBACK and source.serve is not None and not isinstance(source.serve.auth, OpenServe):
        log.warning("keys_in_plain_text", host=host, advice="put a TLS proxy in front; keys are sent unencrypted here")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(stop, source, store, host, (rest_port, grpc_port), on_ready))


async def _serve(
    stop: StopToken,
    source: SourceConfig,
    store: Reader,
    host: str,
    ports: tuple[int, int],
    on_ready: Callable[[Ports], None] | None,
) -> None:
    from tidemill_ingest_api.api.service import Service

    service = Service(source, store)
    rest = _Rest(source, store, service, host, ports[0]) if ports[0] != _OFF else None
    grpc = await _start_grpc(service, host, ports[1]) if ports[1] != _OFF else None
    try:
        if rest:
            await rest.start()
        found = Ports(host=host, rest=rest.port if rest else None, grpc=grpc[1] if grpc else None)
        log.info("serving", host=host, rest=found.rest, grpc=found.grpc, source=source.source)
        if on_ready:
            on_ready(found)
        ends = [asyncio.create_task(asyncio.to_thread(stop.wait)), *([rest.task] if rest and rest.task else [])]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.set("the REST server ended")  # the first reason is kept
        log.info("stopping", reason=stop.reason)
    finally:
        await asyncio.gather(_stop_grpc(grpc), rest.stop() if rest else asyncio.sleep(0))


class _Rest:
    """uvicorn, without its own signal handling: the stop token decides."""

    def __init__(self, source: SourceConfig, store: Reader, service: Any, host: str, port: int) -> None:
        import uvicorn

        from tidemill_ingest_api.api.rest import create_app

        class Quiet(uvicorn.Server):
            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield

        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server = Quiet(
            uvicorn.Config(
                create_app(source, store, service=service),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=int(GRACE_S),
            )
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from here on."""
        self.task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self.task.done():
                await self.task
                raise ConfigError(f"the REST server did not start on port {self.port}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Let running requests end."""
        self._server.should_exit = True
        if self.task:
            await self.task
        self._socket.close()


async def _start_grpc(service: Any, host: str, port: int) -> tuple[Any, int, Any]:
    from tidemill_ingest_api.api import grpc as api

    server, status = api.create_server(service)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise ConfigError(f"gRPC port {host}:{port} cannot be used: {error}; choose another --grpc-port") from error
    await server.start()
    await api.set_serving(status, is_serving=True)
    return server, bound, status


async def _stop_grpc(started: tuple[Any, int, Any] | None) -> None:
    if started is None:
        return
    from tidemill_ingest_api.api import grpc as api

    await api.set_serving(started[2], is_serving=False)
    await started[0].stop(GRACE_S)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"port {host}:{port} cannot be used: {error.strerror}; choose another --rest-port") from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
