"""Trace data transformations into a graph: JSON, Neo4j, OpenLineage."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_lineage.capture.declared import declare
    from tidemill_lineage.capture.sql import capture_sql
    from tidemill_lineage.emitters.json_file import JsonFileEmitter, load_graph
    from tidemill_lineage.emitters.neo4j import Neo4jEmitter
    from tidemill_lineage.emitters.openlineage import OpenLineageEmitter
    from tidemill_lineage.events import EventLog
    from tidemill_lineage.graph import Graph, diff, merge
    from tidemill_lineage.html import write_page
    from tidemill_lineage.model import Column, Dataset, Edge, Job, Run
    from tidemill_lineage.tracer import Tracer

__all__ = [
    "Column",
    "Dataset",
    "Edge",
    "EventLog",
    "Graph",
    "Job",
    "JsonFileEmitter",
    "Neo4jEmitter",
    "OpenLineageEmitter",
    "Run",
    "Tracer",
    "capture_sql",
    "declare",
    "diff",
    "load_graph",
    "merge",
    "write_page",
]

_HOMES = {
    "Column": "model",
    "Dataset": "model",
    "Edge": "model",
    "EventLog": "events",
    "Graph": "graph",
    "Job": "model",
    "JsonFileEmitter": "emitters.json_file",
    "Neo4jEmitter": "emitters.neo4j",
    "OpenLineageEmitter": "emitters.openlineage",
    "Run": "model",
    "Tracer": "tracer",
    "capture_sql": "capture.sql",
    "declare": "capture.declared",
    "diff": "graph",
    "load_graph": "emitters.json_file",
    "merge": "graph",
    "write_page": "html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
