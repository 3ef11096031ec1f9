"""The servers behind the fixtures: shared by all test processes of this account, stopped by the last one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tidemill_core.errors import ServiceError
from tidemill_core.services._base import Service
from tidemill_core.services.running import Running


def shared(service: Service, *, kind: str) -> Running:
    """Take part in the shared test server `service`, or skip the test.

    Args:
        service: The server.
        kind: Its name in ``TIDEMILL_REQUIRE``.
    """
    from tidemill_core.embedded.lease import acquire
    from tidemill_core.services.files import services_dir

    try:
        return acquire(service, services_dir() / "shared" / service.name, fresh=True).running
    except ServiceError as error:
        absent(kind, error)


def private(service: Service, folder: Path, *, kind: str) -> Running:
    """Start a server of the test's own, to be killed or stopped by it, or skip the test."""
    from tidemill_core.services.running import start

    try:
        return start(service, folder)[0]
    except ServiceError as error:
        absent(kind, error)


def required() -> frozenset[str]:
    """Kinds of servers that ``TIDEMILL_REQUIRE`` says must be there."""
    return frozenset(name.strip() for name in os.environ.get("TIDEMILL_REQUIRE", "").split(",") if name.strip())


def absent(kind: str, error: Exception) -> NoReturn:
    """Skip the test, or fail it where ``TIDEMILL_REQUIRE`` names `kind`."""
    if kind in required():
        pytest.fail(f"TIDEMILL_REQUIRE names {kind}: {error}", pytrace=False)
    pytest.skip(f"no {kind}: {error}")
