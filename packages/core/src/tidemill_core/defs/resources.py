"""The shared Dagster resources: an empty field means the settings, and they mean the embedded server when unset."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, ValidationError

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry
from tidemill_core.settings import Settings, StorageOptions

if TYPE_CHECKING:
    import httpx
    import psycopg
    from dagster_aws.s3 import S3Resource

    from tidemill_core.storage._base import ObjectStore


class PostgresResource(dg.ConfigurableResource[Any]):
    """A PostgreSQL database."""

    url: str = Field(default="", description="postgresql://user:password@host:port/db; empty means the settings.")

    def get_url(self) -> str:
        """The URL in force, with its password: never log it."""
        if self.url:
            return self.url
        from tidemill_core.embedded import runtime

        return runtime.postgres_url(Settings.from_env())

    def connect(self, *, autocommit: bool = False) -> "psycopg.Connection[Any]":
        """Open a connection; use it as a context manager.

        Raises:
            PostgresError: The server cannot be reached; transient, unless it refused us.
        """
        from tidemill_core import postgres

        return postgres.connect(self.get_url(), autocommit=autocommit)


class ObjectStoreResource(dg.ConfigurableResource[Any]):
    """A place in an object store: a bucket and prefix, or a folder."""

    url: str = Field(default="", description="file://, s3://, gs:// or az://...; empty means the lake of the settings.")
    anonymous: bool = Field(default=False, description="Sign nothing for a cloud without an identity here.")
    ca_bundle: str = Field(default="", description="PEM file of the authorities to trust.")
    s3_endpoint_url: str = Field(default="", description="S3-compatible endpoint; empty means the settings, then AWS.")
    s3_profile: str = Field(default="", description="Profile of AWS's files.")
    s3_access_key_id: str = Field(default="", description="Access key id; empty means the settings, then AWS's chain.")
    s3_secret_access_key: str = Field(default="", description="Its secret; give it as an EnvVar.")
    s3_session_token: str = Field(default="", description="Its session token, if it is temporary.")
    s3_region: str = Field(default="", description="Region; empty means the settings, then AWS's configuration.")
    s3_sse: str = Field(default="", description="Encryption of what is written: AES256, aws:kms or aws:kms:dsse.")
    s3_kms_key: str = Field(default="", description="KMS key that encrypts what is written.")
    s3_requester_pays: bool = Field(default=False, description="Pay for requests to others' buckets.")
    gcs_endpoint_url: str = Field(default="", description="GCS endpoint; empty means the settings, then Google.")
    gcs_credentials_file: str = Field(default="", description="Google credentials file of any kind.")
    gcs_quota_project: str = Field(default="", description="Project that requests are billed to.")
    azure_endpoint_url: str = Field(default="", description="Blob endpoint; empty means the settings, then Azure.")
    azure_account: str = Field(default="", description="Storage account.")
    azure_key: str = Field(default="", description="Account key; give it as an EnvVar.")
    azure_connection_string: str = Field(default="", description="Connection string; give it as an EnvVar.")
    azure_sas_token: str = Field(default="", description="Shared access signature; give it as an EnvVar.")
    azure_tenant_id: str = Field(default="", description="Tenant of the service principal.")
    azure_client_id: str = Field(default="", description="Client of the service principal or managed identity.")
    azure_client_secret: str = Field(default="", description="Secret of the service principal; an EnvVar.")

    @classmethod
    def from_s3(cls, s3: "S3Resource", url: str) -> "ObjectStoreResource":
        """Use the endpoint and the keys of a dagster-aws `S3Resource`, or its named profile, for `url`."""
        return cls(
            url=url,
            s3_endpoint_url=s3.endpoint_url or "",
            s3_profile="" if s3.aws_access_key_id else s3.profile_name or "",
            s3_access_key_id=s3.aws_access_key_id or "",
            s3_secret_access_key=s3.aws_secret_access_key or "",
            s3_session_token=s3.aws_session_token or "",
            s3_region=s3.region_name or "",
        )

    def get_url(self) -> str:
        """The URL in force."""
        return self.url or Settings.from_env().lake()

    def open(self, path: str = "") -> "ObjectStore":
        """Open the store, or the part of it under `path`.

        Raises:
            ConfigError: The URL is of an unknown kind.
        """
        from tidemill_core.storage import open_store

        url = f"{self.get_url().rstrip('/')}/{path.strip('/')}" if path else self.get_url()
        return open_store(url, self.options())

    def options(self) -> StorageOptions:
        """Storage options: the settings', with this resource's fields over them.

        A resource that names an identity of a cloud names all of it: no half of it comes from the settings.

        Raises:
            ConfigError: A field's value is none of those it can have.
        """
        given = {name: value for name in StorageOptions.model_fields if (value := getattr(self, name))}
        settings = Settings.from_env().storage
        replaced = {name for identity in _IDENTITIES if identity & given.keys() for name in identity}
        kept = {name: getattr(settings, name) for name in settings.model_fields_set - replaced}
        try:
            return StorageOptions(**{**kept, **given})
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ConfigError(f"wrong object store resource: {faults}") from error


_IDENTITIES = (
    frozenset({"s3_profile", "s3_access_key_id", "s3_secret_access_key", "s3_session_token"}),
    frozenset(
        {
            "azure_key",
            "azure_connection_string",
            "azure_sas_token",
            "azure_tenant_id",
            "azure_client_id",
            "azure_client_secret",
        }
    ),
)
"""The fields of `StorageOptions` that say who we are, by cloud."""


class KafkaResource(dg.ConfigurableResource[Any]):
    """A Kafka cluster."""

    bootstrap_servers: str = Field(default="", description="host:port,host:port; empty means the settings.")
    client: dict[str, str] = Field(default={}, description="More librdkafka properties, such as security.protocol.")

    def get_bootstrap(self) -> str:
        """The bootstrap servers in force."""
        if self.bootstrap_servers:
            return self.bootstrap_servers
        from tidemill_core.embedded import runtime

        return runtime.kafka_bootstrap(Settings.from_env())

    def client_config(self, **more: Any) -> dict[str, Any]:
        """Properties for a librdkafka client; keywords use ``_`` for ``.`` (``group_id="x"``)."""
        named = {name.replace("_", "."): value for name, value in more.items()}
        return {"bootstrap.servers": self.get_bootstrap(), **self.client, **named}


class HttpResource(dg.ConfigurableResource[Any]):
    """An HTTP client with time limits."""

    base_url: str = Field(default="", description="Prefix of relative URLs.")
    timeout_s: float = Field(default=30.0, description="Seconds for connecting, and between two reads.")
    headers: dict[str, str] = Field(default={}, description="Headers of every request.")
    connect_retries: int = Field(default=2, description="Tries more when a connection cannot be opened.")

    def client(self, headers: Mapping[str, str] | None = None) -> "httpx.Client":
        """Make a client; use it as a context manager."""
        import httpx

        return httpx.Client(
            base_url=self.base_url,
            timeout=self.timeout_s,
            headers={"User-Agent": "tidemill", **self.headers, **(headers or {})},
            transport=httpx.HTTPTransport(retries=self.connect_retries),
            follow_redirects=True,
        )


def parquet_io_manager() -> dg.ConfigurableIOManager:
    """Make the IO manager of the key `io_manager`: frames as Parquet files in the lake."""
    from tidemill_core.defs.io_managers.parquet import ParquetIOManager

    return ParquetIOManager()


def postgres_io_manager() -> dg.ConfigurableIOManager:
    """Make the IO manager of the key `postgres_io_manager`: frames as PostgreSQL tables."""
    from tidemill_core.defs.io_managers.postgres import PostgresIOManager

    return PostgresIOManager()


RESOURCES: Registry[Callable[[], Any]] = Registry("tidemill.resources", "resource")
"""What makes a shared resource, by its key; packages add theirs by entry points."""


@cache
def shared_resource(key: str) -> Any:
    """The one resource of a key in this process: Dagster refuses two for one key unless they are the same object.

    Raises:
        PluginError: No package brings a resource of this key.
    """
    return RESOURCES.get(key)()


def default_resources() -> dict[str, Any]:
    """Make the resources and IO managers that every package expects, under their shared keys."""
    return {key: shared_resource(key) for key in RESOURCES.names()}
