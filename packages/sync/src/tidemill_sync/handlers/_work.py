"""Reconcile the keys of several notifications at once, and tell which notifications are not done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tidemill_core.config import load
from tidemill_core.errors import ConfigError
from tidemill_core.storage import open_store
from tidemill_core.telemetry import get_logger

from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import sync_keys
from tidemill_sync.errors import SyncIncomplete, SyncInterrupted
from tidemill_sync.events import EventUnreadable, parse_event, under
from tidemill_sync.variables import CONFIG

log = get_logger(__name__)


def configured() -> SyncConfig:
    """Read the sync that the environment names.

    Raises:
        ConfigError: None is named, or its file is wrong.
    """
    path = os.environ.get(CONFIG)
    if not path:
        raise ConfigError(f"{CONFIG} is not set; it names the YAML or JSON file of the sync")
    return load(path, SyncConfig)


def reconcile(config: SyncConfig, documents: Mapping[str, Any]) -> dict[str, str]:
    """Reconcile the keys that notifications name, each key once.

    Args:
        config: The sync.
        documents: Notifications by a name of the caller's.

    Returns:
        The names of those that are not done, each with its reason.

    Raises:
        TidemillError: Nothing is known to be done.
    """
    place = open_store(config.source).url
    undone: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for name, document in documents.items():
        try:
            wanted[name] = set(under(parse_event(document), place))
        except EventUnreadable as error:
            log.warning("event_unreadable", error=str(error))
            undone[name] = str(error)
    try:
        _sync(config, set().union(*wanted.values()))
    except (SyncIncomplete, SyncInterrupted):
        # One bad key must not hold up the others: nothing is deleted in a run in which a copy fails.
        for name, keys in wanted.items():
            try:
                _sync(config, keys)
            except (SyncIncomplete, SyncInterrupted) as error:
                undone[name] = str(error)
    return undone


def _sync(config: SyncConfig, keys: set[str]) -> None:
    if keys:
        sync_keys(config, keys)
