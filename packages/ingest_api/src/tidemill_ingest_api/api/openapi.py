"""The OpenAPI 3.1 document of a source's tables, written from its streams."""

from __future__ import annotations

from typing import Any

from tidemill_ingest_api.config import KeyedServe, SourceConfig, StreamConfig
from tidemill_ingest_api.records.kinds import KINDS
from tidemill_ingest_api.stores.query import DEFAULT_LIMIT, MAX_LIMIT, OPERATORS, filterable, sortable


def document(source: SourceConfig, version: str) -> dict[str, Any]:
    """Write the document.

    Args:
        source: What is served.
        version: Of this package.
    """
    paths: dict[str, Any] = {"/v1": {"get": _tables()}}
    for stream in source.streams:
        paths[f"/v1/{stream.name}"] = {"get": _list(stream)}
        paths[f"/v1/{stream.name}/{{key}}"] = {"get": _get(stream)}
    components: dict[str, Any] = {
        "schemas": {"Problem": _PROBLEM, **{stream.name: _record(stream) for stream in source.streams}}
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"Tables of {source.source}", "version": version},
        "paths": paths,
        "components": components,
    }
    if source.serve is not None and isinstance(source.serve.auth, KeyedServe):
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"key": []}]
    return described


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
    },
}


def _record(stream: StreamConfig) -> dict[str, Any]:
    properties = {}
    for name, field in stream.fields.items():
        schema = dict(KINDS[field.type].schema)
        if name not in stream.primary_key and "type" in schema:
            schema["type"] = [schema["type"], "null"]
        properties[name] = schema
    return {"type": "object", "properties": properties, "required": list(stream.fields)}


def _list(stream: StreamConfig) -> dict[str, Any]:
    sorts = ", ".join(sortable(stream))
    parameters = [
        _query(
            "limit",
            f"Rows, 1 to {MAX_LIMIT}; NDJSON and CSV send all rows without it.",
            {"type": "integer", "default": DEFAULT_LIMIT},
        ),
        _query("order", f"Columns of {sorts}, separated by commas; - before one means descending."),
        _query("select", "Columns to keep, separated by commas."),
        _query("after", "Cursor of the page to read, from `next` of the one before."),
        _query(
            "format",
            "json, ndjson, csv or arrow; else the Accept header says.",
            {"enum": ["json", "ndjson", "csv", "arrow"]},
        ),
    ]
    parameters += [
        _query(name, f"OPERATOR.VALUE; operators: {', '.join(OPERATORS)}. May be repeated.")
        for name in filterable(stream)
    ]
    page = {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": {"$ref": f"#/components/schemas/{stream.name}"}},
            "next": {"type": ["string", "null"]},
        },
        "required": ["data", "next"],
    }
    content = {
        "application/json": {"schema": page},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "text/csv": {"schema": {"type": "string"}},
        "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
    }
    return {
        "operationId": f"list_{stream.name}",
        "summary": f"List {stream.name}",
        "parameters": parameters,
        "responses": {"200": {"description": "One page.", "content": content}, **_OTHERS},
    }


def _get(stream: StreamConfig) -> dict[str, Any]:
    names = ",".join(stream.primary_key)
    described = f"Value of {names}; several parts are separated by commas, a comma inside one is written %2C."
    parameter = {"name": "key", "in": "path", "required": True, "description": described, "schema": {"type": "string"}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{stream.name}"}}}
    return {
        "operationId": f"get_{stream.name}",
        "summary": f"Get one record of {stream.name}",
        "parameters": [parameter],
        "responses": {"200": {"description": "The record.", "content": content}, **_OTHERS},
    }


def _tables() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "list_tables",
        "summary": "List tables, their columns, filters and orders",
        "responses": {"200": {"description": "The tables.", "content": content}, **_OTHERS},
    }


def _query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


_OTHERS = {
    "304": {"description": "Not changed since the ETag in If-None-Match."},
    "400": _problem("The question is not understood."),
    "401": _problem("No valid key."),
    "404": _problem("No such table or record."),
    "429": _problem("Too many requests; see Retry-After."),
}
