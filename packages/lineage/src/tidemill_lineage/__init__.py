"""Trace data transformations into a graph: JSON, Neo4j, OpenLineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_lineage.capture.declared import declare
    from tidemill_lineage.capture.sql import capture_sql
    from tidemill_lineage.defs import LineageComponent
    from tidemill_lineage.emitters.json_file import JsonFileEmitter, load_graph
    from tidemill_lineage.emitters.neo4j import Neo4jEmitter
    from tidemill_lineage.emitters.openlineage import OpenLineageEmitter
    from tidemill_lineage.emitters.sqlite import SqliteEmitter
    from tidemill_lineage.events import EventLog
    from tidemill_lineage.graph import Graph, diff, merge
    from tidemill_lineage.html import write_page
    from tidemill_lineage.model import Column, Dataset, Edge, Job, Run
    from tidemill_lineage.stored_graph import StoredGraph
    from tidemill_lineage.tracer import Tracer

__all__ = [
    "Column",
    "Dataset",
    "Edge",
    "EventLog",
    "Graph",
    "Job",
    "JsonFileEmitter",
    "LineageComponent",
    "Neo4jEmitter",
    "OpenLineageEmitter",
    "Run",
    "SqliteEmitter",
    "StoredGraph",
    "Tracer",
    "capture_sql",
    "declare",
    "diff",
    "load_graph",
    "merge",
    "write_page",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "defs": ["LineageComponent"],
        "capture.declared": ["declare"],
        "capture.sql": ["capture_sql"],
        "emitters.json_file": ["JsonFileEmitter", "load_graph"],
        "emitters.neo4j": ["Neo4jEmitter"],
        "emitters.openlineage": ["OpenLineageEmitter"],
        "emitters.sqlite": ["SqliteEmitter"],
        "events": ["EventLog"],
        "graph": ["Graph", "diff", "merge"],
        "html": ["write_page"],
        "model": ["Column", "Dataset", "Edge", "Job", "Run"],
        "stored_graph": ["StoredGraph"],
        "tracer": ["Tracer"],
    },
)
