"""Every service fixture hands out a real server that does what tests will rely on."""

from __future__ import annotations

import uuid

import pytest
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import open_store


def _roundtrip(servers: str, topic: str) -> list[bytes]:
    from confluent_kafka import Consumer, Producer
    from tidemill_core.embedded.kafka import consumer_defaults, producer_defaults

    producer = Producer({"bootstrap.servers": servers, **producer_defaults()})
    for number in range(5):
        producer.produce(topic, value=str(number).encode())
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": servers, "group.id": uuid.uuid4().hex, **consumer_defaults()})
    consumer.subscribe([topic])
    seen: list[bytes] = []
    while len(seen) < 5:
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        seen.append(message.value())
    consumer.close()
    return sorted(seen)


def test_a_topic_of_real_kafka_keeps_what_is_produced(kafka_bootstrap: str, kafka_topic: str) -> None:
    seen = _roundtrip(kafka_bootstrap, kafka_topic)

    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_the_mock_broker_keeps_what_is_produced(kafka_mock_bootstrap: str) -> None:
    seen = _roundtrip(kafka_mock_bootstrap, "made-by-producing")

    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def _is_a_working_store(url: str, options: StorageOptions) -> bool:
    store = open_store(url, options)
    before = [each.key for each in store.list()]
    store.put("a/b", b"x")
    return before == [] and store.get("a/b") == b"x"


@pytest.mark.parametrize("s3_bucket", ["s3mock", "versitygw"], indirect=True)
def test_an_s3_bucket_is_empty_and_ours(s3_bucket: tuple[str, StorageOptions]) -> None:
    assert _is_a_working_store(*s3_bucket)


def test_a_gcs_bucket_is_empty_and_ours(gcs_bucket: tuple[str, StorageOptions]) -> None:
    assert _is_a_working_store(*gcs_bucket)


def test_an_azure_container_is_empty_and_ours(azure_container: tuple[str, StorageOptions]) -> None:
    assert _is_a_working_store(*azure_container)


def test_a_graph_is_empty_even_after_another_test_filled_it(neo4j_url: str) -> None:
    neo4j = pytest.importorskip("neo4j")
    with neo4j.GraphDatabase.driver(neo4j_url, auth=None) as driver:
        driver.execute_query("CREATE (:Thing {name: 'left behind'})")

        count = driver.execute_query("MATCH (n) RETURN count(n) AS n").records[0]["n"]

    assert count == 1
