"""Dagster's home: a folder with a ``dagster.yaml`` that says what the settings say."""

import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tidemill_core.defs.storage_errors import storage_error
from tidemill_core.errors import ConfigError, TransientError
from tidemill_core.settings import Settings

PASSWORD_VARIABLE = "TIDEMILL_DAGSTER_POSTGRES_PASSWORD"  # noqa: S105  # the name of a variable
_ONE_RUN_OF_A_DAG = {"key": "tidemill/overlap", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
"""DAGs with `overlap: wait` tag their runs with it."""
_STORAGE, _CREATING = "storage", "creating"
"""Folders of the home: its databases, and where they are made."""
_HEADER = "# Written by tidemill from the TIDEMILL_* settings; changes are lost. See docs/reference/settings.md.\n"


def prepare_home(settings: Settings, *, environ: MutableMapping[str, str] | None = None) -> Path:
    """Write ``dagster.yaml`` into the home's ``dagster`` folder, for ``DAGSTER_HOME``.

    Secrets are not written: the file names variables, which are set in `environ` where
    they are missing, for this process and those it starts.

    Args:
        settings: Where runs, events and logs are kept.
        environ: Environment to complete; default this process's.

    Returns:
        The folder, absolute.

    Raises:
        ConfigError: A URL in the settings is not of a kind Dagster can use, or the folder cannot be written.
        DiskFull: There is no room for it.
    """
    home = settings.home.absolute() / "dagster"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _write(home / "dagster.yaml", instance_config(settings, home))
    except OSError as error:
        found = storage_error(error)
        if isinstance(found, TransientError):
            raise found from error
        raise ConfigError(
            f"the home {home} cannot be made or written: {error.strerror}; set TIDEMILL_HOME to a folder of your own"
        ) from error
    variables = os.environ if environ is None else environ
    for name, value in _secrets(settings).items():
        variables.setdefault(name, value)
    if settings.dagster_postgres_url is None:
        _create_storage(home)
    return home


def _create_storage(home: Path) -> None:
    """Make the home's SQLite databases, whole or not at all, one process at a time.

    Dagster stamps and migrates them when they are first opened; two processes that do so at once, or
    one that is killed meanwhile, leave half a schema behind, which no later one can use. So they are
    made beside their place, and the folder is put there in one step.
    """
    if (home / _STORAGE).exists():
        return
    import dagster as dg
    import yaml

    from tidemill_core.services.files import locked

    with locked(home / "create.lock"):
        if (home / _STORAGE).exists():
            return
        shutil.rmtree(home / _CREATING, ignore_errors=True)
        made = home / _CREATING / _STORAGE
        made.mkdir(parents=True)
        config = {"storage": {"sqlite": {"base_dir": str(made)}}, "telemetry": {"enabled": False}}
        (home / _CREATING / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with dg.DagsterInstance.from_config(str(home / _CREATING)) as instance:
            # One question to each storage: a database is made when it is first asked.
            instance.get_runs(limit=1)
            instance.get_latest_materialization_event(dg.AssetKey("none"))
            instance.all_instigator_state()
        made.rename(home / _STORAGE)
        shutil.rmtree(home / _CREATING)


def instance_config(settings: Settings, home: Path) -> dict[str, Any]:
    """Decide what ``dagster.yaml`` says; holds no secret.

    Raises:
        ConfigError: A URL in the settings is not of a kind Dagster can use.
    """
    config: dict[str, Any] = {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "concurrency": {
            "pools": {"granularity": "op", "default_limit": 16},
            "runs": {"tag_concurrency_limits": [_ONE_RUN_OF_A_DAG]},
        },
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 30},
        "run_launcher": {"module": "tidemill_core.defs.launcher", "class": "WatchedRunLauncher"},
        "storage": {"sqlite": {"base_dir": str(home / "storage")}},
    }
    if settings.dagster_postgres_url:
        config["storage"] = {"postgres": {"postgres_db": _postgres(settings.dagster_postgres_url.get_secret_value())}}
    if settings.compute_logs_url:
        config["compute_logs"] = _s3_logs(settings, home)
    return config


def _postgres(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise ConfigError(f"TIDEMILL_DAGSTER_POSTGRES_URL must begin with postgresql://, not {parts.scheme}://")
    database: dict[str, Any] = {
        "scheme": "postgresql+psycopg2",  # SQLAlchemy 2.1 would take psycopg 3, which dagster-postgres cannot use
        "username": unquote(parts.username or "postgres"),
        "hostname": parts.hostname or "",
        "port": parts.port or 5432,
        "db_name": unquote(parts.path.lstrip("/")) or "postgres",
    }
    if parts.password:
        database["password"] = {"env": PASSWORD_VARIABLE}
    if parts.query:
        database["params"] = dict(parse_qsl(parts.query))
    return database


def _s3_logs(settings: Settings, home: Path) -> dict[str, Any]:
    parts = urlsplit(settings.compute_logs_url or "")
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError("TIDEMILL_COMPUTE_LOGS_URL must be s3://bucket/prefix; unset it to keep logs in the home")
    config: dict[str, Any] = {
        "bucket": parts.netloc,
        "prefix": parts.path.strip("/") or "dagster",
        "local_dir": str(home / "compute_logs"),
        "skip_empty_files": True,
        "upload_interval": 10,
    }
    options = settings.storage
    if options.s3_endpoint_url:
        config["endpoint_url"] = options.s3_endpoint_url
        config["use_ssl"] = options.s3_endpoint_url.startswith("https")
    if options.s3_region or options.s3_endpoint_url:
        config["region"] = options.s3_region or "us-east-1"
    return {"module": "dagster_aws.s3.compute_log_manager", "class": "S3ComputeLogManager", "config": config}


def _secrets(settings: Settings) -> dict[str, str]:
    found = {}
    url = settings.dagster_postgres_url
    if url and (password := urlsplit(url.get_secret_value()).password):
        found[PASSWORD_VARIABLE] = unquote(password)
    options = settings.storage
    if settings.compute_logs_url and options.s3_access_key_id and options.s3_secret_access_key:
        found["AWS_ACCESS_KEY_ID"] = options.s3_access_key_id
        found["AWS_SECRET_ACCESS_KEY"] = options.s3_secret_access_key.get_secret_value()
        if options.s3_session_token:
            found["AWS_SESSION_TOKEN"] = options.s3_session_token.get_secret_value()
        found["AWS_DEFAULT_REGION"] = options.s3_region or "us-east-1"
    return found


def _write(path: Path, config: dict[str, Any]) -> None:
    import yaml

    text = _HEADER + yaml.safe_dump(config, sort_keys=False)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
