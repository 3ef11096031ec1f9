"""Announcements reach every subscriber, and a broken subscriber breaks nothing."""

import json

import pytest
from tidemill_core import lineage_hooks
from tidemill_core.lineage_hooks import Column, DataEvent, announce_read, announce_wrote, subscribed


def test_a_subscriber_hears_reads_and_writes_until_it_leaves() -> None:
    heard: list[DataEvent] = []

    with subscribed(heard.append):
        announce_read("s3://b/in", job="load", columns=[Column(name="a")], rows=2)
        announce_wrote("postgres://h/db/raw.t", job="load", inputs=["s3://b/in"], rows=2, asset_key="raw/t")
    announce_read("s3://b/late", job="load")

    assert [(event.kind, event.dataset, event.rows) for event in heard] == [
        ("read", "s3://b/in", 2),
        ("wrote", "postgres://h/db/raw.t", 2),
    ]
    assert heard[1].inputs == ("s3://b/in",)


def test_several_subscribers_hear_and_leave_in_any_order() -> None:
    first: list[DataEvent] = []
    second: list[DataEvent] = []
    leave_first = lineage_hooks.subscribe(first.append)
    leave_second = lineage_hooks.subscribe(second.append)

    announce_read("a", job="j")
    leave_first()
    announce_read("b", job="j")
    leave_second()
    leave_second()

    assert [event.dataset for event in first] == ["a"]
    assert [event.dataset for event in second] == ["a", "b"]


def test_a_subscriber_that_raises_is_logged_and_neither_stops_the_work_nor_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard: list[DataEvent] = []

    def broken(event: DataEvent) -> None:
        raise RuntimeError("graph is down")

    with subscribed(broken), subscribed(heard.append):
        announce_wrote("a", job="j")

    told = json.loads(capsys.readouterr().err)
    assert len(heard) == 1
    assert (told["event"], told["dataset"]) == ("lineage_subscriber_failed", "a")
    assert "graph is down" in told["error"]


def test_nobody_listening_costs_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("an event was made for nobody")

    monkeypatch.setattr(lineage_hooks, "DataEvent", refuse)
    monkeypatch.setattr(lineage_hooks, "_subscribers", ())

    announce_read("a", job="j")
    announce_wrote("a", job="j")
