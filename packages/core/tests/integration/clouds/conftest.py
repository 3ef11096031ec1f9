"""No cloud but the fakes is reached, and nothing of this machine's identities is seen."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_fakes import Cloud, serving
from tidemill_core.storage import _aws

_OURS = ("AWS_", "AZURE_", "GOOGLE_", "TIDEMILL_", "STORAGE_EMULATOR_HOST", "CLOUDSDK_", "IDENTITY_", "MSI_", "IMDS_")


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr("tidemill_core.retry.RetryPolicy.wait_s", lambda *_args: 0.0)
    _aws._regions.clear()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Every host of every cloud, reached by the proxy of the environment."""
    with serving(tmp_path / "tls") as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found
