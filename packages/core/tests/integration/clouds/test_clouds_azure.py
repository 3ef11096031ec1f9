"""Azure as its users have it: every kind of identity arrives as Azure would accept it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import polars as pl
import pytest
from cloud_fakes import Answer, Asked, Cloud, parquet_object
from tidemill_core.errors import ConfigError, exit_code
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import StoreRefused, StoreUnavailable, open_store
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused

KEY = "a2V5"
FOUND: Answer = (200, {"ETag": '"e1"', "Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT"}, b"here")
PRINCIPAL = StorageOptions(
    azure_account="mine",
    azure_tenant_id="11111111-1111-1111-1111-111111111111",
    azure_client_id="me",
    azure_client_secret="hush",
)
ENTRA = "login.microsoftonline.com"


class Entra:
    """Answers as Entra and as the storage account do; each token is used until a newer one is given out."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.accepted: str | None = None
        self.expires_in_s = 3600
        self.blob: Callable[[Asked], Answer] = lambda asked: FOUND

    def __call__(self, asked: Asked) -> Answer:
        if asked.host in {ENTRA, "login.microsoft.com"}:
            return self.token(asked)
        if asked.authorization == f"Bearer {self.accepted or f'token-{len(self.forms)}'}":
            return self.blob(asked)
        return 401, {"x-ms-error-code": "InvalidAuthenticationInfo"}, b""

    def token(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            tenant = f"https://{ENTRA}/11111111-1111-1111-1111-111111111111"
            known = {
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "issuer": f"{tenant}/v2.0",
                "tenant_discovery_endpoint": f"{tenant}/v2.0/.well-known/openid-configuration",
                "metadata": [],
            }
            return 200, {"Content-Type": "application/json"}, json.dumps(known).encode()
        self.forms.append({name: values[0] for name, values in parse_qs(asked.body.decode()).items()})
        given = {
            "token_type": "Bearer",
            "access_token": f"token-{len(self.forms)}",
            "expires_in": self.expires_in_s,
            "ext_expires_in": self.expires_in_s,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(given).encode()


@pytest.fixture
def entra(cloud: Cloud) -> Entra:
    cloud.answer = made = Entra()
    return made


# -- keys, connection strings, signatures


@pytest.mark.parametrize(
    ("variables", "options", "host", "arrives"),
    [
        ({}, {"azure_account": "mine", "azure_key": KEY}, "mine.blob.core.windows.net", "SharedKey mine:"),
        ({"ACCOUNT": "mine", "KEY": KEY}, {}, "mine.blob.core.windows.net", "SharedKey mine:"),
        ({"ACCOUNT_NAME": "mine", "ACCOUNT_KEY": KEY}, {}, "mine.blob.core.windows.net", "SharedKey mine:"),
        (
            {"CONNECTION_STRING": f"AccountName=mine;AccountKey={KEY}"},
            {},
            "mine.blob.core.windows.net",
            "SharedKey mine:",
        ),
        (
            {
                "CONNECTION_STRING": f"AccountName=mine;AccountKey={KEY};BlobEndpoint=https://other.blob.core.windows.net/"
            },
            {},
            "other.blob.core.windows.net",
            "SharedKey mine:",
        ),
        ({"ACCOUNT": "mine", "SAS_TOKEN": "?sv=1&sig=s%2Fg"}, {}, "mine.blob.core.windows.net", "s/g"),
        ({}, {"azure_account": "mine", "azure_sas_token": "sv=1&sig=s%2Fg"}, "mine.blob.core.windows.net", "s/g"),
        (
            {},
            {
                "azure_connection_string": "BlobEndpoint=https://mine.blob.core.windows.net;SharedAccessSignature=sv=1&sig=s%2Fg"
            },
            "mine.blob.core.windows.net",
            "s/g",
        ),
        (
            {"KEY": KEY, "SERVICE_ENDPOINT": "https://mine.blob.core.windows.net"},
            {},
            "mine.blob.core.windows.net",
            "SharedKey mine:",
        ),
        (
            {"CONNECTION_STRING": "AccountName=others;AccountKey=b3RoZXI="},
            {"azure_connection_string": f"AccountName=mine;AccountKey={KEY}"},
            "mine.blob.core.windows.net",
            "SharedKey mine:",
        ),
    ],
)
def test_what_names_an_identity_is_what_arrives(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    options: dict[str, str],
    host: str,
    arrives: str,
) -> None:
    cloud.answer = lambda asked: FOUND
    for name, value in variables.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)

    assert open_store("az://container/in", StorageOptions(**options)).get("k") == b"here"

    [asked] = cloud.asked
    assert (asked.host, asked.path) == (host, "/container/in/k")
    assert asked.authorization.startswith(arrives) or asked.query.get("sig") == arrives


def test_the_development_account_is_that_of_the_emulator() -> None:
    store = open_store("az://c", StorageOptions(azure_connection_string="UseDevelopmentStorage=true"))

    assert (
        store.reader_options()["storage_options"]["azure_storage_endpoint"] == "http://127.0.0.1:10000/devstoreaccount1"
    )


def test_a_copy_names_its_source_with_the_signature(cloud: Cloud) -> None:
    cloud.answer = lambda asked: (202, FOUND[1], b"") if asked.method == "PUT" else FOUND

    open_store("az://c", StorageOptions(azure_account="mine", azure_sas_token="sig=x")).copy("a", "b")

    assert cloud.asked[0].headers["x-ms-copy-source"] == "https://mine.blob.core.windows.net/c/a?sig=x"


def test_a_signature_that_ended_is_told_with_its_end_and_not_shown(cloud: Cloud) -> None:
    cloud.answer = lambda asked: (403, {}, b"<Error><Code>AuthenticationFailed</Code><Message>No</Message></Error>")
    options = StorageOptions(azure_account="mine", azure_sas_token="se=2020-01-01T00:00:00Z&sig=secret")

    with pytest.raises(CredentialsRefused, match="ended at 2020-01-01") as refused:
        open_store("az://c", options).get("k")

    assert "secret" not in str(refused.value)
    assert exit_code(refused.value) == 1


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        ({"azure_key": KEY}, {}, "TIDEMILL_AZURE_ACCOUNT"),
        ({"azure_account": "a", "azure_key": KEY, "azure_sas_token": "sig=x"}, {}, "keep one"),
        ({"azure_account": "a", "azure_client_secret": "x"}, {}, "azure_tenant_id"),
        ({"azure_account": "a", "azure_key": "no base 64!"}, {}, "not base64"),
        ({"azure_connection_string": "nonsense"}, {}, "no connection string"),
        ({"azure_connection_string": "AccountName=a"}, {}, "AccountKey"),
        ({"azure_account": "a"}, {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=b;AccountKey={KEY}"}, "is of 'b'"),
        ({"azure_account": "a", "azure_key": KEY, "azure_endpoint_url": "localhost"}, {}, "endpoint of Azure"),
    ],
)
def test_what_cannot_be_right_is_told_in_one_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=told) as wrong:
        open_store("az://container", StorageOptions(**options))

    assert "\n" not in str(wrong.value)
    assert KEY not in str(wrong.value)


