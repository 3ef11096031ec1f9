"""Every service fixture hands out a real server that does what tests will rely on."""

from __future__ import annotations

import uuid

import pytest
from tidemill_core.settings import StorageOptions


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


@pytest.mark.parametrize("s3_bucket", ["s3mock", "versitygw"], indirect=True)
def test_an_s3_bucket_is_empty_and_ours(s3_bucket: tuple[str, StorageOptions]) -> None:
    import boto3

    url, options = s3_bucket
    assert options.s3_secret_access_key is not None
    client = boto3.client(
        "s3",
        endpoint_url=options.s3_endpoint_url,
        aws_access_key_id=options.s3_access_key_id,
        aws_secret_access_key=options.s3_secret_access_key.get_secret_value(),
        region_name="us-east-1",
    )
    bucket = url.removeprefix("s3://")

    before = client.list_objects_v2(Bucket=bucket).get("KeyCount")
    client.put_object(Bucket=bucket, Key="a/b", Body=b"x", IfNoneMatch="*")
    after = client.get_object(Bucket=bucket, Key="a/b")["Body"].read()

    assert (before, after) == (0, b"x")


def test_a_gcs_bucket_is_there(gcs_bucket: tuple[str, StorageOptions]) -> None:
    import httpx

    url, options = gcs_bucket

    answer = httpx.get(f"{options.gcs_endpoint_url}/storage/v1/b/{url.removeprefix('gs://')}/o")

    assert answer.status_code == 200
    assert answer.json().get("items") is None


def test_an_azure_container_is_there(azure_container: tuple[str, StorageOptions]) -> None:
    import obstore
    from obstore.store import AzureStore

    url, options = azure_container
    assert options.azure_key is not None
    store = AzureStore(
        url.removeprefix("az://"),
        account_name=options.azure_account,
        account_key=options.azure_key.get_secret_value(),
        endpoint=options.azure_endpoint_url,
        client_options={"allow_http": True},
    )

    obstore.put(store, "a/b", b"x")

    assert bytes(obstore.get(store, "a/b").bytes()) == b"x"


def test_a_graph_is_empty_even_after_another_test_filled_it(neo4j_url: str) -> None:
    neo4j = pytest.importorskip("neo4j")
    with neo4j.GraphDatabase.driver(neo4j_url, auth=None) as driver:
        driver.execute_query("CREATE (:Thing {name: 'left behind'})")

        count = driver.execute_query("MATCH (n) RETURN count(n) AS n").records[0]["n"]

    assert count == 1
