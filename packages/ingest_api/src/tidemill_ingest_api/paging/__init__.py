"""Ways to reach the next page, found by the `type` of a stream's `paginate`.

A stranger's way is an entry point of the group ``tidemill.ingest.paging``: a class that is called with its
settings and carries their model, a `Paging`, as `config_type`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidemill_core.plugins import Registry

from tidemill_ingest_api.paging._base import PageContent, Pager, PageRequest, Paging

PAGINGS: Registry[Callable[[Any], Pager]] = Registry("tidemill.ingest.paging", "way of paging")


def open_pager(config: Paging) -> Pager:
    """Make what finds the next page.

    Raises:
        PluginError: No installed way has this type.
    """
    return PAGINGS.get(config.type)(config)


__all__ = ["PAGINGS", "PageContent", "PageRequest", "Pager", "Paging", "open_pager"]
