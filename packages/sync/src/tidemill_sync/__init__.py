"""Mirror objects between S3, GCS, Azure and local folders, exactly and resumably."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_sync.apply import PlanResult, apply_plan, keep_plan
    from tidemill_sync.config import SyncConfig
    from tidemill_sync.defs import SyncComponent
    from tidemill_sync.engine import plan_actions, sync, sync_keys
    from tidemill_sync.plan import Action, Entry
    from tidemill_sync.result import SyncResult
    from tidemill_sync.verification import VerifyReport, verify

__all__ = [
    "Action",
    "Entry",
    "PlanResult",
    "SyncComponent",
    "SyncConfig",
    "SyncResult",
    "VerifyReport",
    "apply_plan",
    "keep_plan",
    "plan_actions",
    "sync",
    "sync_keys",
    "verify",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "apply": ["PlanResult", "apply_plan", "keep_plan"],
        "defs": ["SyncComponent"],
        "config": ["SyncConfig"],
        "engine": ["plan_actions", "sync", "sync_keys"],
        "plan": ["Action", "Entry"],
        "result": ["SyncResult"],
        "verification": ["VerifyReport", "verify"],
    },
)
