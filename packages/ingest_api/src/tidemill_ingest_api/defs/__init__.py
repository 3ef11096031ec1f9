"""Tidemill's API ingestion for Dagster."""

from tidemill_ingest_api.defs.component import IngestComponent, IngestConfig

__all__ = ["IngestComponent", "IngestConfig"]
