"""The pytest plugin: fixtures for real servers, each found, started, or skipped with the reason.

Loaded in every pytest run through the entry point `pytest11`, so it imports nothing but pytest.
A fixture looks for an environment variable (``TIDEMILL_TEST_POSTGRES_URL``,
``TIDEMILL_TEST_KAFKA_BOOTSTRAP``, ...), then for the server that test processes share, then
starts that. ``TIDEMILL_REQUIRE=postgres,kafka,s3,neo4j,gcs,azure`` turns a skip into a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tidemill_core.services.running import Running
    from tidemill_core.settings import StorageOptions
    from tidemill_core.testing.objects import S3Server


@pytest.fixture(scope="session")
def postgres_admin_url() -> str:
    """URL of the shared test server; may create databases and roles."""
    from tidemill_core.testing.postgres import admin_url

    return admin_url()


@pytest.fixture
def postgres_url(postgres_admin_url: str) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database, dropped after the test."""
    from tidemill_core.testing.postgres import fresh_database

    with fresh_database(postgres_admin_url) as url:
        yield url


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """Bootstrap servers of a real Apache Kafka, shared by all test processes."""
    from tidemill_core.testing.brokers import bootstrap

    return bootstrap()


@pytest.fixture
def kafka_topic(kafka_bootstrap: str) -> Iterator[str]:
    """Name of a fresh topic of 4 partitions on the real Kafka, deleted after the test."""
    from tidemill_core.testing.brokers import fresh_topic

    with fresh_topic(kafka_bootstrap) as name:
        yield name


@pytest.fixture(scope="session")
def kafka_mock_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of librdkafka's mock broker, in a process of this session's own."""
    from tidemill_core.testing.brokers import mock_broker

    with mock_broker(tmp_path_factory.mktemp("kafka-mock")) as servers:
        yield servers


@pytest.fixture(scope="session")
def s3mock() -> S3Server:
    """Adobe S3Mock: conditions, multipart and odd keys as on AWS."""
    from tidemill_core.testing.objects import s3_server

    return s3_server("s3mock")


@pytest.fixture(scope="session")
def versitygw() -> S3Server:
    """versitygw: the fast S3 server, for large objects and many requests."""
    from tidemill_core.testing.objects import s3_server

    return s3_server("versitygw")


@pytest.fixture
def s3_bucket(request: pytest.FixtureRequest) -> tuple[str, StorageOptions]:
    """URL and options of a fresh S3 bucket; parametrize indirectly with ``versitygw`` for that server."""
    from tidemill_core.testing.objects import s3_bucket

    return s3_bucket(request.getfixturevalue(getattr(request, "param", "s3mock")))


@pytest.fixture
def gcs_bucket() -> Iterator[tuple[str, StorageOptions]]:
    """URL and options of a fresh GCS bucket on fake-gcs-server."""
    from tidemill_core.testing.objects import gcs_bucket

    with gcs_bucket() as bucket:
        yield bucket


@pytest.fixture
def azure_container() -> Iterator[tuple[str, StorageOptions]]:
    """URL and options of a fresh Azure container on Azurite."""
    from tidemill_core.testing.objects import azure_container

    with azure_container() as container:
        yield container


@pytest.fixture
def neo4j_url() -> Iterator[str]:
    """Bolt URL of an emptied Neo4j that no other test uses meanwhile."""
    from tidemill_core.testing.graphs import empty_graph

    with empty_graph() as url:
        yield url


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Start servers of the test's own by name (``own_server("kafka")``), free to be killed by it."""
    from tidemill_core.testing.servers import own_servers

    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(f"own-{name}")

    with own_servers(folder) as start:
        yield start
