"""Google Cloud as its users have it: every kind of credentials file, quota projects, emulators, refused tokens."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import polars as pl
import pytest
from cloud_fakes import Answer, Asked, Cloud, parquet_object
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tidemill_core.errors import ConfigError, exit_code
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import StoreRefused, StoreUnavailable, open_store
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused

ITEM = {"name": "k", "size": "4", "generation": "7", "updated": "2026-11-27T00:00:00Z"}


class Google:
    """Answers as Google's token services and its storage do; the newest token is the one that counts."""

    def __init__(self) -> None:
        self.given = 0
        self.accepted: str | None = None
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.storage: Callable[[Asked], Answer] = lambda asked: (200, {"x-goog-generation": "7"}, b"here")
        self.refusal: Answer | None = None
        self.expires_in_s = 3600

    def __call__(self, asked: Asked) -> Answer:
        if not asked.path.startswith("/storage/") and "parquet" not in asked.path:
            return self.refusal or self.token(asked)
        if asked.authorization == f"Bearer {self.accepted or f'token-{self.given}'}":
            return self.storage(asked)
        return 401, {}, b'{"error": {"code": 401, "message": "Invalid Credentials"}}'

    def token(self, asked: Asked) -> Answer:
        self.given += 1
        text = asked.body.decode()
        fields = json.loads(text) if text.startswith("{") else {n: v[0] for n, v in parse_qs(text).items()}
        self.forms.append((f"{asked.host}{asked.path}", fields))
        name, end = f"token-{self.given}", "2099-01-01T00:00:00Z"
        given = {
            "access_token": name,
            "expires_in": self.expires_in_s,
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "accessToken": name,
            "expireTime": end,
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(given).encode()


@pytest.fixture
def google(cloud: Cloud) -> Google:
    cloud.answer = made = Google()
    return made


@pytest.fixture(scope="session")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


@pytest.fixture
def kinds(private_key: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Every kind of credentials file that Google gives out."""
    (tmp_path / "subject").write_text("of-the-pod")
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "hush", "refresh_token": "r"}
    return {
        "service_account": {
            "type": "service_account",
            "client_email": "robot@project.iam.gserviceaccount.com",
            "private_key": private_key,
            "private_key_id": "1",
            "token_uri": "https://oauth2.googleapis.com/token",
        },
        "authorized_user": user,
        "external_account": {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": str(tmp_path / "subject")},
        },
        "impersonated_service_account": {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/other@p.iam.gserviceaccount.com:generateAccessToken",
            "source_credentials": user,
        },
    }


KINDS = {
    "service_account": ("oauth2.googleapis.com/token", "grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    "authorized_user": ("oauth2.googleapis.com/token", "refresh_token", "r"),
    "external_account": ("sts.googleapis.com/v1/token", "subject_token", "of-the-pod"),
    "impersonated_service_account": ("oauth2.googleapis.com/token", "refresh_token", "r"),
}


def file_of(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "google.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_named_by", ["setting", "variable", "gcloud"])
def test_every_kind_of_file_is_a_token(
    cloud: Cloud,
    google: Google,
    kinds: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    is_named_by: str,
) -> None:
    if is_named_by == "gcloud":
        (tmp_path / "gcloud").mkdir()
        (tmp_path / "gcloud" / "application_default_credentials.json").write_text(json.dumps(kinds[kind]))
    else:
        file = file_of(tmp_path, kinds[kind])
        if is_named_by == "variable":
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    options = StorageOptions(gcs_credentials_file=file) if is_named_by == "setting" else StorageOptions()
    store = open_store("gs://bucket", options)

    assert [store.get("a"), store.get("b")] == [b"here", b"here"]

    where, name, value = KINDS[kind]
    assert (google.forms[0][0], google.forms[0][1][name]) == (where, value)
    if kind == "impersonated_service_account":
        assert google.forms[1][0].endswith("other@p.iam.gserviceaccount.com:generateAccessToken")
    asked = cloud.to("storage.googleapis.com")
    assert [each.authorization for each in asked] == [f"Bearer token-{google.given}"] * 2
    assert all(each.is_tunnelled for each in cloud.asked)


@pytest.mark.parametrize("is_named_by", ["setting", "variable", "file"])
def test_the_quota_project_is_billed(
    cloud: Cloud,
    google: Google,
    kinds: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    is_named_by: str,
) -> None:
    content = kinds["authorized_user"] | ({"quota_project_id": "payer"} if is_named_by == "file" else {})
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file_of(tmp_path, content)))
    if is_named_by == "variable":
        monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")

    open_store("gs://bucket", StorageOptions(gcs_quota_project="payer" if is_named_by == "setting" else None)).get("k")

    assert cloud.to("storage.googleapis.com")[0].headers["x-goog-user-project"] == "payer"


def test_without_a_quota_project_none_is_sent(
    cloud: Cloud, google: Google, kinds: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    options = StorageOptions(gcs_credentials_file=file_of(tmp_path, kinds["authorized_user"]))

    open_store("gs://bucket", options).get("k")

    assert "x-goog-user-project" not in cloud.to("storage.googleapis.com")[0].headers


@pytest.mark.parametrize("has_scheme", [True, False])
def test_an_emulator_of_the_environment_is_asked_anonymously(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, has_scheme: bool
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url if has_scheme else cloud.url.removeprefix("http://"))
    cloud.answer = lambda asked: (200, {}, b"here")

    assert open_store("gs://bucket", StorageOptions()).get("k") == b"here"

    assert cloud.asked[0].path == "/storage/v1/b/bucket/o/k"
    assert "authorization" not in cloud.asked[0].headers


def test_an_endpoint_of_the_settings_is_no_reason_to_be_anonymous(cloud: Cloud) -> None:
    with pytest.raises(CredentialsMissing):
        open_store("gs://bucket", StorageOptions(gcs_endpoint_url=cloud.url)).get("k")

    assert cloud.asked == []
    cloud.answer = lambda asked: (200, {}, b"here")
    assert open_store("gs://bucket", StorageOptions(gcs_endpoint_url=cloud.url, anonymous=True)).get("k") == b"here"


def test_no_credentials_is_an_error_that_lists_where_was_looked(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(CredentialsMissing) as missing:
        open_store("gs://bucket", StorageOptions()).get("k")

    assert cloud.asked == []
    assert exit_code(missing.value) == 3
    assert "\n" not in str(missing.value)
    for place in (
        "TIDEMILL_GCS_CREDENTIALS_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        str(tmp_path / "gcloud"),
        "metadata server",
        "anonymous: true",
    ):
        assert place in str(missing.value)


@pytest.mark.parametrize(
    "content", [None, "", "not json", "{}", '{"type": "unheard_of"}', '{"type": "service_account"}', "[]"]
)
def test_a_file_that_cannot_be_used_is_told_by_its_name(cloud: Cloud, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigError, match=r"mine\.json") as wrong:
        open_store("gs://bucket", StorageOptions(gcs_credentials_file=file)).get("k")

    assert "\n" not in str(wrong.value)
    assert cloud.asked == []


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (
            (400, {}, b'{"error": "invalid_grant", "error_description": "Token has been revoked."}'),
            CredentialsRefused,
            1,
        ),
        ((503, {}, b'{"error": "internal_failure"}'), StoreUnavailable, 75),
    ],
)
def test_a_refused_renewal_is_permanent_and_an_outage_is_not(
    cloud: Cloud,
    google: Google,
    kinds: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    refusal: Answer,
    kind: type[Exception],
    code: int,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    google.refusal = refusal
    options = StorageOptions(gcs_credentials_file=file_of(tmp_path, kinds["authorized_user"]))

    with pytest.raises(kind) as error:
        open_store("gs://bucket", options).get("k")

    assert exit_code(error.value) == code
    assert "\n" not in str(error.value)
    assert "hush" not in str(error.value)


def test_a_token_service_that_cannot_be_reached_may_be_asked_again(
    kinds: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    options = StorageOptions(gcs_credentials_file=file_of(tmp_path, kinds["authorized_user"]))

    with pytest.raises(StoreUnavailable):
        open_store("gs://bucket", options).get("k")


def test_a_token_that_is_not_accepted_any_more_is_renewed_once(
    cloud: Cloud, google: Google, kinds: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    store = open_store("gs://bucket", StorageOptions(gcs_credentials_file=file_of(tmp_path, kinds["authorized_user"])))
    store.get("k")
    google.accepted = "token-2"

    assert store.get("k") == b"here"
    google.accepted = "none"
    with pytest.raises(CredentialsRefused, match="Invalid Credentials"):
        store.get("k")

    used = [each.authorization for each in cloud.to("storage.googleapis.com")]
    assert used == [f"Bearer token-{number}" for number in (1, 1, 2, 2, 3)]


def test_what_may_not_be_done_names_who_asked(
    cloud: Cloud, google: Google, kinds: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    google.storage = lambda asked: (403, {}, b'{"error": {"code": 403, "message": "robot lacks storage.objects.get"}}')
    options = StorageOptions(gcs_credentials_file=file_of(tmp_path, kinds["service_account"]))

    with pytest.raises(StoreRefused, match=r"lacks storage.*asked as robot@project") as refused:
        open_store("gs://bucket", options).get("k")

    assert not isinstance(refused.value, CredentialsRefused)


@pytest.mark.parametrize("url", ["gs://A", "gs://a b", "gs://me:secret@b", "gs://b:80/x"])
def test_an_odd_name_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no bucket's name"):
        open_store(url, StorageOptions(anonymous=True))


def test_polars_reads_with_a_token_that_is_renewed(
    cloud: Cloud, google: Google, kinds: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    google.storage = parquet_object({"x": [1, 2]})
    file = file_of(tmp_path, kinds["external_account"])
    store = open_store("gs://bucket", StorageOptions(gcs_credentials_file=file, gcs_endpoint_url=cloud.url))
    arguments = store.reader_options()

    token, until = arguments["credential_provider"]()
    read = pl.scan_parquet(store.uri("k.parquet"), **arguments).collect()

    assert read["x"].to_list() == [1, 2]
    assert token == {"bearer_token": "token-1"}
    assert until is not None
    assert time.time() < until < time.time() + 3601
    assert {each.authorization for each in cloud.asked if "parquet" in each.path} == {"Bearer token-1"}
