"""Ways to show an API who asks, found by the `type` of a source's `auth`.

A stranger's way is an entry point of the group ``tidemill.ingest.auth``: a class that is called with its
settings and an `AuthContext`, and carries the model of the settings as `config_type`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidemill_core.plugins import Registry

from tidemill_ingest_api.auth._base import Auth, AuthConfig, AuthContext

AUTHS: Registry[Callable[[Any, AuthContext], Auth]] = Registry("tidemill.ingest.auth", "way to authenticate")


def open_auth(config: AuthConfig, context: AuthContext) -> Auth:
    """Make what adds credentials to requests.

    Raises:
        PluginError: No installed way has this type.
    """
    return AUTHS.get(config.type)(config, context)


__all__ = ["AUTHS", "Auth", "AuthConfig", "AuthContext", "open_auth"]
