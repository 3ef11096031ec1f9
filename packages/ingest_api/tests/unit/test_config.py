"""The configuration model and the sources that come with the package."""

import pytest
from pydantic import ValidationError
from tidemill_core.config import ConfigFaults
from tidemill_core.errors import ConfigError
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.fetching.preview import infer_fields
from tidemill_ingest_api.sources import builtin_names, find_base_url, load_source

STREAM = {"name": "s", "primary_key": ["id"], "fields": {"id": "int64", "tags": "json", "t": "timestamp"}}


def source(base_url="http://h", **stream):
    return SourceConfig(source="x", base_url=base_url, streams=[STREAM | stream])


@pytest.mark.parametrize(
    "wrong",
    [
        {"primary_key": ["nope"]},
        {"primary_key": ["tags"]},
        {"primary_key": []},
        {"cursor": {"field": "tags"}},
        {"serve": {"filters": ["nope"]}},
        {"paginate": {"type": "magic"}},
        {"paginate": {"type": "cursor", "param": "c"}},
        {"fields": {"id": "bigint"}},
        {"fields": {"_id": "int64"}, "primary_key": ["_id"]},
        {"table": "a.b.c"},
        {"table": 'a"; DROP TABLE b'},
        {"unknown": 1},
    ],
)
def test_wrong_streams_are_refused(wrong):
    with pytest.raises(ValidationError):
        source(**wrong)


@pytest.mark.parametrize("url", ["ftp://h", "h/x", "http://", "http://user:secret@h"])
def test_wrong_base_urls_are_refused_without_showing_them(url):
    with pytest.raises(ValidationError) as caught:
        source(url)

    assert "secret" not in str(caught.value)


def test_two_streams_must_not_share_a_name_or_a_table():
    for second in (STREAM, STREAM | {"name": "t", "table": "raw.s"}):
        with pytest.raises(ValidationError, match="twice"):
            SourceConfig(source="x", base_url="http://h", streams=[STREAM, second])


def test_faults_of_a_file_name_their_lines(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "source: x\nbase_url: http://h\nstreams:\n  - name: s\n    primry_key: [id]\n    fields: {id: int64}\n"
    )

    with pytest.raises(ConfigFaults) as caught:
        load_source(str(path))

    assert "s.yaml:5" in str(caught.value)
    assert "did you mean 'primary_key'" in str(caught.value)


def test_the_base_url_is_looked_up_when_a_run_starts():
    class Upstream:
        def get_base_url(self):
            return "http://127.0.0.1:9/"

    assert "http://127.0.0.1:9" == find_base_url(source("resource:upstream"), resource=lambda _: Upstream())
    assert "http://e" == find_base_url(source("env:UP"), env={"UP": "http://e"})
    assert "http://h" == find_base_url(source("http://h/"))


@pytest.mark.parametrize("url", ["env:UNSET", "resource:upstream"])
def test_a_base_url_that_cannot_be_looked_up_is_an_error(url):
    with pytest.raises(ConfigError):
        find_base_url(source(url), env={}, resource=(lambda _: object()) if url == "resource:upstream" else None)


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_sources_are_valid(name):
    found = load_source(f"builtin:{name}", env={"GITHUB_TOKEN": "t"})

    assert found.source == name
    assert all(stream.primary_key for stream in found.streams)


def test_an_unknown_built_in_source_names_the_nearest():
    with pytest.raises(ConfigError, match="github_issues"):
        load_source("builtin:github_issue")


def test_fields_are_guessed_from_a_sample():
    records = [
        {"id": 1, "at": "2026-01-01T00:00:00Z", "on": "2026-01-01", "user": {"login": "a"}, "x": None, "n": 1},
        {"id": 2, "at": None, "on": "2026-02-01T10:00", "user": {"login": "b"}, "x": [1], "n": 1.5, "Ok Go": True},
    ]

    assert {
        "id": "int64",
        "at": "timestamp",
        "on": "timestamp",
        "user__login": "string",
        "x": "json",
        "n": "float64",
        "ok_go": "bool",
    } == infer_fields(records)
