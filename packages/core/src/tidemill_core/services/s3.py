"""S3-compatible servers: Adobe S3Mock (exact, for correctness) and versitygw (fast, for size)."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Launch
from tidemill_core.services.fetching import fetch_go, fetch_maven, go_version, maven_version, tool
from tidemill_core.services.processes import free_port

ACCESS_KEY = "tidemill"
SECRET_KEY = "tidemill-secret"  # noqa: S105 - both servers listen on loopback only
BUCKETS = ("lake", "mirror")
_VERSITYGW = "github.com/versity/versitygw"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3MockService:
    """Adobe S3Mock: every condition and all odd keys but a backslash, as AWS has them."""

    @property
    def name(self) -> str:
        """``s3mock``."""
        return "s3mock"

    @property
    def version(self) -> str:
        """The pinned version of S3Mock."""
        return maven_version("s3mock")

    def fetch(self) -> Path:
        """Download the jars."""
        tool(self.name, "java")
        return fetch_maven(self.name, self.version)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Make the folder it keeps its objects in."""
        data = folder / "data"
        data.mkdir(exist_ok=True)
        main = ("-cp", f"{self.fetch()}/*", "com.adobe.testing.s3mock.S3MockApplication")
        listen = (f"--server.port={free_port()}", f"--http.port={port}", "--server.address=127.0.0.1")
        store = "--com.adobe.testing.s3mock.store"
        keep = (f"{store}.root={data}", f"{store}.retain-files-on-exit=true")
        buckets = f"{store}.initial-buckets={','.join(BUCKETS)}"
        endpoint = f"http://127.0.0.1:{port}"
        return Launch(
            command=(tool(self.name, "java"), "-Xmx768m", *main, *listen, *keep, buckets),
            cwd=folder,
            url=endpoint,
            settings=settings(endpoint),
        )

    def is_ready(self, launch: Launch) -> bool:
        """Ask for the list of buckets."""
        return status(launch.url) == http.HTTPStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class VersityGwService:
    """versitygw over a local folder: fast, but it refuses some odd keys."""

    @property
    def name(self) -> str:
        """``versitygw``."""
        return "versitygw"

    @property
    def version(self) -> str:
        """The pinned version of versitygw."""
        return go_version(self.name, _VERSITYGW)

    def fetch(self) -> Path:
        """Build the program (about a minute, once)."""
        return fetch_go(self.name, self.version, f"{_VERSITYGW}/cmd/versitygw")

    def prepare(self, folder: Path, port: int) -> Launch:
        """Make one folder per bucket, and one for versions."""
        for name in (*(f"data/{bucket}" for bucket in BUCKETS), "versions"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        endpoint = f"http://127.0.0.1:{port}"
        posix = ("posix", "--versioning-dir", str(folder / "versions"), str(folder / "data"))
        return Launch(
            command=(str(self.fetch()), "--port", f"127.0.0.1:{port}", *posix),
            cwd=folder,
            url=endpoint,
            settings=settings(endpoint),
            env={"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        )

    def is_ready(self, launch: Launch) -> bool:
        """Ask anything: an unsigned request is refused by a server that is up."""
        return status(launch.url) is not None


def settings(endpoint: str) -> Mapping[str, str]:
    """Variables that point the object stores, the lake and its mirror at an S3 server."""
    return {
        "TIDEMILL_S3_ENDPOINT_URL": endpoint,
        "TIDEMILL_S3_ACCESS_KEY_ID": ACCESS_KEY,
        "TIDEMILL_S3_SECRET_ACCESS_KEY": SECRET_KEY,
        "TIDEMILL_LAKE_URL": f"s3://{BUCKETS[0]}",
        "TIDEMILL_MIRROR_URL": f"s3://{BUCKETS[1]}",
        "TIDEMILL_TEST_S3_ENDPOINT_URL": endpoint,
    }


def status(url: str, path: str = "/") -> int | None:
    """HTTP status of a GET, or None if nothing answers."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
