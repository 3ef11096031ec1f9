"""Benchmarks of tidemill_lineage."""
