"""Serve fetched tables: REST and gRPC over the same questions, the same pages and the same limits."""
