"""The GCS and Azure stores keep the contract on their emulators."""

from typing import ClassVar

import pytest
from tidemill_core.storage import open_store
from tidemill_core.testing.suites import ObjectStoreSuite


class TestGsStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, gcs_bucket):
        url, options = gcs_bucket
        open_store(url, options).put("a/prefix/x", b"not ours")
        return open_store(f"{url}/a/pre", options)


class TestAzStore(ObjectStoreSuite):
    gaps: ClassVar = {
        "test_keys_are_listed_in_utf8_order": "Azurite sorts names as UTF-16",
        "test_an_untamed_key_is_kept_or_refused[control]": "Azurite fails to list a name with a control character",
    }

    @pytest.fixture
    def store(self, azure_container):
        url, options = azure_container
        open_store(url, options).put("a/prefix/x", b"not ours")
        return open_store(f"{url}/a/pre", options)
