"""Trace data transformations into a graph: JSON, Neo4j, OpenLineage."""
