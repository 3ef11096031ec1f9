"""Real servers without Docker: fetched at a pinned version, started on loopback, and stopped again."""
