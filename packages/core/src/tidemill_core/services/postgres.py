"""PostgreSQL: a server on loopback TCP, one password, its own data folder."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Account, Launch
from tidemill_core.services.accounts import unprivileged
from tidemill_core.services.errors import ServiceStartFailed
from tidemill_core.services.files import open_folder, write_private
from tidemill_core.services.namespace import under_a_name
from tidemill_core.services.postgres_lock import drop_stale_lock
from tidemill_core.services.postgres_programs import Origin, find_programs, server_version

USER = "tidemill"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
}
_FLEETING = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_wal_size": "4GB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresService:
    """A PostgreSQL server.

    Attributes:
        prefer: Whose programs are used where both are there.
        durable: False trades the safety of data at a power cut for speed; for tests.
        database: Made at the first start, and named in the URL.
    """

    prefer: Origin = "system"
    durable: bool = True
    database: str = "tidemill"

    @property
    def name(self) -> str:
        """``postgres``."""
        return "postgres"

    @property
    def version(self) -> str:
        """Version of the programs found."""
        return server_version(find_programs(self.prefer))

    def fetch(self) -> Path:
        """Find the programs; nothing is downloaded."""
        return find_programs(self.prefer)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Run ``initdb`` once, and say how to start the server on its data."""
        account = unprivileged("postgres")
        place = open_folder(folder) if account is not None else folder
        data = place / "data"
        programs = find_programs(self.prefer, major=_data_major(data))
        password = _password(folder)
        if _data_major(data) is None:
            _initdb(programs, place, password, account)
        drop_stale_lock(data)
        options = {**_SETTINGS, **({} if self.durable else _FLEETING), "port": str(port)}
        flags = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/{self.database}"
        return Launch(
            command=(str(programs / "postgres"), "-D", str(data), *flags),
            cwd=place,
            url=url,
            settings={"TIDEMILL_POSTGRES_URL": url, "TIDEMILL_TEST_POSTGRES_URL": url},
            account=account,
            stop_signal=signal.SIGINT,  # fast: SIGTERM would wait for every client
        )

    def is_ready(self, launch: Launch) -> bool:
        """Connect with the password, and make the database at the first start."""
        import psycopg

        try:
            with psycopg.connect(_at(launch.url, "postgres"), autocommit=True, connect_timeout=5) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone()
                if known is None:
                    connection.execute(f'CREATE DATABASE "{self.database}"')
        except psycopg.OperationalError:
            return False
        return True


def _at(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


def _password(folder: Path) -> str:
    path = folder / "password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def _data_major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text().strip().partition(".")[0])
    except FileNotFoundError:
        return None


def _initdb(programs: Path, place: Path, password: str, account: Account | None) -> None:
    """Build the data folder beside its final name, so that a killed initdb leaves nothing half made."""
    data, partial, secret = place / "data", place / f"initdb-{secrets.token_hex(4)}", place / "initdb.password"
    for old in (data, *place.glob("initdb-*")):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(mode=0o700)
    write_private(secret, password)
    if account is not None:
        os.chown(partial, account.uid, account.gid)
        os.chown(secret, account.uid, account.gid)
    log = place / "initdb.log"
    command = [str(programs / "initdb"), "-D", str(partial), "-U", USER, f"--pwfile={secret}"]
    command += ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale"]
    if account is None:
        command = under_a_name(command)
    try:
        with log.open("wb") as output:
            code = subprocess.run(
                command,
                cwd=place,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            ).returncode
    finally:
        secret.unlink(missing_ok=True)
    if code != 0:
        raise ServiceStartFailed("postgres", f"initdb ended with {code}", log)
    partial.rename(data)
