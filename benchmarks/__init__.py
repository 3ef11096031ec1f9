"""Benchmarks: every number in a document comes from a script in here."""
