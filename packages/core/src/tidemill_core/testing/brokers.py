"""Kafka brokers for tests: the real one that all share, and librdkafka's mock."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def bootstrap() -> str:
    """Find or start the shared Apache Kafka and return its bootstrap servers."""
    given = os.environ.get("TIDEMILL_TEST_KAFKA_BOOTSTRAP")
    if given:
        return given
    from tidemill_core.services.kafka import KafkaService
    from tidemill_core.testing.servers import shared

    return shared(KafkaService(), kind="kafka").url


@contextmanager
def fresh_topic(servers: str, *, partitions: int = 4) -> Iterator[str]:
    """Create a topic, yield its name once every partition has a leader, and delete it."""
    kafka_admin: Any = import_module("confluent_kafka.admin")  # it does not mark what it exports

    name = f"t-{secrets.token_hex(6)}"
    admin = kafka_admin.AdminClient({"bootstrap.servers": servers})
    admin.create_topics([kafka_admin.NewTopic(name, num_partitions=partitions, replication_factor=1)])[name].result(30)
    _await_leaders(admin, name, partitions)
    try:
        yield name
    finally:
        admin.delete_topics([name])[name].exception(30)


def _await_leaders(admin: Any, name: str, partitions: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        topic = admin.list_topics(name, timeout=10).topics[name]
        if len(topic.partitions) == partitions and all(each.leader >= 0 for each in topic.partitions.values()):
            return
        time.sleep(0.02)
    raise TimeoutError(f"topic {name} has no leaders after 30 s")


@contextmanager
def mock_broker(folder: Path) -> Iterator[str]:
    """Run a mock broker of the test session's own."""
    from tidemill_core.embedded.kafka import ensure_kafka
    from tidemill_core.errors import ServiceError
    from tidemill_core.services.running import find
    from tidemill_core.testing.servers import absent

    try:
        server = ensure_kafka(folder)
    except ServiceError as error:
        absent("kafka-mock", error)
    try:
        yield server.url
    finally:
        running = find(folder / "kafka")
        if running is not None:
            running.stop()
