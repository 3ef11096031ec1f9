"""Ask every server that the settings name whether it is there, before any work needs it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tidemill_core.errors import ConfigError, ExitCode, PermanentError, ServiceError, TidemillError, TransientError
from tidemill_core.plugins import Registry

if TYPE_CHECKING:
    from tidemill_core.settings import Settings

DEADLINE_S = 12.0
"""Seconds that every server together has to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One thing that Tidemill uses, and how to look whether it is there.

    Attributes:
        use: What it is used for, such as ``warehouse``.
        setting: The variable that chooses it.
        where: Its address, without secrets.
        ask: Talks to it, and raises our error if it does not answer; None for an embedded one.
    """

    use: str
    setting: str
    where: str
    ask: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a look at one server told."""

    use: str
    setting: str
    where: str
    state: Literal["reached", "embedded", "unreachable", "wrong"]
    reason: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """What is wrong with it, and which setting to look at."""
        return f"{self.setting}: the {self.use} ({self.where}) is {self.state}: {self.reason}"


class ServersUnreachable(ServiceError, TransientError):
    """Configured servers do not answer; nothing was begun."""


class ServersWrong(ServiceError, ConfigError):
    """A setting names a server that cannot be used; nothing was begun."""


Uses = Callable[["Settings"], Sequence[Server]]
USES: Registry[Uses] = Registry("tidemill.doctor", "list of servers")
"""What each part uses under given settings; a package adds its own through the entry point ``tidemill.doctor``."""


def examine(settings: Settings, *, deadline_s: float = DEADLINE_S) -> list[Finding]:
    """Look at every server that some part uses, all at once.

    Args:
        settings: Which servers.
        deadline_s: Seconds after which one that has not answered counts as unreachable.
    """
    servers = [server for part in USES.names() for server in USES.get(part)(settings)]
    found: dict[int, Finding] = {}
    threads = [
        threading.Thread(target=_look, args=(server, found, number), daemon=True)
        for number, server in enumerate(servers)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [found.get(number) or _silent(server, deadline_s) for number, server in enumerate(servers)]


def require(settings: Settings) -> None:
    """Refuse to begin while a server that the settings name is not there.

    Raises:
        ServersWrong: A setting is wrong; names it.
        ServersUnreachable: A server does not answer; names its setting.
    """
    bad = [finding for finding in examine(settings) if finding.state in ("unreachable", "wrong")]
    if not bad:
        return
    kind = ServersWrong if any(finding.state == "wrong" for finding in bad) else ServersUnreachable
    raise kind("; ".join(finding.sentence() for finding in bad))


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """Choose a command's exit code: 3 if a setting is wrong, 75 if a server does not answer."""
    states = {finding.state for finding in findings}
    if "wrong" in states:
        return ExitCode.CONFIG
    return ExitCode.TEMPORARY if "unreachable" in states else ExitCode.DONE


def answers(host: str, port: int) -> None:
    """Connect to a port and leave again.

    Raises:
        ServersUnreachable: Nothing listens there.
    """
    try:
        socket.create_connection((host, port), timeout=DEADLINE_S).close()
    except OSError as error:
        raise ServersUnreachable(f"{host}:{port} does not answer: {error.strerror or error}") from error


def _look(server: Server, found: dict[int, Finding], number: int) -> None:
    began = time.monotonic()
    state: Literal["reached", "embedded", "unreachable", "wrong"] = "reached" if server.ask else "embedded"
    reason = ""
    try:
        if server.ask is not None:
            server.ask()
    except TidemillError as error:
        state = "wrong" if isinstance(error, PermanentError) else "unreachable"
        reason = " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001 - whatever a driver raises, the server cannot be used
        state, reason = "unreachable", f"{type(error).__name__}: {error}"
    found[number] = Finding(
        use=server.use,
        setting=server.setting,
        where=server.where,
        state=state,
        reason=reason,
        seconds=round(time.monotonic() - began, 3),
    )


def _silent(server: Server, deadline_s: float) -> Finding:
    reason = f"no answer within {deadline_s:g} s"
    return Finding(use=server.use, setting=server.setting, where=server.where, state="unreachable", reason=reason)


def core_servers(settings: Settings) -> Sequence[Server]:
    """What core uses: the home, the warehouse, the broker, the lake and its mirror, and Dagster's storage."""
    home = settings.home.absolute()
    found = [Server(use="home", setting="TIDEMILL_HOME", where=str(home), ask=lambda: _can_write(home))]
    found.append(
        _postgres("warehouse", "TIDEMILL_POSTGRES_URL", settings.postgres_url.get_secret_value())
        if settings.postgres_url
        else Server(use="warehouse", setting="TIDEMILL_POSTGRES_URL", where=f"PostgreSQL in {home}")
    )
    broker = settings.kafka_bootstrap
    found.append(
        Server(use="broker", setting="TIDEMILL_KAFKA_BOOTSTRAP", where=broker, ask=lambda: _kafka(broker))
        if broker
        else Server(use="broker", setting="TIDEMILL_KAFKA_BOOTSTRAP", where="librdkafka's mock")
    )
    found.append(_store("lake", "TIDEMILL_LAKE_URL", settings.lake_url, settings.lake(), settings))
    found.append(_store("mirror", "TIDEMILL_MIRROR_URL", settings.mirror_url, settings.mirror(), settings))
    if settings.dagster_postgres_url:
        url = settings.dagster_postgres_url.get_secret_value()
        found.append(_postgres("storage of Dagster", "TIDEMILL_DAGSTER_POSTGRES_URL", url))
    if settings.compute_logs_url:
        logs = settings.compute_logs_url
        found.append(_store("compute logs", "TIDEMILL_COMPUTE_LOGS_URL", logs, logs, settings))
    return found


def _can_write(folder: Path) -> None:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there} cannot be written; set TIDEMILL_HOME to a folder of your own")


def _postgres(use: str, setting: str, url: str) -> Server:
    def ask() -> None:
        from tidemill_core.postgres import connect

        connect(url.replace("+psycopg2", "", 1)).close()

    return Server(use=use, setting=setting, where=_without_secrets(url), ask=ask)


def _kafka(bootstrap: str) -> None:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=DEADLINE_S - 2)
    except KafkaException as error:
        raise ServersUnreachable(f"Kafka does not answer: {error.args[0].str()}") from error


def _store(use: str, setting: str, given: str | None, url: str, settings: Settings) -> Server:
    if given is None:
        return Server(use=use, setting=setting, where=url)

    def ask() -> None:
        from tidemill_core.storage import open_store

        next(iter(open_store(url, settings.storage).list("")), None)

    return Server(use=use, setting=setting, where=_without_secrets(url), ask=ask)


def _without_secrets(url: str) -> str:
    """Write a URL without password and query."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}"
