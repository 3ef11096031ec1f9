"""What the stores of all clouds do alike."""

import threading

import pytest
from tidemill_core.errors import ObjectNotFound, PreconditionFailed
from tidemill_core.storage import StoreRefused
from tidemill_core.storage._objects import conditions, delete_each, lost_race, metadata_headers


def test_deletes_run_several_at_a_time():
    together = threading.Barrier(4)

    delete_each(map(str, range(4)), lambda _: together.wait(timeout=30))


def test_every_key_is_deleted_once_and_keys_are_not_read_far_ahead():
    read, removed = [], []

    def keys():
        for number in range(2_500):
            read.append(number)
            assert len(read) - len(removed) <= 1_000
            yield str(number)

    delete_each(keys(), removed.append)

    assert sorted(map(int, removed)) == list(range(2_500))


def test_a_delete_that_fails_is_raised_and_the_next_keys_are_left_alone():
    tried = []

    def remove(key):
        tried.append(key)
        if key == "2":
            raise StoreRefused("s3://b", f"delete {key!r}")

    with pytest.raises(StoreRefused, match="'2'"):
        delete_each(map(str, range(1_500)), remove)

    assert all(int(key) < 1_000 for key in tried)


def test_no_keys_are_no_request():
    delete_each([], lambda _: pytest.fail("asked"))


@pytest.mark.parametrize(
    ("if_absent", "etag", "headers"),
    [
        (True, None, {"If-None-Match": "*"}),
        (True, "e", {"If-None-Match": "*"}),
        (False, "e", {"If-Match": '"e"'}),
        (False, None, {}),
    ],
)
def test_conditions_are_headers(if_absent, etag, headers):
    assert conditions(if_absent=if_absent, etag=etag) == headers


def test_a_missing_object_is_a_lost_race_only_if_a_version_was_wanted():
    missing = ObjectNotFound("s3://b", "k")

    assert lost_race("s3://b", missing, None) is missing
    assert isinstance(lost_race("s3://b", missing, "e"), PreconditionFailed)


@pytest.mark.parametrize(("name", "value"), [("a\nb", "x"), ("a", "x\r\ny"), ("ä", "x"), ("a", "ö"), ("a\0", "x")])
def test_metadata_that_a_header_cannot_carry_is_refused(name, value):
    with pytest.raises(StoreRefused, match="printable ASCII"):
        metadata_headers("s3://b", "k", {name: value}, prefix="x-amz-meta-")


def test_only_azure_wants_identifiers():
    assert metadata_headers("s3://b", "k", {"a-b": "x"}, prefix="p-") == {"p-a-b": "x"}
    with pytest.raises(StoreRefused, match="identifier"):
        metadata_headers("az://b", "k", {"a-b": "x"}, prefix="p-", is_identifier=True)
