"""Read bucket notifications: each only hints that a key is dirty, whatever it says happened."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

from tidemill_core.errors import RecordError

from tidemill_sync.errors import SyncError

_BLOB_SUBJECT = "/blobServices/default/containers/"


class EventUnreadable(SyncError, RecordError):
    """A notification is of no known form."""


@dataclass(frozen=True, slots=True, order=True)
class DirtyKey:
    """An object that may have changed; `bucket_url` is like ``s3://bucket``."""

    bucket_url: str
    key: str


def parse_event(document: Any) -> Iterator[DirtyKey]:
    """Read one notification, or several in a list or an envelope.

    Known are S3 notifications (bare, in an SNS or SQS message, also as Lambda gets those, or as
    EventBridge events), Pub/Sub push messages and CloudEvents of GCS, and events of Azure Blob
    Storage in the schemas of Event Grid and of CloudEvents. A test event has no keys.

    Raises:
        EventUnreadable: The document is of no known form.
    """
    if isinstance(document, list):
        for each in document:
            yield from parse_event(each)
        return
    try:
        yield from _parsed(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EventUnreadable(f"not a bucket notification: {type(error).__name__} {error}") from error


def under(keys: Iterable[DirtyKey], place_url: str) -> Iterator[str]:
    """Choose the keys that lie in a place, relative to it."""
    scheme, _, path = place_url.partition("://")
    bucket, _, prefix = path.strip("/").partition("/")
    base = f"{prefix}/" if prefix else ""
    for each in keys:
        if each.bucket_url == f"{scheme}://{bucket}" and each.key.startswith(base) and len(each.key) > len(base):
            yield each.key[len(base) :]


def _parsed(document: Mapping[str, Any]) -> Iterator[DirtyKey]:
    if "Records" in document:
        for record in document["Records"]:
            yield from _record(record)
    elif document.get("Type") == "Notification":
        yield from parse_event(json.loads(document["Message"]))
    elif document.get("source") == "aws.s3":
        detail = document["detail"]
        yield DirtyKey(f"s3://{detail['bucket']['name']}", detail["object"]["key"])
    elif str(document.get("type", "")).startswith("google.cloud.storage.object.v1."):
        yield DirtyKey(f"gs://{document['data']['bucket']}", document["data"]["name"])
    elif "message" in document:
        attributes = document["message"]["attributes"]
        yield DirtyKey(f"gs://{attributes['bucketId']}", attributes["objectId"])
    elif str(document.get("subject", "")).startswith(_BLOB_SUBJECT):
        container, _, key = document["subject"].removeprefix(_BLOB_SUBJECT).partition("/blobs/")
        yield DirtyKey(f"az://{container}", unquote(key))
    elif document.get("Event") != "s3:TestEvent":
        raise KeyError("Records")


def _record(record: Mapping[str, Any]) -> Iterator[DirtyKey]:
    """Read a record of S3, or what Lambda makes of a message of SNS or SQS."""
    if "Sns" in record:
        yield from parse_event(json.loads(record["Sns"]["Message"]))
    elif "body" in record:
        yield from parse_event(json.loads(record["body"]))
    else:
        found = record["s3"]
        yield DirtyKey(f"s3://{found['bucket']['name']}", unquote_plus(found["object"]["key"]))
