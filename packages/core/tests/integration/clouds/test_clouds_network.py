"""The way to a store: proxies for http and https, what is excepted from them, and authorities of one's own."""

import re

import pytest
from cloud_fakes import Answer, Cloud, signature_is_right
from pydantic import SecretStr
from tidemill_core.errors import ConfigError
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import StoreRefused, StoreUnavailable, open_store
from tidemill_core.storage._net import proxy_for

FOUND: Answer = (200, {"ETag": '"e1"'}, b"here")
BASIC = "Basic bWU6cEBzcw=="  # me:p@ss


def s3(endpoint_url: str) -> StorageOptions:
    return StorageOptions(
        s3_endpoint_url=endpoint_url, s3_access_key_id="me", s3_secret_access_key=SecretStr("hush"), s3_region="r"
    )


@pytest.fixture
def cloud(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.delenv("NO_PROXY")
    cloud.answer = lambda asked: FOUND if signature_is_right(asked, "hush") else (403, {}, b"")
    return cloud


def test_an_http_endpoint_is_reached_by_its_proxy_with_the_whole_url(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", cloud.url.replace("//", "//me:p%40ss@"))
    store = open_store("s3://bucket", s3("http://storage.internal:9000"))

    assert store.get("x/../y/./z") == b"here"
    store.put("k", b"body")

    assert [each.target for each in cloud.asked] == [
        "http://storage.internal:9000/bucket/x/../y/./z",
        "http://storage.internal:9000/bucket/k",
    ]
    assert {each.headers["proxy-authorization"] for each in cloud.asked} == {BASIC}
    assert {each.headers["host"] for each in cloud.asked} == {"storage.internal:9000"}
    assert not cloud.tunnels


@pytest.mark.parametrize("cloud_name", ["gs", "az"])
def test_the_other_clouds_name_the_host_to_the_proxy(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, cloud_name: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", cloud.url)
    cloud.answer = lambda asked: (200, {"x-goog-generation": "1"}, b"here")
    endpoint = "http://storage.internal:9000"
    options = StorageOptions(gcs_endpoint_url=endpoint, azure_endpoint_url=endpoint, azure_account="a", anonymous=True)

    assert open_store(f"{cloud_name}://bucket", options).get("k") == b"here"

    assert cloud.asked[0].headers["host"] == "storage.internal:9000"
    assert cloud.asked[0].is_forwarded


def test_an_https_endpoint_is_tunnelled_and_the_proxys_password_stays_outside(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", cloud.url.replace("//", "//me:p%40ss@"))

    open_store("s3://bucket", s3("https://s3.eu-west-1.amazonaws.com")).get("k")

    assert [(where, headers.get("proxy-authorization")) for where, headers in cloud.tunnels] == [
        ("s3.eu-west-1.amazonaws.com:443", BASIC)
    ]
    assert "proxy-authorization" not in cloud.asked[0].headers


@pytest.mark.parametrize(
    "excepted", ["127.0.0.1", "*", "example.org,127.0.0.1", "127.0.0.0/8", "10.0.0.0/8, 127.0.0.1/32"]
)
def test_what_no_proxy_names_is_reached_directly(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, excepted: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)

    assert open_store("s3://bucket", s3(cloud.url)).get("k") == b"here"

    assert not cloud.asked[0].is_forwarded


@pytest.mark.parametrize("excepted", ["", "example.org", "10.0.0.0/8", "not/a/network"])
def test_what_no_proxy_does_not_name_goes_by_the_proxy(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)

    with pytest.raises(StoreUnavailable, match=re.escape("by the proxy 127.0.0.1:9")):
        open_store("s3://bucket", s3(cloud.url)).get("k")

    assert cloud.asked == []


def test_a_port_may_be_excepted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "storage.internal:9000")

    assert proxy_for("http://storage.internal:9000") is None
    assert str(proxy_for("http://storage.internal:9001")) == "proxy:3128"


@pytest.mark.parametrize("proxy", ["http://", "socks5://127.0.0.1:1080", "http://host:notaport", "http://:3128"])
def test_a_proxy_that_has_no_address_is_told_without_its_password(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)

    with pytest.raises(ConfigError, match="HTTP_PROXY"):
        open_store("s3://bucket", s3("http://storage.internal:9000")).get("k")


def test_the_proxys_password_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:topsecret@127.0.0.1:9")

    with pytest.raises(StoreUnavailable) as error:
        open_store("s3://bucket", s3("http://storage.internal:9000")).get("k")

    assert "topsecret" not in str(error.value)


def test_an_authority_of_ones_own_is_a_setting(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("SSL_CERT_FILE")
    url = "https://s3.eu-west-1.amazonaws.com"

    with pytest.raises(StoreRefused, match=r"not trusted.*ca_bundle"):
        open_store("s3://bucket", s3(url)).get("k")
    trusting = s3(url).model_copy(update={"ca_bundle": cloud.ca_file})

    assert open_store("s3://bucket", trusting).get("k") == b"here"


def test_a_certificate_of_another_host_is_refused_whoever_signed_it(cloud: Cloud) -> None:
    with pytest.raises(StoreRefused, match="not trusted"):
        open_store("s3://bucket", s3("https://storage.elsewhere.example")).get("k")
