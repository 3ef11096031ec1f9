"""Kafka: which topics and offsets there are, what is published, and where to begin after a change."""
