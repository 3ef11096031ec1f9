"""Kafka to PostgreSQL or an object store: validate, filter, window, exactly once."""
