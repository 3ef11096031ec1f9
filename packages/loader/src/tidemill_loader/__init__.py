"""Parquet, CSV and JSON files to PostgreSQL, in parallel and resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_loader.defs import LoadComponent

__all__ = ["LoadComponent"]

__getattr__, __dir__ = lazy_names(__name__, {"defs": ["LoadComponent"]})
