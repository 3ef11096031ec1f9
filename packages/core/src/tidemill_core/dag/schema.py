"""The JSON Schema of DAG files, for editors."""

from __future__ import annotations

from typing import Any

from tidemill_core.dag.spec import DagSpec


def json_schema() -> dict[str, Any]:
    """Make the schema of one document of a DAG file."""
    schema = DagSpec.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Tidemill DAG"}
