"""The S3 store keeps the contract on real servers."""

from typing import ClassVar

import pytest
from tidemill_core.storage import open_store
from tidemill_core.testing.suites import ObjectStoreSuite

_UNTAMED = "test_an_untamed_key_is_kept_or_refused"
_RENAMED = "versitygw keeps objects as files and gives this key another name"
_REFUSED = "versitygw keeps objects as files and refuses this key"


class TestS3StoreOnS3Mock(ObjectStoreSuite):
    gaps: ClassVar = {
        "test_keys_are_listed_in_utf8_order": "S3Mock sorts keys as UTF-16",
        f"{_UNTAMED}[backslash]": "Tomcat refuses an escaped backslash in a path",
    }
    races: ClassVar = {
        "test_if_absent_has_one_winner": "S3Mock checks and writes without a lock",
        "test_if_match_loses_no_update": "S3Mock checks and writes without a lock",
    }

    many_keys = 120

    @pytest.fixture
    def store(self, s3_bucket, monkeypatch):
        url, options = s3_bucket
        monkeypatch.setattr("tidemill_core.storage.s3.PAGE_KEYS", 50)
        return open_store(url, options)


class TestS3StoreOnVersityGw(ObjectStoreSuite):
    gaps: ClassVar = {
        f"{_UNTAMED}[marker]": _REFUSED,
        f"{_UNTAMED}[dot-dot-alone]": _REFUSED,
        f"{_UNTAMED}[double-slash]": _RENAMED,
        f"{_UNTAMED}[leading-slash]": _RENAMED,
        f"{_UNTAMED}[dot]": _RENAMED,
        f"{_UNTAMED}[dot-dot]": _RENAMED,
        f"{_UNTAMED}[control]": "versitygw does not escape control characters in listings",
    }

    @pytest.fixture
    def store(self, versitygw):
        from tidemill_core.testing.objects import s3_bucket

        url, options = s3_bucket(versitygw)
        open_store(url, options).put("a/prefix/x", b"not ours")
        return open_store(f"{url}/a/pre", options)
