"""What the environment says: `TIDEMILL_*` variables, and nothing else, choose the servers.

Unset means the embedded default; a variable that nothing reads is refused. A secret may also be in
a file: ``TIDEMILL_POSTGRES_URL_FILE`` names it. The names are documented in docs/reference/settings.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError

from tidemill_core.config import Config
from tidemill_core.errors import ConfigError
from tidemill_core.variables import PREFIX, Variable, read_secret, refuse_unknown


class StorageOptions(Config):
    """How to reach and sign in to object stores; unset fields fall back to each cloud's own variables and files."""

    anonymous: bool = False
    """Sign nothing for a cloud that has no identity among these settings; unset means credentials must be found."""
    ca_bundle: Path | None = None
    """PEM file of the authorities to trust; unset means ``REQUESTS_CA_BUNDLE``, AWS's for S3, or the system's."""
    s3_endpoint_url: str | None = None
    """S3-compatible endpoint, such as ``http://127.0.0.1:9090``; unset means ``AWS_ENDPOINT_URL`` and the like."""
    s3_profile: str | None = None
    """Profile of AWS's files; unset means ``AWS_PROFILE``, else ``default``."""
    s3_access_key_id: str | None = None
    """Access key id; unset means the AWS credential chain."""
    s3_secret_access_key: SecretStr | None = None
    """Secret of the access key."""
    s3_session_token: SecretStr | None = None
    """Session token of a temporary access key."""
    s3_region: str | None = None
    """Region; unset means the one of AWS's variables or profile, else ``us-east-1``."""
    s3_sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """Server-side encryption of what is written; unset means the bucket's own."""
    s3_kms_key: str | None = None
    """KMS key (id, ARN or alias) that encrypts what is written; unset means AWS's own."""
    s3_requester_pays: bool = False
    """Pay for requests to buckets whose owner asks for it."""
    gcs_endpoint_url: str | None = None
    """GCS-compatible JSON API endpoint; unset means ``STORAGE_EMULATOR_HOST`` (anonymous), else Google."""
    gcs_credentials_file: Path | None = None
    """Google credentials file of any kind; unset means application default credentials."""
    gcs_quota_project: str | None = None
    """Project that requests are counted and billed to; unset means the credentials' own."""
    azure_endpoint_url: str | None = None
    """Blob endpoint, such as ``http://127.0.0.1:10000/devstoreaccount1``; unset means Azure."""
    azure_account: str | None = None
    """Storage account name; unset means ``AZURE_STORAGE_ACCOUNT`` or ``AZURE_STORAGE_ACCOUNT_NAME``."""
    azure_key: SecretStr | None = None
    """Storage account key."""
    azure_connection_string: SecretStr | None = None
    """Connection string: account, key or SAS, and endpoint in one."""
    azure_sas_token: SecretStr | None = None
    """Shared access signature of the account or the container."""
    azure_tenant_id: str | None = None
    """Tenant of the service principal."""
    azure_client_id: str | None = None
    """Client of the service principal; without a secret, of the managed or workload identity."""
    azure_client_secret: SecretStr | None = None
    """Secret of the service principal."""


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
    dagster_postgres_url: SecretStr | None = None
    """Database of Dagster's own storage through dagster-postgres; unset means SQLite in `home`."""
    compute_logs_url: str | None = None
    """``s3://bucket/prefix`` for Dagster's compute logs through dagster-aws; unset means files in `home`."""
    executor: str = Field(default="threads", pattern="^(in_process|threads|multiprocess|celery|k8s)$")
    """Executor of the code location's jobs."""
    celery_broker_url: SecretStr | None = None
    """Broker of the celery executor, such as ``redis://host:6379/0``; needed by ``TIDEMILL_EXECUTOR=celery``."""
    celery_backend_url: SecretStr | None = None
    """Where Celery keeps the results of steps, such as ``redis://host:6379/1``; unset means the broker's, if Redis."""
    storage: StorageOptions = StorageOptions()
    """Object-store access, from ``TIDEMILL_S3_*``, ``TIDEMILL_GCS_*`` and ``TIDEMILL_AZURE_*``."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env` (default: this process's environment).

        Raises:
            ConfigError: A value is out of its bounds, a secret's file cannot be read, or a variable
                is one that nothing reads; names the variable.
        """
        env = os.environ if env is None else env
        refuse_unknown(env)
        storage = {name: value for name in StorageOptions.model_fields if (value := _read(StorageOptions, name, env))}
        own = {name: value for name in cls.model_fields if name != "storage" and (value := _read(cls, name, env))}
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


def _is_secret(model: type[Config], name: str) -> bool:
    return SecretStr in get_args(model.model_fields[name].annotation)


def _read(model: type[Config], name: str, env: Mapping[str, str]) -> Any:
    """Take a field's variable, and a secret's file; an empty variable is an unset one."""
    variable = f"{PREFIX}{name.upper()}"
    return read_secret(variable, env) if _is_secret(model, name) else env.get(variable)


def _variables(model: type[Config]) -> Iterator[Variable]:
    for name, field in model.model_fields.items():
        if name != "storage":
            text = " ".join((field.description or "").split())
            yield Variable(name=f"{PREFIX}{name.upper()}", text=text, is_secret=_is_secret(model, name))


VARIABLES: tuple[Variable, ...] = (
    *_variables(Settings),
    *_variables(StorageOptions),
    Variable(name="TIDEMILL_SERVICES_DIR", text="Folder of fetched server programs; unset means the user's cache."),
    Variable(name="TIDEMILL_NEO4J_URL", text="Set by ``tidemill services``, for the lineage graph."),
    Variable(name="TIDEMILL_DAGS", text="File or folder in which DAGs are found by name; unset means ``dags``."),
    Variable(name="TIDEMILL_DAG", text="Set for a task's command: the DAG."),
    Variable(name="TIDEMILL_TASK", text="Set for a task's command: the task."),
    Variable(name="TIDEMILL_RUN_ID", text="Set for a task's command: the run, which lineage is recorded for."),
    Variable(name="TIDEMILL_PARTITION", text="Set for a task's command: the partition's key, in a partitioned run."),
    Variable(name="TIDEMILL_OUTPUTS", text="Set for a task's command: the file that its outputs are written to."),
    Variable(name="TIDEMILL_PARAM_*", text="Set for a task's command: each parameter of the run."),
    Variable(name="TIDEMILL_ID", text="Set for a hook's command: the run."),
    Variable(name="TIDEMILL_STATUS", text="Set for a hook's command: ``success`` or ``failure``."),
    Variable(name="TIDEMILL_CHILD_RUN", text="Set for the process in which a task runs another DAG."),
    Variable(name="TIDEMILL_DAGSTER_POSTGRES_PASSWORD", text="Set from ``TIDEMILL_DAGSTER_POSTGRES_URL``."),
)
"""What core reads, or sets for the processes it starts."""
