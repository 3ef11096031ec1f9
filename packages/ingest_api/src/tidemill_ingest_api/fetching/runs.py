"""Put a run together: the source's URL looked up, its client and its store opened and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tidemill_core.lifecycle import StopToken

from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.sources import find_base_url
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.stores._base import Store


def store_url(source: SourceConfig, given: str | None = None) -> str:
    """Choose the store: the given URL, the source's own, else the configured or embedded PostgreSQL.

    Raises:
        ServiceError: The embedded PostgreSQL cannot start.
    """
    if given:
        return given
    if source.store is not None:
        return source.store.get_secret_value()
    from tidemill_core.embedded.runtime import postgres_url

    return postgres_url()


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """Open a store for the length of a block."""
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def connected(
    source: SourceConfig,
    *,
    base_url: str | None = None,
    resource: Callable[[str], object] | None = None,
    stop: StopToken | None = None,
) -> Iterator[Client]:
    """Open a client for the length of a block.

    Args:
        source: Whose API.
        base_url: Replaces the source's.
        resource: Finds Dagster resources by key.
        stop: Ends waits early.

    Raises:
        ConfigError: The source's base URL cannot be looked up.
    """
    client = Client(source, base_url.rstrip("/") if base_url else find_base_url(source, resource=resource), stop=stop)
    try:
        yield client
    finally:
        client.close()
