"""Object stores by URL: ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``, ``lake://``, ``mirror://``."""

from __future__ import annotations

from collections.abc import Callable

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.plugins import Registry
from tidemill_core.settings import Settings, StorageOptions
from tidemill_core.storage._base import (
    Body,
    Capabilities,
    Fetching,
    ObjectInfo,
    ObjectStore,
    Page,
    Paging,
    fetch,
    list_pages,
    pages_of,
)
from tidemill_core.storage._uploads import Resuming, SentPart, Upload
from tidemill_core.storage.errors import KeyRefused, StoreRefused, StoreUnavailable

__all__ = [
    "STORES",
    "Body",
    "Capabilities",
    "Fetching",
    "KeyRefused",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "Page",
    "Paging",
    "PreconditionFailed",
    "Resuming",
    "SentPart",
    "StorageError",
    "StorageOptions",
    "StoreRefused",
    "StoreUnavailable",
    "Upload",
    "fetch",
    "list_pages",
    "open_store",
    "pages_of",
    "resolve_url",
]

Opener = Callable[[str, StorageOptions], ObjectStore]

STORES: Registry[Opener] = Registry("tidemill.storage", "object store")
"""Openers by URL scheme; an opener takes the whole URL and the options."""


def open_store(url: str, options: StorageOptions | None = None) -> ObjectStore:
    """Open the store whose keys begin at `url`; no request is made until it is used.

    Args:
        url: ``scheme://bucket/prefix``, a local path, or ``lake://path`` and
            ``mirror://path``, which stand for what the settings name.
        options: Endpoints and credentials; default the ``TIDEMILL_*`` variables.

    Raises:
        PluginError: No installed store knows the scheme.
        ConfigError: The URL is not one of its scheme.

    Example:
        >>> store = open_store("memory://example")
        >>> store.put("a/b.txt", b"hello").size_bytes
        5
        >>> [each.key for each in store.list("a/")]
        ['a/b.txt']
    """
    url = resolve_url(url)
    scheme = url.partition("://")[0]
    return STORES.get(scheme)(url, Settings.from_env().storage if options is None else options)


def resolve_url(url: str, settings: Settings | None = None) -> str:
    """Replace ``lake://`` and ``mirror://`` by the settings' URLs, and a bare local path by its file URL.

    Raises:
        ConfigError: The text is empty.
    """
    from pathlib import Path

    if not url:
        raise ConfigError("an object store needs a URL, such as file:///data, s3://bucket/prefix or lake://")
    scheme, separator, path = url.partition("://")
    if not separator:
        return Path(url).absolute().as_uri()
    if scheme in {"lake", "mirror"}:
        settings = settings or Settings.from_env()
        base = settings.lake() if scheme == "lake" else settings.mirror()
        path = path.strip("/")
        return f"{resolve_url(base).rstrip('/')}/{path}" if path else resolve_url(base)
    return url
