"""Dagster components of the loader."""

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_loader.defs.component import LoadAttributes, LoadComponent
    from tidemill_loader.defs.options import AssetLoad

__all__ = ["AssetLoad", "LoadAttributes", "LoadComponent"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "component": ["LoadAttributes", "LoadComponent"],
        "options": ["AssetLoad"],
    },
)
