"""Parquet, CSV and JSON files to PostgreSQL, in parallel and resumable."""
