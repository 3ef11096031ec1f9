"""Databases rows go to, found by the scheme of a URL: ``sqlite:///file.db``, ``postgresql://...``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill_core.plugins import Registry

if TYPE_CHECKING:
    from tidemill_ingest_api.stores._base import Store

STORES: Registry[Callable[[str], Store]] = Registry("tidemill.ingest.stores", "ingest store")


def open_store(url: str) -> Store:
    """Open a store.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://...``
            (also ``postgres://``), or the scheme of an installed extension.

    Raises:
        PluginError: No store has this scheme.
        StoreUnavailable: The database does not answer.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    return STORES.get("postgresql" if scheme == "postgres" else scheme)(url)
