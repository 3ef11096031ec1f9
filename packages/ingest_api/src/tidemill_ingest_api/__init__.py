"""Fetch REST APIs into SQLite or PostgreSQL; serve them by REST and gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_ingest_api.defs import IngestComponent

__all__ = ["IngestComponent"]

__getattr__, __dir__ = lazy_names(__name__, {"defs": ["IngestComponent"]})