@pytest.mark.parametrize("url", ["az://A", "az://a b", "az://a.b", "az://a--b", "az://me:secret@c"])
def test_an_odd_name_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no container's name"):
        open_store(url, StorageOptions(azure_account="a", azure_key=KEY))


def test_anonymous_is_a_setting_and_no_key_of_the_machine_is_sent(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.answer = lambda asked: FOUND
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)

    open_store("az://c", StorageOptions(azure_account="mine", anonymous=True)).get("k")

    assert "authorization" not in cloud.asked[0].headers


# -- Entra


def test_a_service_principal_gets_a_token_and_keeps_it(cloud: Cloud, entra: Entra) -> None:
    store = open_store("az://c", PRINCIPAL)

    store.get("a")
    store.get("b")

    [form] = entra.forms
    assert (form["grant_type"], form["client_id"], form["client_secret"]) == ("client_credentials", "me", "hush")
    assert form["scope"] == "https://storage.azure.com/.default"
    assert [each.authorization for each in cloud.to("mine.blob.core.windows.net")] == ["Bearer token-1"] * 2


def test_a_service_principal_of_the_environment_is_found(
    cloud: Cloud, entra: Entra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111")
    monkeypatch.setenv("AZURE_CLIENT_ID", "env-client")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "env-hush")

    open_store("az://c", StorageOptions(azure_account="mine")).get("k")

    assert (entra.forms[0]["client_id"], entra.forms[0]["client_secret"]) == ("env-client", "env-hush")


def test_a_workload_identity_is_exchanged(
    cloud: Cloud, entra: Entra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "federated").write_text("of-the-pod")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "federated"))
    monkeypatch.setenv("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111")
    monkeypatch.setenv("AZURE_CLIENT_ID", "pod")

    open_store("az://c", StorageOptions(azure_account="mine")).get("k")

    assert (entra.forms[0]["client_id"], entra.forms[0]["client_assertion"]) == ("pod", "of-the-pod")


