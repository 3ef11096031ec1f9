"""Both manifests pass the suite that ships with the package, and a stranger's is reached by its scheme."""

from pathlib import Path

import pytest
from tidemill_core.errors import ConfigError, PluginError
from tidemill_sync.manifests.open import MANIFESTS, open_manifest
from tidemill_sync.manifests.sqlite import SqliteManifest
from tidemill_sync.testing import ManifestSuite


class TestSqliteManifest(ManifestSuite):
    @pytest.fixture
    def manifest_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/notes/sync.db"


class TestPostgresManifest(ManifestSuite):
    @pytest.fixture
    def manifest_url(self, postgres_url: str) -> str:
        return postgres_url


def test_a_manifest_of_another_package_is_opened_by_its_scheme(tmp_path, monkeypatch):
    monkeypatch.setitem(MANIFESTS._registered, "notebook", lambda url: SqliteManifest(tmp_path / url[11:]))

    open_manifest("notebook://mine.db").close()

    assert (tmp_path / "mine.db").exists()


def test_an_unknown_scheme_names_the_nearest_and_shows_no_password():
    with pytest.raises(PluginError, match="did you mean 'postgresql'") as caught:
        open_manifest("postgresq://me:hush-hush@db/x")

    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["sync.db", "", "sqlite:sync.db", "sqlite:///"])
def test_what_is_no_url_of_a_manifest_is_refused(url):
    with pytest.raises(ConfigError):
        open_manifest(url)
