"""A Google Cloud function that mirrors what Pub/Sub pushes: ``tidemill_sync.handlers.pubsub.handler``."""

from __future__ import annotations

from typing import Any, Protocol

from tidemill_core.errors import ConfigError, TidemillError
from tidemill_core.telemetry import get_logger

from tidemill_sync.handlers._work import configured, reconcile

log = get_logger(__name__)


class PushRequest(Protocol):
    """What is asked of an HTTP request; Flask's is one."""

    def get_json(self, *, silent: bool = False) -> Any:
        """The body's JSON, or None."""


def handler(request: PushRequest) -> tuple[str, int]:
    """Reconcile the key of a pushed message.

    Args:
        request: The HTTP request.

    Returns:
        A text and a status: 204 acknowledges; with any other Pub/Sub delivers again, and to
        the dead-letter topic in the end.

    Raises:
        ConfigError: The sync is not configured.
    """
    config = configured()
    try:
        undone = reconcile(config, {"message": request.get_json(silent=True)})
    except ConfigError:
        raise
    except TidemillError as error:
        log.warning("message_not_done", error=str(error))
        return str(error), 503
    return (undone["message"], 422) if undone else ("", 204)
