"""Lineage for Dagster: a resource that traces assets, and a component that collects what a run announced.

Names are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_lineage.defs.component import LineageComponent, LineageConfig
    from tidemill_lineage.defs.listen import install
    from tidemill_lineage.defs.metadata import column_metadata
    from tidemill_lineage.defs.resource import LineageResource

__all__ = ["LineageComponent", "LineageConfig", "LineageResource", "column_metadata", "install"]

_HOMES = {
    "LineageComponent": "component",
    "LineageConfig": "component",
    "LineageResource": "resource",
    "column_metadata": "metadata",
    "install": "listen",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
