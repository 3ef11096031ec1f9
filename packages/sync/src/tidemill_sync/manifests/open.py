"""Open a manifest by its URL; what keeps one is found through entry points."""

from __future__ import annotations

from collections.abc import Callable

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry

from tidemill_sync.manifests._base import Manifest

MANIFESTS: Registry[Callable[[str], Manifest]] = Registry("tidemill.sync.manifests", "sync manifest")
"""Openers by URL scheme; an opener takes the whole URL, which may hold a password, and makes its tables."""


def open_manifest(url: str) -> Manifest:
    """Open ``sqlite:///path``, ``postgresql://...``, or what an installed package adds.

    Raises:
        ConfigError: The text is no URL.
        PluginError: No installed manifest knows the scheme, or its extra is missing.
        TidemillError: The place cannot be opened.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        # The text is not shown: a URL cut in the wrong place may begin with its password.
        raise ConfigError(f"the manifest must be a URL of a known scheme: {', '.join(MANIFESTS.names())}")
    return MANIFESTS.get(scheme)(url)
