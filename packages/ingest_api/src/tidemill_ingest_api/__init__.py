"""Fetch REST APIs into SQLite or PostgreSQL; serve them by REST and gRPC."""
