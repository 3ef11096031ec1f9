"""Bucket notifications of every known form name their keys."""

import json
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_sync.events import DirtyKey, EventUnreadable, parse_event, under


def s3_record(bucket, key, name="ObjectCreated:Put"):
    return {
        "eventVersion": "2.2",
        "eventName": name,
        "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key), "sequencer": "0055AED6DCD90281E5"}},
    }


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_an_s3_notification_gives_its_decoded_key(key):
    assert list(parse_event({"Records": [s3_record("b", key)]})) == [DirtyKey("s3://b", key)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"Records": [s3_record("b", "x+y z")]}, [DirtyKey("s3://b", "x+y z")]),
        (
            {"Type": "Notification", "Message": json.dumps({"Records": [s3_record("b", "k", "ObjectRemoved:Delete")]})},
            [DirtyKey("s3://b", "k")],
        ),
        (
            {"source": "aws.s3", "detail": {"bucket": {"name": "b"}, "object": {"key": "a+b"}}},
            [DirtyKey("s3://b", "a+b")],
        ),
        (
            {"message": {"attributes": {"bucketId": "b", "objectId": "k/é", "eventType": "OBJECT_FINALIZE"}}},
            [DirtyKey("gs://b", "k/é")],
        ),
        (
            [
                {
                    "subject": "/blobServices/default/containers/c/blobs/a/b%20c",
                    "eventType": "Microsoft.Storage.BlobCreated",
                }
            ],
            [DirtyKey("az://c", "a/b c")],
        ),
        (
            {
                "Records": [
                    {"EventSource": "aws:sns", "Sns": {"Message": json.dumps({"Records": [s3_record("b", "k")]})}}
                ]
            },
            [DirtyKey("s3://b", "k")],
        ),
        (
            {"Records": [{"eventSource": "aws:sqs", "body": json.dumps({"Records": [s3_record("b", "k")]})}]},
            [DirtyKey("s3://b", "k")],
        ),
        (
            {
                "specversion": "1.0",
                "type": "google.cloud.storage.object.v1.deleted",
                "source": "//storage.googleapis.com/projects/_/buckets/b",
                "subject": "objects/k/é",
                "data": {"bucket": "b", "name": "k/é"},
            },
            [DirtyKey("gs://b", "k/é")],
        ),
        (
            {
                "specversion": "1.0",
                "type": "Microsoft.Storage.BlobDeleted",
                "subject": "/blobServices/default/containers/c/blobs/a",
            },
            [DirtyKey("az://c", "a")],
        ),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, []),
    ],
)
def test_every_known_form_is_read(document, expected):
    assert list(parse_event(document)) == expected


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Records": [{}]},
        {"Records": [{"body": "no"}]},
        {"Records": [{"body": "3"}]},
        "text",
        3,
        None,
        {"Type": "Notification", "Message": "no"},
    ],
)
def test_an_unknown_form_is_an_error(document):
    with pytest.raises(EventUnreadable):
        list(parse_event(document))


def test_keys_are_taken_relative_to_a_place():
    keys = [DirtyKey("s3://b", "p/a"), DirtyKey("s3://b", "pa"), DirtyKey("s3://c", "p/a"), DirtyKey("s3://b", "p/")]

    assert list(under(keys, "s3://b/p")) == ["a"]
    assert list(under(keys, "s3://b")) == ["p/a", "pa", "p/"]
