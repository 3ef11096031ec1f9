"""Tidemill's object sync for Dagster."""

from tidemill_sync.defs.component import SyncAssetConfig, SyncComponent

__all__ = ["SyncAssetConfig", "SyncComponent"]
