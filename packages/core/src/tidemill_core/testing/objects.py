"""Buckets for tests: a fresh one for each, on servers that all share."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from pydantic import SecretStr

from tidemill_core.services import azurite, s3
from tidemill_core.services.fake_gcs import FakeGcsService
from tidemill_core.settings import StorageOptions
from tidemill_core.testing.servers import shared

Bucket = tuple[str, StorageOptions]


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """An S3-compatible server and the keys it accepts."""

    endpoint_url: str
    access_key: str
    secret_key: str

    @property
    def options(self) -> StorageOptions:
        """What `open_store` needs to reach it."""
        return StorageOptions(
            s3_endpoint_url=self.endpoint_url,
            s3_access_key_id=self.access_key,
            s3_secret_access_key=SecretStr(self.secret_key),
        )


def s3_server(name: str) -> S3Server:
    """Find or start the S3 server called `name` (``s3mock`` or ``versitygw``)."""
    given = os.environ.get("TIDEMILL_TEST_S3_ENDPOINT_URL") if name == "s3mock" else None
    service = s3.S3MockService() if name == "s3mock" else s3.VersityGwService()
    endpoint = given or shared(service, kind="s3").url
    return S3Server(
        endpoint_url=endpoint,
        access_key=os.environ.get("TIDEMILL_TEST_S3_ACCESS_KEY_ID", s3.ACCESS_KEY),
        secret_key=os.environ.get("TIDEMILL_TEST_S3_SECRET_ACCESS_KEY", s3.SECRET_KEY),
    )


def s3_bucket(server: S3Server) -> Bucket:
    """Make a fresh bucket and return its URL and options."""
    name = f"t-{secrets.token_hex(6)}"
    headers = _signed_v4(server, "PUT", f"/{name}")
    _expect(_request(server.endpoint_url, "PUT", f"/{name}", headers=headers), f"create bucket {name}")
    return f"s3://{name}", server.options


@contextmanager
def gcs_bucket() -> Iterator[Bucket]:
    """Make a fresh bucket on fake-gcs-server."""
    endpoint = os.environ.get("TIDEMILL_TEST_GCS_ENDPOINT_URL") or shared(FakeGcsService(), kind="gcs").url
    name = f"t-{secrets.token_hex(6)}"
    body = f'{{"name": "{name}"}}'.encode()
    headers = {"Content-Type": "application/json"}
    _expect(_request(endpoint, "POST", "/storage/v1/b?project=test", body, headers), f"create bucket {name}")
    yield f"gs://{name}", StorageOptions(gcs_endpoint_url=endpoint, anonymous=True)


@contextmanager
def azure_container() -> Iterator[Bucket]:
    """Make a fresh container on Azurite."""
    endpoint = os.environ.get("TIDEMILL_TEST_AZURE_ENDPOINT_URL") or shared(azurite.AzuriteService(), kind="azure").url
    name = f"t-{secrets.token_hex(6)}"
    path = f"/{azurite.ACCOUNT}/{name}?restype=container"
    server = endpoint.rpartition("/")[0]
    _expect(_request(server, "PUT", path, headers=_azure_signed(name)), f"create container {name}")
    options = StorageOptions(
        azure_endpoint_url=endpoint, azure_account=azurite.ACCOUNT, azure_key=SecretStr(azurite.ACCOUNT_KEY)
    )
    yield f"az://{name}", options


def _request(
    endpoint: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _expect(answer: tuple[int, bytes], what: str) -> None:
    code, body = answer
    if code not in {200, 201}:
        raise RuntimeError(f"{what}: HTTP {code} {body[:300]!r}")


def _signed_v4(server: S3Server, method: str, path: str) -> dict[str, str]:
    """Sign a request without body or query by AWS Signature Version 4."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    host, empty = server.endpoint_url.removeprefix("http://"), hashlib.sha256(b"").hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
    names, scope = ";".join(headers), f"{now[:8]}/us-east-1/s3/aws4_request"
    canonical = "\n".join([method, path, "", *(f"{k}:{v}" for k, v in headers.items()), "", names, empty])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{server.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    credential = f"Credential={server.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _azure_signed(container: str) -> dict[str, str]:
    """Sign the creation of a container by Azure's Shared Key."""
    headers = {"x-ms-date": format_datetime(datetime.now(UTC), usegmt=True), "x-ms-version": "2021-12-02"}
    account = azurite.ACCOUNT
    canonical = "".join(f"{k}:{v}\n" for k, v in headers.items()) + f"/{account}/{account}/{container}"
    to_sign = "PUT" + "\n" * 12 + canonical + "\nrestype:container"
    key = base64.b64decode(azurite.ACCOUNT_KEY)
    signature = base64.b64encode(hmac.digest(key, to_sign.encode(), "sha256")).decode()
    return {**headers, "Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"}
