"""The servers behind the fixtures: shared by test processes, stopped when none has used them for a while."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tidemill_core.errors import ServiceError
from tidemill_core.services._base import Service
from tidemill_core.services.running import Running

IDLE_S = 180.0
"""Seconds without a test process after which a shared server is stopped."""
_KINDS = {"s3mock": "s3", "versitygw": "s3", "fake-gcs": "gcs", "azurite": "azure"}


def shared(service: Service, *, kind: str) -> Running:
    """Take part in the shared test server `service`, or skip the test.

    Args:
        service: The server.
        kind: Its name in ``TIDEMILL_REQUIRE``.
    """
    from tidemill_core.embedded import warden
    from tidemill_core.embedded.lease import acquire
    from tidemill_core.services.files import services_dir

    try:
        lease = acquire(service, services_dir() / "shared" / service.name, fresh=True, stop_last=False)
    except ServiceError as error:
        absent(kind, error)
    warden.post(lease.folder, IDLE_S)
    return lease.running


@contextmanager
def own_servers(folder: Callable[[str], Path]) -> Iterator[Callable[..., Running]]:
    """Yield a function that starts a server of the test's own, stopped with the test.

    Args:
        folder: Makes a new folder for a server's name. The function called again with the
            folder of an ended server (``start("kafka", Path(first.folder))``) restarts it on its data.
    """
    from tidemill_core.services import stack
    from tidemill_core.services.files import open_place
    from tidemill_core.services.running import find, start

    folders: set[Path] = set()

    def begin(name: str, place: Path | None = None) -> Running:
        place = place or folder(name)
        folders.add(place)
        try:
            return start(stack.service(name), place)[0]
        except ServiceError as error:
            absent(_KINDS.get(name, name), error)

    try:
        yield begin
    finally:
        for each in folders:
            running = find(each)
            if running is not None:
                running.stop()
            shutil.rmtree(open_place(each), ignore_errors=True)


def required() -> frozenset[str]:
    """Kinds of servers that ``TIDEMILL_REQUIRE`` says must be there."""
    return frozenset(name.strip() for name in os.environ.get("TIDEMILL_REQUIRE", "").split(",") if name.strip())


def absent(kind: str, error: Exception) -> NoReturn:
    """Skip the test, or fail it where ``TIDEMILL_REQUIRE`` names `kind`."""
    if kind in required():
        pytest.fail(f"TIDEMILL_REQUIRE names {kind}: {error}", pytrace=False)
    pytest.skip(f"no {kind}: {error}")
