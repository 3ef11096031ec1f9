"""Where runs go: JSON files, Neo4j, OpenLineage; others register under ``tidemill.lineage.emitters``."""