def test_a_managed_identity_is_asked_for(cloud: Cloud, entra: Entra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{cloud.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "the-header")
    entra.accepted = "managed"
    given = {
        "access_token": "managed",
        "expires_on": str(int(time.time()) + 3600),
        "token_type": "Bearer",
        "resource": "x",
    }
    cloud.answer = lambda asked: (
        (200, {"Content-Type": "application/json"}, json.dumps(given).encode())
        if asked.path == "/msi/token"
        else entra(asked)
    )

    open_store("az://c", StorageOptions(azure_account="mine", azure_client_id="user-assigned")).get("k")

    assert cloud.asked[0].headers["x-identity-header"] == "the-header"
    assert cloud.asked[0].query["client_id"] == "user-assigned"
    assert cloud.asked[-1].authorization == "Bearer managed"


def test_a_token_that_is_not_accepted_any_more_is_renewed_once(cloud: Cloud, entra: Entra) -> None:
    store = open_store("az://c", PRINCIPAL)
    store.get("k")
    entra.accepted = "token-2"

    assert store.get("k") == b"here"
    entra.accepted = "none"
    with pytest.raises(CredentialsRefused, match="azure_client_secret is not accepted"):
        store.get("k")

    assert [each.authorization for each in cloud.to("mine.blob.core.windows.net")] == [
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-2",
        "Bearer token-2",
        "Bearer token-3",
    ]


def test_a_token_near_its_end_is_renewed_before_it_is_used(cloud: Cloud, entra: Entra) -> None:
    entra.expires_in_s = 200
    store = open_store("az://c", PRINCIPAL)

    store.get("a")
    store.get("b")

    assert len(entra.forms) == 2


def test_a_refused_principal_is_one_line_and_shows_no_secret(cloud: Cloud, entra: Entra) -> None:
    refusal = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret.\r\nTrace ID: x"}
    cloud.answer = lambda asked: (
        (401, {"Content-Type": "application/json"}, json.dumps(refusal).encode())
        if asked.method == "POST"
        else entra(asked)
    )

    with pytest.raises(CredentialsRefused, match="AADSTS7000215") as refused:
        open_store("az://c", PRINCIPAL).get("k")

    assert "\n" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_an_entra_that_cannot_be_reached_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("azure.core.pipeline.policies.RetryPolicy.sleep", lambda *_args, **_more: None)

    with pytest.raises(StoreUnavailable) as error:
        open_store("az://c", PRINCIPAL).get("k")

    assert exit_code(error.value) == 75


@pytest.mark.parametrize("status", [429, 503])
def test_an_entra_that_is_busy_may_be_asked_again(
    cloud: Cloud, entra: Entra, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("azure.core.pipeline.policies.RetryPolicy.sleep", lambda *_args, **_more: None)
    monkeypatch.setenv("AZURE_TENANT_ID", "11111111-1111-1111-1111-111111111111")
    monkeypatch.setenv("AZURE_CLIENT_ID", "env-client")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "env-hush")
    cloud.answer = lambda asked: (status, {}, b"") if asked.method == "POST" else entra(asked)

    with pytest.raises(StoreUnavailable):
        open_store("az://c", StorageOptions(azure_account="mine")).get("k")


def test_no_identity_at_all_is_an_error_that_lists_where_was_looked(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no az, azd or PowerShell
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("azure.core.pipeline.policies.RetryPolicy.sleep", lambda *_args, **_more: None)

    with pytest.raises(CredentialsMissing) as missing:
        open_store("az://c", StorageOptions(azure_account="mine")).get("k")

    assert exit_code(missing.value) == 3
    assert "\n" not in str(missing.value)
    for place in (
        "TIDEMILL_AZURE_*",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_ID",
        "managed identity",
        "az login",
    ):
        assert place in str(missing.value)
    assert cloud.to("mine.blob.core.windows.net") == []


# -- polars


def test_polars_reads_with_a_token_that_is_renewed(cloud: Cloud, entra: Entra) -> None:
    entra.blob, entra.expires_in_s = parquet_object({"x": [1, 2]}), 301
    store = open_store("az://c", PRINCIPAL.model_copy(update={"azure_endpoint_url": f"{cloud.url}/mine"}))
    arguments = store.reader_options()

    first, until = arguments["credential_provider"]()
    read = pl.scan_parquet(store.uri("k.parquet"), **arguments).collect()

    assert read["x"].to_list() == [1, 2]
    assert first == {"bearer_token": "token-1"}
    assert until is not None
    assert time.time() < until < time.time() + 302
    assert arguments["storage_options"].keys().isdisjoint({"azure_storage_account_key", "azure_storage_sas_token"})


def test_a_scan_that_outlives_its_token_goes_on_with_another(cloud: Cloud, entra: Entra) -> None:
    entra.blob, entra.expires_in_s = parquet_object({"x": [1, 2]}), 1
    store = open_store("az://c", PRINCIPAL.model_copy(update={"azure_endpoint_url": f"{cloud.url}/mine"}))
    scan = pl.scan_parquet(store.uri("k.parquet"), **store.reader_options())
    deadline = time.monotonic() + 30

    while len(tokens := {each.authorization for each in cloud.asked if "parquet" in each.path}) < 3:
        assert scan.collect()["x"].to_list() == [1, 2]
        assert time.monotonic() < deadline, tokens


def test_polars_reads_with_a_signature(cloud: Cloud) -> None:
    whole = parquet_object({"x": [1, 2]})
    cloud.answer = lambda asked: whole(asked) if asked.query.get("sig") == "s/g" else (403, {}, b"")
    options = {"azure_account": "mine", "azure_endpoint_url": f"{cloud.url}/mine"}
    store = open_store("az://c", StorageOptions(**options, azure_sas_token="sv=1&sig=s%2Fg"))

    assert pl.read_parquet(store.uri("k.parquet"), **store.reader_options())["x"].to_list() == [1, 2]

    wrong = open_store("az://c", StorageOptions(**options, azure_sas_token="sv=1&sig=other"))
    with pytest.raises(StoreRefused):
        wrong.get("k.parquet")
