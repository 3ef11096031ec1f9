"""What the environment says: `TIDEMILL_*` variables, and nothing else, choose the servers.

Unset means the embedded default. The same names are documented in docs/reference/settings.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError

from tidemill_core.config import Config
from tidemill_core.errors import ConfigError

PREFIX = "TIDEMILL_"


class StorageOptions(Config):
    """How to reach and sign in to object stores; unset fields fall back to each cloud's own variables."""

    s3_endpoint_url: str | None = None
    """S3-compatible endpoint, such as ``http://127.0.0.1:9090``; unset means AWS."""
    s3_access_key_id: str | None = None
    """Access key id; unset means the AWS credential chain."""
    s3_secret_access_key: SecretStr | None = None
    """Secret of the access key."""
    s3_region: str | None = None
    """Region; unset means ``us-east-1`` with an endpoint, else AWS's own setting."""
    gcs_endpoint_url: str | None = None
    """GCS-compatible JSON API endpoint; unset means Google."""
    gcs_credentials_file: Path | None = None
    """Service-account key file; unset means application default credentials, or none with an endpoint."""
    azure_endpoint_url: str | None = None
    """Blob endpoint, such as ``http://127.0.0.1:10000/devstoreaccount1``; unset means Azure."""
    azure_account: str | None = None
    """Storage account name."""
    azure_key: SecretStr | None = None
    """Storage account key."""


class Settings(Config):
    """Every `TIDEMILL_*` variable, checked."""

    home: Path = Path(".tidemill")
    """Folder of the Dagster home, embedded servers and local buckets."""
    postgres_url: SecretStr | None = None
    """The warehouse, ``postgresql://user:password@host:port/database``; unset means the embedded server."""
    kafka_bootstrap: str | None = None
    """Kafka bootstrap servers, ``host:port,host:port``; unset means the embedded broker."""
    lake_url: str | None = None
    """The lake, ``s3://bucket/prefix`` or another store's URL; unset means a folder in `home`."""
    mirror_url: str | None = None
    """Where the lake is mirrored to; unset means a second folder in `home`."""
    neo4j_url: str | None = None
    """``bolt://host:port`` to push lineage to; unset means JSON only."""
    neo4j_user: str | None = None
    """Neo4j user; unset means no authentication."""
    neo4j_password: SecretStr | None = None
    """Neo4j password."""
    openlineage_url: str | None = None
    """OpenLineage endpoint (``http://host:port``) to push lineage to; unset means none."""
    dagster_postgres_url: SecretStr | None = None
    """Database of Dagster's own storage through dagster-postgres; unset means SQLite in `home`."""
    compute_logs_url: str | None = None
    """``s3://bucket/prefix`` for Dagster's compute logs through dagster-aws; unset means files in `home`."""
    executor: str = Field(default="threads", pattern="^(in_process|threads|multiprocess|celery|k8s)$")
    """Executor of the code location's jobs."""
    storage: StorageOptions = StorageOptions()
    """Object-store access, from ``TIDEMILL_S3_*``, ``TIDEMILL_GCS_*`` and ``TIDEMILL_AZURE_*``."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env` (default: this process's environment).

        Raises:
            ConfigError: A value is out of its bounds; names the variable.
        """
        env = os.environ if env is None else env
        given = {name.removeprefix(PREFIX).lower(): value for name, value in env.items() if name.startswith(PREFIX)}
        storage = {name: given[name] for name in StorageOptions.model_fields if given.get(name)}
        own = {name: given[name] for name in cls.model_fields if name != "storage" and given.get(name)}
        try:
            return cls(**own, storage=StorageOptions(**storage))
        except ValidationError as error:
            faults = "; ".join(f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"wrong settings: {faults}") from error

    def lake(self) -> str:
        """URL of the lake."""
        return self.lake_url or (self.home.absolute() / "lake").as_uri()

    def mirror(self) -> str:
        """URL of the lake's mirror."""
        return self.mirror_url or (self.home.absolute() / "mirror").as_uri()
