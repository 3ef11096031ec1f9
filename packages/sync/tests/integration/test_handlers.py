"""The functions that clouds call acknowledge what is done, and nothing else."""

import json
from urllib.parse import quote_plus

import pytest
from tidemill_core.errors import ConfigError
from tidemill_core.storage import open_store
from tidemill_sync.errors import EventsUndone
from tidemill_sync.handlers import aws_lambda, pubsub


@pytest.fixture
def mirror(request, tmp_path, monkeypatch):
    """A bucket, the folder it is mirrored to, and the environment that says so."""

    def build(fixture):
        url, options = request.getfixturevalue(fixture)
        for name, value in options.model_dump(exclude_none=True).items():
            text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
            monkeypatch.setenv(f"TIDEMILL_{name.upper()}", text)
        monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
        target = open_store((tmp_path / "copy").as_uri())
        file = tmp_path / "sync.json"
        settings = {"source": f"{url}/events", "target": target.url, "prune": True}
        file.write_text(json.dumps({**settings, "manifest": f"sqlite:///{tmp_path}/sync.db"}))
        monkeypatch.setenv("TIDEMILL_SYNC_CONFIG", str(file))
        return open_store(f"{url}/events", options), target

    return build


def about(store, key):
    """A notification of S3 about one object."""
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    return {"Records": [{"s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(f"{prefix}/{key}")}}}]}


def batch(**bodies):
    return {"Records": [{"eventSource": "aws:sqs", "messageId": name, "body": body} for name, body in bodies.items()]}


def contents(store):
    return {each.key: store.get(each.key) for each in store.list()}


def test_a_batch_of_a_queue_is_done_but_for_its_bad_messages(mirror, s3_bucket):
    source, target = mirror("s3_bucket")
    source.put("a b", b"1")
    source.put("no//folder", b"2")
    target.put("gone", b"3")

    answer = aws_lambda.handler(
        batch(
            good=json.dumps(about(source, "a b")),
            again=json.dumps(about(source, "a b")),
            bad=json.dumps(about(source, "no//folder")),
            gone=json.dumps(about(source, "gone")),
            unreadable="no json",
            foreign=json.dumps({"Records": [{"s3": {"bucket": {"name": "other"}, "object": {"key": "k"}}}]}),
        ),
        None,
    )

    assert {each["itemIdentifier"] for each in answer["batchItemFailures"]} == {"bad", "unreadable"}
    assert contents(target) == {"a b": b"1"}


def test_repeated_and_reordered_events_do_no_harm(mirror, s3_bucket):
    source, target = mirror("s3_bucket")
    events = []
    for number in range(6):
        key = f"k{number % 2}"
        if number == 4:
            source.delete([key])
        else:
            source.put(key, str(number).encode())
        events.append(about(source, key))

    for event in [*reversed(events), *events]:
        assert aws_lambda.handler(event) == {}

    assert contents(target) == contents(source) == {"k1": b"5"}


def test_an_event_that_is_not_done_is_raised_so_that_it_comes_again(mirror, s3_bucket):
    source, _ = mirror("s3_bucket")
    source.put("no//folder", b"2")

    with pytest.raises(EventsUndone, match="no//folder"):
        aws_lambda.handler(about(source, "no//folder"))
    with pytest.raises(EventsUndone, match="not a bucket notification"):
        aws_lambda.handler({"Records": [{"what": 1}]})


class Pushed:
    """A pushed request, as far as the handler asks."""

    def __init__(self, document):
        self._document = document

    def get_json(self, *, silent=False):
        assert silent
        return self._document


def test_a_pushed_message_is_acknowledged_when_it_is_done(mirror, gcs_bucket):
    source, target = mirror("gcs_bucket")
    source.put("k", b"1")
    source.put("no//folder", b"2")
    bucket, _, prefix = source.url.removeprefix("gs://").partition("/")

    def push(key):
        return Pushed({"message": {"attributes": {"bucketId": bucket, "objectId": f"{prefix}/{key}"}}})

    assert pubsub.handler(push("k")) == ("", 204)
    assert pubsub.handler(push("no//folder"))[1] == 422
    assert pubsub.handler(Pushed(None))[1] == 422
    assert contents(target) == {"k": b"1"}


@pytest.mark.parametrize("call", [lambda: aws_lambda.handler({}), lambda: pubsub.handler(Pushed({}))])
def test_a_handler_that_is_not_configured_says_so(monkeypatch, call):
    monkeypatch.delenv("TIDEMILL_SYNC_CONFIG", raising=False)

    with pytest.raises(ConfigError, match="TIDEMILL_SYNC_CONFIG is not set"):
        call()
