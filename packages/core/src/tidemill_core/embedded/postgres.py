"""The embedded PostgreSQL of a Tidemill home: the wheel's programs, else the system's, on loopback."""

from __future__ import annotations

from pathlib import Path

from tidemill_core.embedded._base import EmbeddedServer
from tidemill_core.embedded.lease import Lease, acquire
from tidemill_core.services.postgres import PostgresService

IDLE_S = 60.0
"""Seconds after which a server whose last user was killed is stopped."""


def ensure_postgres(home: Path) -> EmbeddedServer:
    """Take part in the PostgreSQL server of `home`, starting it if it does not run.

    The data is kept in ``home/postgres`` (or, when we are root and that cannot be entered by
    an unprivileged account, in a folder of its own under ``/var/tmp``). The server ends with
    the last process that takes part; if that is killed, a minute later.

    Raises:
        ServiceError: There are no programs, or the server did not start.
    """
    lease = postgres_lease(home)
    return EmbeddedServer(
        url=lease.running.url, pid=lease.running.pid, started=lease.started, identity=str(lease.folder)
    )


def postgres_lease(home: Path) -> Lease:
    """Take this process's lease on the server of `home`."""
    from tidemill_core.embedded import warden  # it is run as a program, so the package must not import it

    lease = acquire(PostgresService(prefer="wheel"), home.absolute() / "postgres")
    warden.post(lease.folder, IDLE_S)
    return lease
