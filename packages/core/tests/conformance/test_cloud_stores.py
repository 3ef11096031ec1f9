"""The GCS and Azure stores keep the contract on their emulators."""

from typing import ClassVar

import pytest
from tidemill_core.storage import StoreRefused, open_store
from tidemill_core.testing.suites import ObjectStoreSuite


class TestGsStore(ObjectStoreSuite):
    many_keys = 120

    @pytest.fixture
    def store(self, gcs_bucket, monkeypatch):
        monkeypatch.setattr("tidemill_core.storage.gs.PAGE_KEYS", 50)
        url, options = gcs_bucket
        open_store(url, options).put("a/prefix/x", b"not ours")
        return open_store(f"{url}/a/pre", options)


class TestAzStore(ObjectStoreSuite):
    gaps: ClassVar = {
        "test_keys_are_listed_in_utf8_order": "Azurite sorts names as UTF-16",
        "test_an_untamed_key_is_kept_or_refused[control]": "Azurite fails to list a name with a control character",
    }

    many_keys = 120

    @pytest.fixture
    def store(self, azure_container, monkeypatch):
        monkeypatch.setattr("tidemill_core.storage.az.PAGE_KEYS", 50)
        url, options = azure_container
        open_store(url, options).put("a/prefix/x", b"not ours")
        return open_store(f"{url}/a/pre", options)


@pytest.mark.parametrize(
    ("place", "checksum"),
    [
        ("s3_bucket", "tidemill_core.storage.s3._crc32"),
        ("gcs_bucket", "tidemill_core.storage.gs.md5_base64"),
        ("azure_container", "tidemill_core.storage.az.md5_base64"),
    ],
)
def test_a_body_damaged_on_the_way_is_refused_by_the_store(request, place, checksum, monkeypatch):
    url, options = request.getfixturevalue(place)
    store = open_store(url, options)
    module, _, name = checksum.rpartition(".")
    honest = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(checksum, lambda body: honest(bytes(body) + b"what was meant"))

    with pytest.raises(StoreRefused):
        store.put("key", b"what arrived")

    assert list(store.list()) == []
