"""Mirror objects between S3, GCS, Azure and local folders, exactly and resumably."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_sync.config import SyncConfig
    from tidemill_sync.engine import plan_actions, sync, sync_keys
    from tidemill_sync.plan import Action, Entry
    from tidemill_sync.result import SyncResult
    from tidemill_sync.verification import VerifyReport, verify

__all__ = [
    "Action",
    "Entry",
    "SyncConfig",
    "SyncResult",
    "VerifyReport",
    "plan_actions",
    "sync",
    "sync_keys",
    "verify",
]

_HOMES = {
    "Action": "plan",
    "Entry": "plan",
    "SyncConfig": "config",
    "SyncResult": "result",
    "VerifyReport": "verification",
    "plan_actions": "engine",
    "sync": "engine",
    "sync_keys": "engine",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
