"""Resources, metadata, error mapping and Dagster's home."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
import yaml
from pydantic import SecretStr
from tidemill_core.defs import (
    HttpResource,
    KafkaResource,
    ObjectStoreResource,
    PostgresResource,
    dagster_errors,
    default_resources,
    materialization,
    prepare_home,
)
from tidemill_core.defs.home import PASSWORD_VARIABLE
from tidemill_core.errors import ConfigError, PermanentError, RecordError, Stopped, StorageError, TransientError
from tidemill_core.settings import Settings, StorageOptions


def test_a_transient_error_asks_dagster_for_a_retry_no_sooner_than_asked() -> None:
    slow = TransientError("busy")
    slow.retry_after_s = 90

    with pytest.raises(dg.RetryRequested) as soon, dagster_errors(max_retries=2, delay_s=1):
        raise TransientError("busy")
    with pytest.raises(dg.RetryRequested) as late, dagster_errors():
        raise slow

    assert (soon.value.max_retries, soon.value.seconds_to_wait) == (2, 1)
    assert late.value.seconds_to_wait == 90


@pytest.mark.parametrize(
    ("error", "may_retry"),
    [
        (PermanentError("no postgresql://me:hush@db"), False),
        (ConfigError("wrong"), False),
        (RecordError("bad"), False),
        (StorageError("unknown"), True),
    ],
)
def test_other_errors_fail_the_step_and_only_unknown_ones_may_be_retried(error: Exception, may_retry: bool) -> None:
    with pytest.raises(dg.Failure) as caught, dagster_errors():
        raise error

    assert caught.value.allow_retries is may_retry
    assert caught.value.__cause__ is error
    assert "hush" not in str(caught.value.description)


def test_a_stop_is_an_interruption_and_strange_errors_pass() -> None:
    with pytest.raises(dg.DagsterExecutionInterruptedError, match="SIGTERM"), dagster_errors():
        raise Stopped("SIGTERM")
    with pytest.raises(ZeroDivisionError), dagster_errors():
        raise ZeroDivisionError


def test_a_permanent_error_overrules_a_retry_policy_and_a_transient_one_is_retried() -> None:
    calls = {"permanent": 0, "transient": 0}

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=3))
    def permanent() -> None:
        calls["permanent"] += 1
        with dagster_errors():
            raise PermanentError("wrong")

    @dg.op
    def transient() -> None:
        calls["transient"] += 1
        with dagster_errors(delay_s=0):
            if calls["transient"] < 3:
                raise TransientError("busy")

    @dg.job
    def both() -> None:
        permanent()
        transient()

    done = both.execute_in_process(raise_on_error=False)

    assert calls == {"permanent": 1, "transient": 3}
    assert not done.success


def test_metadata_uses_dagsters_own_keys() -> None:
    facts = materialization(
        rows=3,
        table="db.raw.t",
        schema=pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.string())]),
        bytes=10,
        seconds=1.23456,
        partition_rows=2,
    )

    assert set(facts) == {
        "dagster/row_count",
        "dagster/partition_row_count",
        "dagster/table_name",
        "dagster/column_schema",
        "bytes",
        "seconds",
    }
    assert facts["seconds"].value == 1.235
    columns = facts["dagster/column_schema"].value.columns
    assert [(c.name, c.type, c.constraints.nullable) for c in columns] == [("a", "int64", False), ("b", "string", True)]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (pl.Schema({"a": pl.Int64, "b": pl.String}), [("a", "Int64"), ("b", "String")]),
        ([("a", "bigint"), ("b", "text")], [("a", "bigint"), ("b", "text")]),
        ([("a", "bigint", True), ("b", "text", False)], [("a", "bigint"), ("b", "text")]),
        (pa.schema([("a", pa.list_(pa.int8()))]), [("a", "list<item: int8>")]),
    ],
)
def test_column_schemas_come_from_arrow_polars_and_pairs(schema: Any, expected: list[tuple[str, str]]) -> None:
    columns = materialization(schema=schema)["dagster/column_schema"].value.columns

    assert [(column.name, column.type) for column in columns] == expected


def test_other_facts_take_the_kind_their_value_has() -> None:
    facts = materialization(
        flag=True,
        count=2,
        share=0.5,
        file=Path("/a/b"),
        link="https://example.org/x",
        text="https://example.org is a page",
        options={"a": 1},
        names=["a", "b"],
        nothing=None,
        given=dg.MetadataValue.md("# x"),
    )

    assert {name: type(value).__name__ for name, value in facts.items()} == {
        "flag": "BoolMetadataValue",
        "count": "IntMetadataValue",
        "share": "FloatMetadataValue",
        "file": "PathMetadataValue",
        "link": "UrlMetadataValue",
        "text": "TextMetadataValue",
        "options": "JsonMetadataValue",
        "names": "JsonMetadataValue",
        "given": "MarkdownMetadataValue",
    }


def test_the_shared_keys_are_all_there() -> None:
    resources = default_resources()

    # Packages that are installed beside core add theirs, such as `lineage`.
    assert set(resources) >= {"postgres", "lake", "kafka", "http", "io_manager", "postgres_io_manager"}
    assert resources == default_resources()

    @dg.asset(required_resource_keys=set(resources))
    def uses_all(context: dg.AssetExecutionContext) -> None:
        assert context.resources.lake.get_url() == context.resources.io_manager.get_url()

    assert dg.materialize([uses_all], resources=resources).success


def test_a_field_wins_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_POSTGRES_URL", "postgresql://settings/x")
    monkeypatch.setenv("TIDEMILL_KAFKA_BOOTSTRAP", "settings:9092")
    monkeypatch.setenv("TIDEMILL_LAKE_URL", "s3://settings/lake")
    monkeypatch.setenv("TIDEMILL_S3_ENDPOINT_URL", "http://settings:1")
    monkeypatch.setenv("TIDEMILL_S3_REGION", "eu-west-1")

    assert PostgresResource().get_url() == "postgresql://settings/x"
    assert PostgresResource(url="postgresql://own/x").get_url() == "postgresql://own/x"
    assert KafkaResource().get_bootstrap() == "settings:9092"
    assert KafkaResource(bootstrap_servers="own:1").get_bootstrap() == "own:1"
    assert ObjectStoreResource().get_url() == "s3://settings/lake"
    own = ObjectStoreResource(s3_endpoint_url="http://own:2", s3_secret_access_key="hush").options()
    assert (own.s3_endpoint_url, own.s3_region) == ("http://own:2", "eu-west-1")
    assert own.s3_secret_access_key == SecretStr("hush")


def test_the_lake_has_a_field_for_every_setting_of_stores() -> None:
    assert StorageOptions.model_fields.keys() <= ObjectStoreResource.model_fields.keys()


def test_an_identity_of_a_resource_is_whole_and_takes_no_half_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_S3_ACCESS_KEY_ID", "theirs")
    monkeypatch.setenv("TIDEMILL_S3_SECRET_ACCESS_KEY", "theirs")
    monkeypatch.setenv("TIDEMILL_S3_SESSION_TOKEN", "theirs")
    monkeypatch.setenv("TIDEMILL_S3_REQUESTER_PAYS", "true")

    profile = ObjectStoreResource(s3_profile="mine").options()
    key = ObjectStoreResource(s3_access_key_id="mine").options()
    azure = ObjectStoreResource(azure_account="mine", azure_key="hush").options()

    assert (profile.s3_profile, profile.s3_access_key_id, profile.s3_session_token) == ("mine", None, None)
    assert (key.s3_access_key_id, key.s3_secret_access_key, key.s3_requester_pays) == ("mine", None, True)
    assert (azure.s3_access_key_id, azure.azure_key) == ("theirs", SecretStr("hush"))


def test_a_value_that_a_resource_cannot_have_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="s3_sse"):
        ObjectStoreResource(s3_sse="rot13").options()


def test_a_store_opens_at_a_path_below_its_url() -> None:
    lake = ObjectStoreResource(url="memory://resource-test/lake/")

    lake.open("raw").put("a.txt", b"1")

    assert [info.key for info in lake.open().list()] == ["raw/a.txt"]


def test_kafka_properties_are_put_together() -> None:
    kafka = KafkaResource(bootstrap_servers="b:1", client={"security.protocol": "SSL"})

    assert kafka.client_config(group_id="g") == {
        "bootstrap.servers": "b:1",
        "security.protocol": "SSL",
        "group.id": "g",
    }


def test_the_http_client_has_its_base_headers_and_time_limit() -> None:
    with HttpResource(base_url="http://127.0.0.1:1/v1", timeout_s=3, headers={"X-A": "1"}).client(
        {"X-B": "2"}
    ) as client:
        assert str(client.build_request("GET", "items").url) == "http://127.0.0.1:1/v1/items"
        assert (client.headers["X-A"], client.headers["X-B"], client.timeout.read) == ("1", "2", 3)


def home_config(settings: Settings, environ: dict[str, str] | None = None) -> dict[str, Any]:
    home = prepare_home(settings, environ={} if environ is None else environ)
    found = yaml.safe_load((home / "dagster.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_the_default_home_is_sqlite_without_telemetry(tmp_path: Path) -> None:
    config = home_config(Settings(home=tmp_path))

    assert config["telemetry"] == {"enabled": False}
    assert config["storage"]["sqlite"]["base_dir"] == str(tmp_path / "dagster" / "storage")
    assert "compute_logs" not in config
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        assert instance.telemetry_enabled is False
        assert instance.get_runs_count() == 0


def test_postgres_storage_names_a_variable_instead_of_the_password(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    url = SecretStr("postgresql://da%40g:hu%2Fsh@db.example:6543/dag%20ster?sslmode=require")

    config = home_config(Settings(home=tmp_path, dagster_postgres_url=url), environ)

    assert config["storage"]["postgres"]["postgres_db"] == {
        "scheme": "postgresql+psycopg2",
        "username": "da@g",
        "hostname": "db.example",
        "port": 6543,
        "db_name": "dag ster",
        "password": {"env": PASSWORD_VARIABLE},
        "params": {"sslmode": "require"},
    }
    assert environ == {PASSWORD_VARIABLE: "hu/sh"}
    assert "hu/sh" not in (tmp_path / "dagster" / "dagster.yaml").read_text()


def test_compute_logs_go_to_s3_with_the_settings_keys_in_the_environment(tmp_path: Path) -> None:
    environ = {"AWS_DEFAULT_REGION": "eu-north-1"}
    storage = StorageOptions(
        s3_endpoint_url="http://127.0.0.1:9090", s3_access_key_id="id", s3_secret_access_key=SecretStr("hush")
    )

    config = home_config(Settings(home=tmp_path, compute_logs_url="s3://logs/dagster/x", storage=storage), environ)

    assert config["compute_logs"]["class"] == "S3ComputeLogManager"
    told = config["compute_logs"]["config"]
    assert (told["bucket"], told["prefix"], told["endpoint_url"]) == ("logs", "dagster/x", "http://127.0.0.1:9090")
    assert environ == {
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "hush",
    }
    assert "hush" not in (tmp_path / "dagster" / "dagster.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dagster_postgres_url": "mysql://x"}, "TIDEMILL_DAGSTER_POSTGRES_URL must begin with postgresql://"),
        ({"compute_logs_url": "gs://x"}, "TIDEMILL_COMPUTE_LOGS_URL must be s3://"),
    ],
)
def test_a_url_dagster_cannot_use_is_told_by_its_variable(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        prepare_home(Settings(home=tmp_path, **settings), environ={})


def test_preparing_twice_leaves_the_file_alone_and_a_changed_setting_changes_it(tmp_path: Path) -> None:
    file = prepare_home(Settings(home=tmp_path), environ={}) / "dagster.yaml"
    before = file.stat().st_mtime_ns, file.stat().st_ino

    prepare_home(Settings(home=tmp_path), environ={})
    again = file.stat().st_mtime_ns, file.stat().st_ino
    prepare_home(Settings(home=tmp_path, compute_logs_url="s3://b"), environ={})

    assert again == before
    assert "compute_logs" in file.read_text()
    assert sorted(each.name for each in file.parent.iterdir()) == ["create.lock", "dagster.yaml", "storage"]


def test_processes_may_prepare_a_home_at_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom tidemill_core.defs.home import prepare_home\n"
        "from tidemill_core.settings import Settings\n"
        "[prepare_home(Settings(home=pathlib.Path(sys.argv[1])), environ={}) for _ in range(50)]"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert yaml.safe_load((tmp_path / "dagster" / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
