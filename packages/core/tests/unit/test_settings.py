"""Settings come from TIDEMILL_* variables, checked, and fall back to the home."""

from pathlib import Path

import pytest
from tidemill_core.errors import ConfigError
from tidemill_core.settings import Settings, StorageOptions


def test_nothing_set_means_the_embedded_defaults_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    settings = Settings.from_env({})

    assert settings.postgres_url is None
    assert settings.kafka_bootstrap is None
    assert settings.lake() == (tmp_path / ".tidemill" / "lake").as_uri()
    assert settings.mirror() == (tmp_path / ".tidemill" / "mirror").as_uri()


def test_every_variable_is_read_and_others_are_left_alone() -> None:
    settings = Settings.from_env(
        {
            "TIDEMILL_HOME": "/data",
            "TIDEMILL_POSTGRES_URL": "postgresql://me:hush@db/x",
            "TIDEMILL_LAKE_URL": "s3://lake/raw",
            "TIDEMILL_S3_ENDPOINT_URL": "http://127.0.0.1:9090",
            "TIDEMILL_S3_SECRET_ACCESS_KEY": "hush",
            "TIDEMILL_EXECUTOR": "k8s",
            "TIDEMILL_REQUIRE": "postgres",
            "HOME": "/root",
        }
    )

    assert settings.home == Path("/data")
    assert settings.lake() == "s3://lake/raw"
    assert settings.executor == "k8s"
    assert settings.storage.s3_endpoint_url == "http://127.0.0.1:9090"
    assert settings.postgres_url is not None
    assert settings.postgres_url.get_secret_value() == "postgresql://me:hush@db/x"


def test_secrets_do_not_show() -> None:
    settings = Settings.from_env(
        {
            "TIDEMILL_POSTGRES_URL": "postgresql://me:hush@db/x",
            "TIDEMILL_AZURE_KEY": "hush",
            "TIDEMILL_DAGSTER_POSTGRES_URL": "postgresql://me:hush@db/y",
        }
    )

    assert "hush" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_an_empty_variable_is_an_unset_one() -> None:
    assert Settings.from_env({"TIDEMILL_LAKE_URL": "", "TIDEMILL_S3_REGION": ""}) == Settings.from_env({})


def test_a_wrong_value_names_its_variable() -> None:
    with pytest.raises(ConfigError, match="TIDEMILL_EXECUTOR: String should match pattern"):
        Settings.from_env({"TIDEMILL_EXECUTOR": "threds"})


def test_every_setting_says_what_it_is_and_what_unset_means() -> None:
    for model in (Settings, StorageOptions):
        for name, field in model.model_fields.items():
            assert field.description, name
