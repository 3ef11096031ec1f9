"""The service's HTTP interface: jobs, events, health, metrics."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from tidemill_core.telemetry import metrics

from tidemill_sync.config import SyncConfig
from tidemill_sync.errors import JobNotFound
from tidemill_sync.events import EventUnreadable, parse_event
from tidemill_sync.jobs import State
from tidemill_sync.service import PlaceRefused, SyncService


def create_app(service: SyncService) -> FastAPI:
    """Make the application; its lifespan starts and stops the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="Tidemill sync", version="1", lifespan=lifespan)
    guarded = [Depends(_bearer(service))]
    _add_health(app, service)

    @app.post("/jobs", status_code=202, dependencies=guarded)
    def submit(config: SyncConfig) -> dict[str, Any]:
        """Queue a mirror."""
        return service.submit(config).as_dict()

    @app.get("/jobs", dependencies=guarded)
    def jobs(state: State | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """List jobs, newest first."""
        return [job.as_dict() for job in service.store.jobs(state=state, limit=limit)]

    @app.get("/jobs/{job_id}", dependencies=guarded)
    def job(job_id: str) -> dict[str, Any]:
        """Show one job."""
        return service.store.get(job_id).as_dict()

    @app.post("/jobs/{job_id}/cancel", status_code=202, dependencies=guarded)
    def cancel(job_id: str) -> dict[str, Any]:
        """Cancel a job."""
        return service.cancel(job_id).as_dict()

    @app.post("/events", status_code=202, dependencies=guarded)
    def events(document: Annotated[Any, Depends(_json)]) -> dict[str, Any]:
        """Take in a bucket notification of any known form."""
        keys = list(parse_event(document))
        return {"keys": len(keys), "jobs": [each.job_id for each in service.dirty(keys)]}

    for kind, status in ((JobNotFound, 404), (PlaceRefused, 403), (EventUnreadable, 422)):
        app.add_exception_handler(kind, _told(status))
    return app


def _add_health(app: FastAPI, service: SyncService) -> None:
    @app.get("/livez")
    def livez() -> PlainTextResponse:
        """Tell that the process answers."""
        return PlainTextResponse("ok")

    @app.get("/readyz")
    def readyz() -> PlainTextResponse:
        """Tell whether jobs are worked off."""
        is_ready = service.is_alive()
        return PlainTextResponse("ok" if is_ready else "no workers", status_code=200 if is_ready else 503)

    @app.get("/metrics", dependencies=[Depends(_bearer(service))])
    def scrape() -> Response:
        """Give Prometheus metrics."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _bearer(service: SyncService) -> Callable[[Request], None]:
    """Make a check of the bearer token, if the service has one."""

    def check(request: Request) -> None:
        token = service.config.token
        if token is None:
            return
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode()):
            raise HTTPException(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})

    return check


async def _json(request: Request) -> Any:
    """Read a body as JSON whatever its content type says: SNS sends text/plain."""
    try:
        return await request.json()
    except ValueError as error:
        raise HTTPException(422, "the body is not JSON") from error


def _told(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def handle(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return handle
