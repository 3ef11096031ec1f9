"""S3 as AWS's users have it: every setting of AWS's own is used, and what arrives is what AWS would accept."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from botocore.config import Config as BotoConfig
from cloud_fakes import Answer, Asked, Cloud, parquet_object, region_of, signature_is_right
from pydantic import SecretStr
from tidemill_core.errors import ConfigError, exit_code
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import StoreRefused, StoreUnavailable, _aws, open_store
from tidemill_core.storage._aws_hosts import Site, base_url, split_url
from tidemill_core.storage.errors import CredentialsMissing, CredentialsRefused

KEYS = StorageOptions(s3_access_key_id="AKIATEST", s3_secret_access_key=SecretStr("hush"))
SECRET = "hush"
FOUND: Answer = (200, {"ETag": '"e1"', "Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT"}, b"here")


@pytest.fixture
def cloud(cloud: Cloud) -> Cloud:
    """AWS: answers what is signed by the one secret."""
    cloud.answer = lambda asked: FOUND if signature_is_right(asked, SECRET) else (403, {}, b"")
    return cloud


def written(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# -- settings of AWS's own


def test_a_request_reaches_the_buckets_own_host_signed_for_its_region(cloud: Cloud) -> None:
    store = open_store("s3://bucket/in", KEYS.model_copy(update={"s3_region": "eu-west-1"}))

    assert store.get("a b/ü") == b"here"

    [asked] = cloud.asked
    assert (asked.host, asked.path) == ("bucket.s3.eu-west-1.amazonaws.com", "/in/a%20b/%C3%BC")
    assert region_of(asked) == "eu-west-1"
    assert asked.is_tunnelled


def test_a_listing_and_a_delete_of_many_are_signed_for_the_buckets_host(cloud: Cloud) -> None:
    answer = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    cloud.answer = lambda asked: (200, {}, answer) if signature_is_right(asked, SECRET) else (403, {}, b"")
    store = open_store("s3://bucket/in", KEYS)

    assert list(store.list("a b")) == []
    store.delete(["a", "b"])

    assert [(each.method, each.path) for each in cloud.asked] == [("GET", "/"), ("POST", "/")]
    assert cloud.asked[0].query["prefix"] == "in/a b"


def test_a_wrong_secret_is_not_accepted_by_the_fake(cloud: Cloud) -> None:
    wrong = KEYS.model_copy(update={"s3_secret_access_key": SecretStr("other")})

    with pytest.raises(StoreRefused, match="403"):
        open_store("s3://bucket", wrong).get("k")


@pytest.mark.parametrize(
    ("variables", "config", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "", "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "ap-south-1"}, "", "ap-south-1"),
        ({"AWS_PROFILE": "prod"}, "[profile prod]\nregion = ap-south-1\n", "ap-south-1"),
        ({}, "[default]\nregion = eu-west-1\n", "eu-west-1"),
        ({}, "", "us-east-1"),
    ],
)
def test_the_region_is_that_of_awss_configuration(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], config: str, region: str
) -> None:
    written(tmp_path / "config", config)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    open_store("s3://bucket", KEYS).get("k")

    assert [(each.host, region_of(each)) for each in cloud.asked] == [(f"bucket.s3.{region}.amazonaws.com", region)]


@pytest.mark.parametrize(
    ("variables", "config"),
    [
        ({"AWS_ENDPOINT_URL": "URL"}, ""),
        ({"AWS_ENDPOINT_URL_S3": "URL", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ""),
        ({}, "[default]\nendpoint_url = URL\n"),
        (
            {},
            "[default]\nservices = own\nendpoint_url = http://127.0.0.1:9\n[services own]\ns3 =\n  endpoint_url = URL\n",
        ),
        ({"AWS_ENDPOINT_URL": "URL"}, "[default]\nendpoint_url = http://127.0.0.1:9\n"),
    ],
)
def test_the_endpoint_is_that_of_awss_configuration(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], config: str
) -> None:
    written(tmp_path / "config", config.replace("URL", cloud.url))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("URL", cloud.url) if value == "URL" else value)

    open_store("s3://bucket", KEYS).get("k")

    assert [each.path for each in cloud.asked] == ["/bucket/k"]
    # The same is what AWS's own client takes.
    client = boto3.session.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1").client(
        "s3"
    )
    assert client.meta.endpoint_url == cloud.url


def test_configured_endpoints_can_be_ignored(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")

    open_store("s3://bucket", KEYS).get("k")

    assert cloud.asked[0].host == "bucket.s3.us-east-1.amazonaws.com"


def test_fips_and_dual_stack_change_the_host(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")

    open_store("s3://bucket", KEYS).get("k")

    assert cloud.asked[0].host == "bucket.s3-fips.dualstack.us-east-1.amazonaws.com"


def test_awss_ca_bundle_is_trusted_and_without_it_the_certificate_is_refused(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreRefused, match=r"not trusted.*TIDEMILL_CA_BUNDLE"):
        open_store("s3://bucket", KEYS).get("k")

    monkeypatch.setenv("AWS_CA_BUNDLE", str(cloud.ca_file))

    assert open_store("s3://bucket", KEYS).get("k") == b"here"


def test_a_profile_of_the_settings_is_used_with_its_session_token(cloud: Cloud, tmp_path: Path) -> None:
    written(
        tmp_path / "credentials",
        "[mine]\naws_access_key_id = AKIAMINE\naws_secret_access_key = hush\naws_session_token = token-1\n",
    )

    open_store("s3://bucket", StorageOptions(s3_profile="mine")).get("k")

    assert "Credential=AKIAMINE/" in cloud.asked[0].authorization
    assert cloud.asked[0].headers["x-amz-security-token"] == "token-1"
    assert "x-amz-security-token" in cloud.asked[0].authorization


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"])
@pytest.mark.parametrize(("is_fips", "is_dual_stack"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_address_is_the_one_that_aws_itself_computes(region: str, is_fips: bool, is_dual_stack: bool) -> None:
    if is_fips and region.startswith("cn-"):
        pytest.skip("China has no FIPS")
    config = BotoConfig(
        use_fips_endpoint=is_fips,
        use_dualstack_endpoint=is_dual_stack,
        s3={"us_east_1_regional_endpoint": "regional"},
    )
    client = boto3.client("s3", region, aws_access_key_id="a", aws_secret_access_key="b", config=config)
    asked: list[str] = []

    def caught(request: Any, **_: Any) -> None:
        asked.append(request.url)
        raise ConnectionAbortedError

    client.meta.events.register("before-send.s3", caught)
    access_point = f"arn:aws:s3:{region}:123456789012:accesspoint/mine"
    names = ["bucket", "dotted.bucket", "Under_Score", *([access_point] if region.startswith("eu") else [])]
    for name in names:
        with suppress(ConnectionAbortedError):
            client.get_object(Bucket=name, Key="k")

    site = Site(region=region, is_fips=is_fips, is_dual_stack=is_dual_stack)
    assert asked == [f"{base_url('s3://', split_url(f's3://{name}')[0], site)}/k" for name in names]


# -- a wrong region


def region_told(status: int, *, has_header: bool = True) -> Callable[[Asked], Answer]:
    """A bucket of eu-west-1 that says so, as S3 does."""

    def answer(asked: Asked) -> Answer:
        if region_of(asked) == "eu-west-1":
            return FOUND if signature_is_right(asked, SECRET) else (403, {}, b"")
        headers = {"x-amz-bucket-region": "eu-west-1"} if has_header else {}
        body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
        return status, headers, body

    return answer


@pytest.mark.parametrize("status", [301, 400])
def test_a_wrong_region_is_corrected_once_and_remembered_by_every_store(cloud: Cloud, status: int) -> None:
    cloud.answer = region_told(status)

    assert open_store("s3://bucket", KEYS).get("k") == b"here"
    assert open_store("s3://bucket/other", KEYS).get("k") == b"here"

    assert [each.host for each in cloud.asked] == [
        "bucket.s3.us-east-1.amazonaws.com",
        "bucket.s3.eu-west-1.amazonaws.com",
        "bucket.s3.eu-west-1.amazonaws.com",
    ]


def test_the_region_in_the_body_counts_at_an_endpoint_that_sends_no_header(cloud: Cloud) -> None:
    cloud.answer = region_told(400, has_header=False)

    store = open_store("s3://bucket", KEYS.model_copy(update={"s3_endpoint_url": cloud.url}))

    assert store.put("k", b"body").etag == "e1"
    assert [region_of(each) for each in cloud.asked] == ["us-east-1", "eu-west-1"]


def test_a_head_and_a_stream_and_a_conditional_write_are_corrected_too(cloud: Cloud) -> None:
    for number, ask in enumerate(
        (
            lambda store: store.head("k"),
            lambda store: b"".join(store.stream("k")),
            lambda store: store.put("k", b"1", if_absent=True),
        )
    ):
        cloud.answer = region_told(301)
        ask(open_store(f"s3://bucket{number}", KEYS))

    assert [region_of(each) for each in cloud.asked] == ["us-east-1", "eu-west-1"] * 3


def test_a_store_that_moves_for_ever_is_refused_and_not_chased(cloud: Cloud) -> None:
    turns = iter(range(1000))
    cloud.answer = lambda asked: (301, {"x-amz-bucket-region": f"eu-west-{next(turns)}"}, b"")

    with pytest.raises((StoreRefused, StoreUnavailable)):
        open_store("s3://bucket", KEYS.model_copy(update={"s3_endpoint_url": cloud.url})).get("k")

    assert len(cloud.asked) == 2


def test_a_region_that_is_none_is_never_taken_for_a_host(cloud: Cloud) -> None:
    cloud.answer = lambda asked: (301, {"x-amz-bucket-region": "evil.example/"}, b"")

    with pytest.raises(StoreRefused, match="301"):
        open_store("s3://bucket", KEYS).get("k")

    assert {each.host for each in cloud.asked} == {"bucket.s3.us-east-1.amazonaws.com"}


# -- expired tokens

EXPIRED: Answer = (
    400,
    {},
    b"<Error><Code>ExpiredToken</Code><Message>It ended</Message><Token-0>tok-secret</Token-0></Error>",
)


def profile_with(path: Path, token: str) -> None:
    written(path, f"[default]\naws_access_key_id=A\naws_secret_access_key=hush\naws_session_token={token}\n")


def test_an_expired_token_is_refreshed_once(cloud: Cloud, tmp_path: Path) -> None:
    profile_with(tmp_path / "credentials", "old")
    store = open_store("s3://bucket", StorageOptions())
    store.get("k")
    profile_with(tmp_path / "credentials", "new")
    cloud.answer = lambda asked: FOUND if asked.headers["x-amz-security-token"] == "new" else EXPIRED

    assert store.put("k", b"1", if_absent=True).etag == "e1"
    assert store.get("k") == b"here"

    assert [each.headers["x-amz-security-token"] for each in cloud.asked] == ["old", "old", "new", "new"]


def test_many_threads_with_one_expired_token_look_for_a_new_one_once(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile_with(tmp_path / "credentials", "old")
    store = open_store("s3://bucket", StorageOptions())
    store.get("k")
    profile_with(tmp_path / "credentials", "new")
    together = threading.Barrier(8)

    def answer(asked: Asked) -> Answer:
        if asked.headers["x-amz-security-token"] == "new":
            return FOUND
        together.wait(timeout=30)
        return EXPIRED

    cloud.answer = answer
    sessions: list[object] = []
    honest = _aws._session
    monkeypatch.setattr(_aws, "_session", lambda profile: sessions.append(profile) or honest(profile))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.get("k"), range(8)))

    assert found == [b"here"] * 8
    assert len(sessions) == 1


def test_a_login_that_ended_says_how_to_log_in_again(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sso = "sso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\n"
    written(tmp_path / "config", f"[profile prod]\n{sso}sso_account_id = 123456789012\nsso_role_name = reader\n")

    with pytest.raises(CredentialsRefused, match="aws sso login") as refused:
        open_store("s3://bucket", StorageOptions(s3_profile="prod")).get("k")

    assert "\n" not in str(refused.value)
    assert exit_code(refused.value) == 1


def test_an_expired_token_that_nobody_renewed_is_refused_without_showing_it(cloud: Cloud, tmp_path: Path) -> None:
    profile_with(tmp_path / "credentials", "old")
    cloud.answer = lambda asked: EXPIRED

    with pytest.raises(CredentialsRefused, match=r"ExpiredToken.*aws sso login") as refused:
        open_store("s3://bucket", StorageOptions()).get("k")

    assert "tok-secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert exit_code(refused.value) == 1
    assert len(cloud.asked) == 1


def test_a_session_token_of_the_settings_is_signed_and_never_replaced_by_others(cloud: Cloud, tmp_path: Path) -> None:
    profile_with(tmp_path / "credentials", "of the profile")
    cloud.answer = lambda asked: EXPIRED
    options = KEYS.model_copy(update={"s3_session_token": SecretStr("mine")})

    with pytest.raises(CredentialsRefused, match="the settings"):
        open_store("s3://bucket", options).get("k")

    assert [each.headers["x-amz-security-token"] for each in cloud.asked] == ["mine"]


# -- who we are


def test_a_web_identity_is_exchanged_for_keys(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written(tmp_path / "token", "federated")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(cloud.ca_file))
    given = (
        b"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>"
        b"<SecretAccessKey>hush</SecretAccessKey><SessionToken>t1</SessionToken>"
        b"<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
        b"</AssumeRoleWithWebIdentityResponse>"
    )
    cloud.answer = lambda asked: (200, {}, given) if asked.host.startswith("sts.") else FOUND

    open_store("s3://bucket", StorageOptions()).get("k")

    assert b"WebIdentityToken=federated" in cloud.asked[0].body
    assert "Credential=ASIA1/" in cloud.asked[1].authorization


def test_a_role_that_may_not_be_assumed_is_refused_in_one_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(tmp_path / "token", "federated")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(cloud.ca_file))
    denied = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not yours</Message></Error></ErrorResponse>"
    cloud.answer = lambda asked: (403, {}, denied)

    with pytest.raises(CredentialsRefused, match="Not yours") as refused:
        open_store("s3://bucket", StorageOptions()).get("k")

    assert "\n" not in str(refused.value)


def test_nothing_is_anonymous_by_accident(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(CredentialsMissing) as missing:
        open_store("s3://bucket", StorageOptions()).get("k")

    assert cloud.asked == []
    assert exit_code(missing.value) == 3
    for place in (
        "TIDEMILL_S3_ACCESS_KEY_ID",
        "AWS_ACCESS_KEY_ID",
        "'default'",
        str(tmp_path / "config"),
        "anonymous: true",
    ):
        assert place in str(missing.value)


def test_anonymous_is_a_setting_and_no_key_of_the_machine_is_sent(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMACHINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    cloud.answer = lambda asked: FOUND

    open_store("s3://bucket", StorageOptions(anonymous=True)).get("k")

    assert "authorization" not in cloud.asked[0].headers


@pytest.mark.parametrize(
    ("options", "variables", "told"),
    [
        ({"s3_access_key_id": "a"}, {}, "TIDEMILL_S3_SECRET_ACCESS_KEY"),
        ({"s3_secret_access_key": "b"}, {}, "TIDEMILL_S3_ACCESS_KEY_ID"),
        ({"s3_session_token": "c"}, {}, "s3_session_token"),
        ({}, {"AWS_ACCESS_KEY_ID": "a"}, "(?i)partial"),
        ({"s3_profile": "nobody"}, {}, "nobody"),
        ({}, {"AWS_PROFILE": "nobody"}, "nobody"),
        ({"s3_region": "eu west 1"}, {}, "no region"),
        ({"s3_endpoint_url": "localhost:9000"}, {}, "s3_endpoint_url"),
        ({}, {"AWS_ENDPOINT_URL_S3": "127.0.0.1"}, "AWS_ENDPOINT_URL_S3"),
        ({"s3_kms_key": "k", "s3_sse": "AES256"}, {}, "s3_sse to aws:kms"),
        ({"ca_bundle": "/nowhere.pem", "anonymous": "true"}, {}, "CA bundle"),
    ],
)
def test_what_cannot_be_right_is_told_in_one_line_before_anything_is_asked(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=told) as wrong:
        open_store("s3://bucket", StorageOptions(**options)).get("k")

    assert "\n" not in str(wrong.value)
    assert cloud.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://a b",
        "s3://bücket",
        "s3://me:secret@bucket",
        "s3://bucket:9000/x",
        "s3://a..b",
        "s3://b?versionId=1",
        "s3://ab",
        "s3://-",
        "s3://mine--use1-az4--x-s3",
        "s3://arn:aws:s3:eu-west-1:1:bucket",
        "s3://arn:aws:s3::123456789012:accesspoint/multi.mrap",
        "s3://arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/x",
    ],
)
def test_an_odd_name_is_refused_in_one_line(cloud: Cloud, url: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        open_store(url, KEYS).get("k")

    assert "\n" not in str(wrong.value)
    assert cloud.asked == []


# -- what is written, and who pays


def test_an_access_point_is_reached_by_its_arn(cloud: Cloud) -> None:
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"
    store = open_store(f"s3://{arn}/in/", KEYS)
    copied = b"<CopyObjectResult><ETag>e1</ETag></CopyObjectResult>"
    cloud.answer = lambda asked: (200, FOUND[1], copied) if signature_is_right(asked, SECRET) else (403, {}, b"")

    store.copy("a", "b")

    asked = cloud.asked[0]
    assert (asked.host, asked.path) == ("mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", "/in/b")
    assert region_of(asked) == "eu-west-1"
    assert asked.headers["x-amz-copy-source"] == f"{arn}/object/in/a"
    assert store.uri("k") == f"s3://{arn}/in/k"


def test_encryption_and_payer_are_on_every_request_that_takes_them(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill_core.storage.s3.PART_BYTES", 4)
    cloud.answer = lambda asked: (
        (200, FOUND[1], b"<R><UploadId>u</UploadId><ETag>e</ETag></R>")
        if signature_is_right(asked, SECRET)
        else (403, {}, b"")
    )
    store = open_store("s3://bucket", KEYS.model_copy(update={"s3_kms_key": "alias/mine", "s3_requester_pays": True}))

    store.put("small", b"1")
    store.put("large", b"12345678")
    store.copy("small", "copy")
    store.get("small")

    told = [(each.method, each.query, each.headers.get("x-amz-server-side-encryption")) for each in cloud.asked]
    created = [("PUT", {}, "aws:kms"), ("POST", {"uploads": ""}, "aws:kms"), ("PUT", {}, "aws:kms")]
    assert [each for each in told if each[2]] == created
    assert len(told) == 8
    assert cloud.asked[0].headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/mine"
    assert {each.headers.get("x-amz-request-payer") for each in cloud.asked} == {"requester"}


def test_without_the_settings_nothing_of_them_is_sent(cloud: Cloud) -> None:
    open_store("s3://bucket", KEYS).put("k", b"1")

    assert not {"x-amz-request-payer", "x-amz-server-side-encryption"} & cloud.asked[0].headers.keys()


# -- polars


def test_polars_reads_with_keys_that_are_renewed(cloud: Cloud, tmp_path: Path) -> None:
    profile_with(tmp_path / "credentials", "old")
    store = open_store("s3://bucket", StorageOptions(s3_endpoint_url=cloud.url, s3_region="eu-west-1"))
    cloud.answer = parquet_object({"x": [1, 2, 3]})
    arguments = store.reader_options()

    keys, until = arguments["credential_provider"]()
    read = pl.scan_parquet(store.uri("k.parquet"), **arguments).collect()

    assert read["x"].to_list() == [1, 2, 3]
    assert keys == {"aws_access_key_id": "A", "aws_secret_access_key": "hush", "aws_session_token": "old"}
    assert until is not None
    assert "hush" not in json.dumps(arguments["storage_options"])
    assert cloud.asked
    assert all(signature_is_right(each, SECRET) and region_of(each) == "eu-west-1" for each in cloud.asked)
    assert {each.headers["x-amz-security-token"] for each in cloud.asked} == {"old"}


def test_polars_is_told_the_region_where_the_bucket_is(cloud: Cloud) -> None:
    cloud.answer = region_told(301)

    options = open_store("s3://bucket", KEYS).reader_options()["storage_options"]

    assert options["aws_region"] == "eu-west-1"
