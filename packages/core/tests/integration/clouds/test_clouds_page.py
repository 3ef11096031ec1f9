"""Every block of docs/how-to/clouds.md does what its heading says, as a command of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_fakes import Answer, Asked, Cloud, region_of, signature_is_right

PAGE = Path(__file__).parents[5] / "docs" / "how-to" / "clouds.md"
_SECTION = re.compile(r"^### (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PARTS = _SECTION.split(PAGE.read_text(encoding="utf-8"))[1:]
BLOCKS = {name: _BLOCK.findall(text)[0] for name, text in zip(_PARTS[::2], _PARTS[1::2], strict=True)}
LISTED = {
    "s3": b"<ListBucketResult><Contents><Key>in/hello</Key><Size>2</Size><ETag>e</ETag>"
    b"<LastModified>2026-11-27T00:00:00Z</LastModified></Contents></ListBucketResult>",
    "az": b"<EnumerationResults><Blobs><Blob><Name>in/hello</Name><Properties><Content-Length>2</Content-Length>"
    b"<Etag>e</Etag><Last-Modified>Fri, 27 Nov 2026 00:00:00 GMT</Last-Modified></Properties></Blob></Blobs>"
    b"</EnumerationResults>",
    "gs": b'{"items": [{"name": "in/hello", "size": "2", "generation": "1", "updated": "2026-11-27T00:00:00Z"}]}',
}
TENANT = "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111"
METADATA = {"token_endpoint": f"{TENANT}/oauth2/v2.0/token", "authorization_endpoint": f"{TENANT}/a", "issuer": TENANT}
TOKEN = {
    "access_token": "granted",
    "token_type": "Bearer",
    "expires_in": 3600,
    "expires_on": "4000000000",
    "resource": "x",
}
ROLE = (
    b"<R><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>hush"
    b"</SecretAccessKey><SessionToken>role</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
    b"</AssumeRoleWithWebIdentityResult></R>"
)
CONTAINER = {
    "AccessKeyId": "ASIATASK",
    "SecretAccessKey": "hush",
    "Token": "task",
    "Expiration": "2099-01-01T00:00:00Z",
}


def as_clouds(asked: Asked) -> Answer:
    """Every service that is asked on the way, and one object in every bucket."""
    words = {"Content-Type": "application/json"}
    if asked.host.startswith("sts."):
        return 200, {}, ROLE
    if asked.path == "/task":
        return 200, words, json.dumps(CONTAINER).encode()
    if asked.host.startswith("login.") and asked.method == "GET":
        return 200, words, json.dumps(METADATA).encode()
    if asked.host.startswith(("login.", "oauth2.")) or asked.path == "/msi":
        return 200, words, json.dumps(TOKEN).encode()
    if asked.method in {"PUT", "HEAD"}:
        return (200 if asked.method == "PUT" else 404), {"ETag": '"e"'}, b""
    kind = "gs" if asked.path.startswith("/storage/") else "az" if "comp" in asked.query else "s3"
    empty = kind == "s3" and asked.query.get("prefix") is not None and "x-amz-request-payer" in asked.headers
    return 200, {"ETag": '"e"'}, b"<ListBucketResult></ListBucketResult>" if empty else LISTED[kind]


def key(name: str, region: str = "us-east-1", token: str | None = None) -> Callable[[Asked], bool]:
    return lambda asked: (
        f"Credential={name}/" in asked.authorization
        and region_of(asked) == region
        and asked.headers.get("x-amz-security-token") == token
        and signature_is_right(asked, "hush")
    )


def bearer(asked: Asked) -> bool:
    return asked.authorization == "Bearer granted"


def unsigned(asked: Asked) -> bool:
    return "authorization" not in asked.headers and "sig" not in asked.query


AWS, AZURE, GOOGLE = "my-bucket.s3.us-east-1.amazonaws.com", "mine.blob.core.windows.net", "storage.googleapis.com"
ARRIVES: dict[str, tuple[str, Callable[[Asked], bool]]] = {
    "A profile": ("my-bucket.s3.ap-south-1.amazonaws.com", key("AKIAPROD", "ap-south-1")),
    "An access key": ("my-bucket.s3.eu-west-1.amazonaws.com", key("AKIAEXAMPLE", "eu-west-1")),
    "A temporary key with its session token": (AWS, key("ASIAEXAMPLE", token="temporary")),
    "The role of a Kubernetes service account": (
        "my-bucket.s3.eu-west-1.amazonaws.com",
        key("ASIAROLE", "eu-west-1", "role"),
    ),
    "The role of an ECS task or EKS pod": (AWS, key("ASIATASK", token="task")),
    "An access point": ("mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com", key("AKIAEXAMPLE", "eu-west-1")),
    "Another S3-compatible server": ("LOOPBACK", key("AKIAEXAMPLE")),
    "Encryption, and requests that you pay for": (
        AWS,
        lambda asked: (
            asked.headers.get("x-amz-request-payer") == "requester"
            and (
                asked.method != "PUT"
                or asked.headers.get("x-amz-server-side-encryption-aws-kms-key-id") == "alias/lake"
            )
        ),
    ),
    "A public bucket": (AWS, unsigned),
    "An account key": (AZURE, lambda asked: asked.authorization.startswith("SharedKey mine:")),
    "A connection string": (AZURE, lambda asked: asked.authorization.startswith("SharedKey mine:")),
    "A shared access signature": (AZURE, lambda asked: asked.query.get("sig") == "signed"),
    "A service principal": (AZURE, bearer),
    "A workload identity": (AZURE, bearer),
    "A managed identity": (AZURE, bearer),
    "A public container": (AZURE, unsigned),
    "A credentials file": (GOOGLE, bearer),
    "The login of gcloud, and a project that pays": (
        GOOGLE,
        lambda asked: bearer(asked) and asked.headers.get("x-goog-user-project") == "payer",
    ),
    "An emulator": ("LOOPBACK", unsigned),
    "A public Google bucket": (GOOGLE, unsigned),
}


def test_every_block_of_the_page_has_its_check() -> None:
    assert BLOCKS.keys() == ARRIVES.keys()


def run(block: str, cloud: Cloud, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block as a user would, on a machine with a profile, a login of gcloud and the tokens of a pod."""
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "hush", "refresh_token": "r"}
    (folder / "config").write_text(
        "[profile prod]\nregion=ap-south-1\naws_access_key_id=AKIAPROD\naws_secret_access_key=hush\n"
    )
    (folder / "google.json").write_text(json.dumps(user))
    (folder / "gcloud").mkdir()
    (folder / "gcloud" / "application_default_credentials.json").write_text(json.dumps(user))
    (folder / "pod-token").write_text("of-the-pod")
    (folder / "in").mkdir()
    if "sync run" in block:
        (folder / "in" / "hello").write_text("hi")
    bin_folder = Path(sys.executable).parent
    env = {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TIDEMILL_HOME": str(folder / "home"),
        "AWS_CONFIG_FILE": str(folder / "config"),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CONTAINER_CREDENTIALS": f"{cloud.url}/task",
        "S3_SERVER": cloud.url,
        "EMULATOR": cloud.url,
        **cloud.environment(),
    }
    if "user-assigned" in block:
        env |= {"IDENTITY_ENDPOINT": f"{cloud.url}/msi", "IDENTITY_HEADER": "header"}
    return subprocess.run(
        ["bash", "-euc", block], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("heading", ARRIVES)
def test_a_block_of_the_page_signs_in_as_it_says(cloud: Cloud, tmp_path: Path, heading: str) -> None:
    cloud.answer = as_clouds

    done = run(BLOCKS[heading], cloud, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout or "1" in done.stdout
    host, is_right = ARRIVES[heading]
    asked = [each for each in cloud.asked if each.host == host.replace("LOOPBACK", cloud.url.removeprefix("http://"))]
    asked = [each for each in asked if each.path not in {"/task", "/msi"}]
    assert asked, [each.host for each in cloud.asked]
    assert all(map(is_right, asked)), [each.headers for each in asked]
    assert any(each.method == "PUT" for each in asked) == ("sync run" in BLOCKS[heading])


def test_a_block_that_signs_in_as_somebody_else_is_found(cloud: Cloud, tmp_path: Path) -> None:
    cloud.answer = as_clouds

    run(BLOCKS["An access key"].replace("AKIAEXAMPLE", "AKIAOTHER"), cloud, tmp_path)

    host, is_right = ARRIVES["An access key"]
    assert cloud.to(host)
    assert not any(map(is_right, cloud.to(host)))


DENIED: Answer = (403, {}, b"<Error><Code>AccessDenied</Code><Message>Not yours</Message></Error>")
EXPIRED: Answer = (400, {}, b"<Error><Code>ExpiredToken</Code><Message>It ended</Message></Error>")
BUSY: Answer = (503, {}, b"<Error><Code>SlowDown</Code></Error>")


@pytest.mark.parametrize(
    ("block", "answer", "code", "told"),
    [
        ("AWS_PROFILE=nobody tidemill sync plan s3://my-bucket ./in", DENIED, 3, "nobody"),
        ("tidemill sync plan s3://my-bucket ./in", DENIED, 3, "no credentials found; looked at"),
        ("TIDEMILL_S3_ACCESS_KEY_ID=a tidemill sync plan s3://my-bucket ./in", DENIED, 3, "half of a pair"),
        ("AWS_PROFILE=prod tidemill sync plan 's3://my bucket' ./in", DENIED, 3, "no bucket's name"),
        ("AWS_PROFILE=prod tidemill sync plan s3://my-bucket ./in", EXPIRED, 1, "ExpiredToken"),
        ("AWS_PROFILE=prod tidemill sync plan s3://my-bucket ./in", DENIED, 1, "Not yours"),
        ("AWS_PROFILE=prod tidemill sync plan s3://my-bucket ./in", BUSY, 75, "SlowDown"),
        (
            "TIDEMILL_GCS_CREDENTIALS_FILE=./none.json tidemill sync plan gs://my-bucket ./in",
            DENIED,
            3,
            "none.json",
        ),
        ("TIDEMILL_GCS_CREDENTIALS_FILE=./google.json tidemill sync plan gs://my-bucket ./in", DENIED, 1, "renew"),
        ("CLOUDSDK_CONFIG=/nowhere tidemill sync plan gs://my-bucket ./in", DENIED, 3, "the metadata server"),
        (
            (
                "AZURE_STORAGE_ACCOUNT=mine AZURE_POD_IDENTITY_AUTHORITY_HOST=http://127.0.0.1:9 "
                "tidemill sync plan az://my-container ./in"
            ),
            DENIED,
            3,
            "the managed identity; az login. Set",
        ),
        (
            (
                "AZURE_STORAGE_ACCOUNT=mine AZURE_TENANT_ID=t AZURE_CLIENT_ID=c AZURE_CLIENT_SECRET=hush "
                "tidemill sync plan az://my-container ./in"
            ),
            (400, {}, b'{"error": "invalid_tenant", "error_description": "AADSTS90002: no such tenant"}'),
            1,
            "refused to get a token of Entra",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_exit_code(
    cloud: Cloud, tmp_path: Path, block: str, answer: Answer, code: int, told: str
) -> None:
    cloud.answer = lambda asked: answer

    done = run(block, cloud, tmp_path)

    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not [line for line in done.stderr.splitlines() if '"logger"' in line and "tidemill_core" not in line]
    assert len(errors) == 1
    assert told in errors[0]
