"""Lineage for Dagster: a resource that traces assets, and a component that collects what a run announced.

Names are loaded when they are used.
"""

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_lineage.defs.component import LineageComponent, LineageConfig
    from tidemill_lineage.defs.listen import install
    from tidemill_lineage.defs.metadata import column_metadata
    from tidemill_lineage.defs.resource import LineageResource

__all__ = ["LineageComponent", "LineageConfig", "LineageResource", "column_metadata", "install"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "component": ["LineageComponent", "LineageConfig"],
        "listen": ["install"],
        "metadata": ["column_metadata"],
        "resource": ["LineageResource"],
    },
)
