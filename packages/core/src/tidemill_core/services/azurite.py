"""Azurite: Azure Blob Storage's emulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Launch
from tidemill_core.services.fetching import fetch_npm, npm_version, tool
from tidemill_core.services.s3 import status

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's public, fixed key; it is in Microsoft's documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzuriteService:
    """The blob service of Azurite."""

    @property
    def name(self) -> str:
        """``azurite``."""
        return "azurite"

    @property
    def version(self) -> str:
        """The pinned version of Azurite."""
        return npm_version(self.name)

    def fetch(self) -> Path:
        """Install the packages (365 MB, once)."""
        tool(self.name, "node")
        return fetch_npm(self.name, self.version)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Make the folder it keeps its blobs in."""
        program = self.fetch() / "azurite" / "dist" / "src" / "blob" / "main.js"
        listen = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "data"))
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        return Launch(
            command=(tool(self.name, "node"), str(program), *listen, "--skipApiVersionCheck", "--disableTelemetry"),
            cwd=folder,
            url=endpoint,
            settings={
                "TIDEMILL_AZURE_ENDPOINT_URL": endpoint,
                "TIDEMILL_AZURE_ACCOUNT": ACCOUNT,
                "TIDEMILL_AZURE_KEY": ACCOUNT_KEY,
                "TIDEMILL_TEST_AZURE_ENDPOINT_URL": endpoint,
            },
            start_s=120.0,
        )

    def is_ready(self, launch: Launch) -> bool:
        """Ask anything: an unsigned request is refused by a server that is up."""
        return status(launch.url.rpartition("/")[0]) is not None
