"""fake-gcs-server: the JSON API of Google Cloud Storage, in memory."""

from __future__ import annotations

import http
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Launch
from tidemill_core.services.fetching import fetch_go, go_version
from tidemill_core.services.s3 import status

_MODULE = "github.com/fsouza/fake-gcs-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGcsService:
    """A GCS server whose objects end with it."""

    @property
    def name(self) -> str:
        """``fake-gcs``."""
        return "fake-gcs"

    @property
    def version(self) -> str:
        """The pinned version of fake-gcs-server."""
        return go_version(self.name, _MODULE)

    def fetch(self) -> Path:
        """Build the program (about a minute, once)."""
        return fetch_go(self.name, self.version, _MODULE)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Nothing to write: everything is in memory."""
        address = f"127.0.0.1:{port}"
        listen = ("-host", "127.0.0.1", "-scheme", "http", "-port", str(port), "-backend", "memory")
        return Launch(
            command=(str(self.fetch()), *listen, "-public-host", address, "-external-url", f"http://{address}"),
            cwd=folder,
            url=f"http://{address}",
            settings={
                "STORAGE_EMULATOR_HOST": f"http://{address}",
                "TIDEMILL_TEST_GCS_ENDPOINT_URL": f"http://{address}",
            },
        )

    def is_ready(self, launch: Launch) -> bool:
        """Ask for the list of buckets."""
        return status(launch.url, "/storage/v1/b") == http.HTTPStatus.OK
