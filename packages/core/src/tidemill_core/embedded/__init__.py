"""Servers for a laptop without Docker: started when first needed, shared by processes, stopped by the last one."""

from tidemill_core.embedded._base import EmbeddedServer
from tidemill_core.embedded.kafka import consumer_defaults, ensure_kafka, producer_defaults
from tidemill_core.embedded.postgres import ensure_postgres

__all__ = ["EmbeddedServer", "consumer_defaults", "ensure_kafka", "ensure_postgres", "producer_defaults"]
