"""The shared kernel of Tidemill, and DAG files compiled to Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_core.defs import AssetsComponent, DagComponent, ResourcesComponent

__all__ = ["AssetsComponent", "DagComponent", "ResourcesComponent"]

__getattr__, __dir__ = lazy_names(__name__, {"defs": ["AssetsComponent", "DagComponent", "ResourcesComponent"]})
