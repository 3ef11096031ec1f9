"""The resources of this code location: the shared ones, and the bundled upstream API."""

import atexit
from functools import cache

import dagster as dg
from pydantic import Field

from tidemill_deploy.upstream import Upstream


@cache
def bundled_upstream() -> Upstream:
    """Start the bundled API once in this process; it ends with it."""
    server = Upstream()
    atexit.register(server.close)
    return server


class UpstreamResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The weather API: `base_url`, or the bundled server, started on first use."""

    base_url: str = Field(default="", description="Such as http://127.0.0.1:8123; empty starts the bundled server.")

    def get_base_url(self) -> str:
        """Where the API answers."""
        return self.base_url or bundled_upstream().base_url
