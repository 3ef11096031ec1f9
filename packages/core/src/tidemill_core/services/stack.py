"""The stack of a developer's machine: servers that run detached until they are told to stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from tidemill_core.plugins import did_you_mean
from tidemill_core.services._base import Service
from tidemill_core.services.errors import UnknownService
from tidemill_core.services.running import Running, find, recall, start

SERVICES = {
    "postgres": "tidemill_core.services.postgres:PostgresService",
    "kafka": "tidemill_core.services.kafka:KafkaService",
    "s3mock": "tidemill_core.services.s3:S3MockService",
    "neo4j": "tidemill_core.services.neo4j:Neo4jService",
    "versitygw": "tidemill_core.services.s3:VersityGwService",
    "fake-gcs": "tidemill_core.services.fake_gcs:FakeGcsService",
    "azurite": "tidemill_core.services.azurite:AzuriteService",
}
DEFAULT = ("postgres", "kafka", "s3mock", "neo4j")
"""What `up` starts when no names are given: all that the main job can use."""


def service(name: str) -> Service:
    """Make the service called `name`.

    Raises:
        UnknownService: There is none; says the nearest name.
    """
    if name not in SERVICES:
        raise UnknownService(name, did_you_mean(name, sorted(SERVICES)))
    module, _, attribute = SERVICES[name].partition(":")
    return cast("Service", getattr(import_module(module), attribute)())


def up(home: Path, names: Sequence[str] = ()) -> Iterator[tuple[Running, bool]]:
    """Start servers one after another; yields each, and whether this call started it.

    Args:
        home: The Tidemill home; each server has a folder in its ``services``.
        names: Which servers; empty means `DEFAULT`.
    """
    for each in [service(name) for name in names or DEFAULT]:
        yield start(each, folder_of(home, each.name))


def down(home: Path, names: Sequence[str] = ()) -> Iterator[str]:
    """Stop servers (empty means all that run); yields the name of each that was stopped."""
    chosen = [service(name).name for name in names] or list(SERVICES)
    for name in chosen:
        running = recall(folder_of(home, name))
        if running is not None and running.stop():
            yield name


def status(home: Path) -> list[Running]:
    """List the servers that run."""
    return [running for name in SERVICES if (running := find(folder_of(home, name))) is not None]


def settings(running: Sequence[Running]) -> dict[str, str]:
    """Merge the variables that point everything at these servers; the first to name one wins."""
    merged: dict[str, str] = {}
    for each in running:
        for name, value in each.settings.items():
            merged.setdefault(name, value)
    return merged


def folder_of(home: Path, name: str) -> Path:
    """Folder of one server's configuration, data, log and record."""
    return home.absolute() / "services" / name
