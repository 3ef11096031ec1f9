"""The commands, from a shell's point of view."""

import json
from pathlib import Path

import pytest
from tidemill_core.cli import main
from tidemill_ingest_api.testing.fake_api import FakeApi


@pytest.fixture
def api():
    with FakeApi([{"id": i, "name": f"n{i}"} for i in range(5)]) as api:
        yield api


@pytest.fixture
def config(api, tmp_path):
    path = tmp_path / "source.yaml"
    path.write_text(
        f"""
source: fake
base_url: {api.base_url}
store: sqlite:///{tmp_path}/i.db
streams:
  - name: things
    path: /link
    paginate: {{type: link_header}}
    conditional: etag
    primary_key: [id]
    fields: {{id: int64, name: string}}
"""
    )
    return str(path)


@pytest.fixture
def tidemill(capsys):
    def call(*args):
        with pytest.raises(SystemExit) as done:
            main(["ingest", *args])
        return int(done.value.code or 0), capsys.readouterr().out

    return call


def test_run_says_what_changed_and_then_that_nothing_did(tidemill, config):
    first = tidemill("run", config)
    second = tidemill("run", config)

    assert (0, True) == (first[0], "5 new" in first[1])
    assert (0, True) == (second[0], "unchanged, no row rewritten" in second[1])


def test_a_full_run_reads_every_page_again_and_rewrites_nothing(tidemill, config):
    tidemill("run", config)
    (report,) = json.loads(tidemill("run", config, "--full", "--json")[1])
    (after,) = json.loads(tidemill("run", config, "--json")[1])

    assert (0, 5, 5) == (report["not_modified"], report["records"], report["unchanged"])
    assert 3 == after["not_modified"]


def test_the_schema_describes_every_key(tidemill):
    described = json.loads(tidemill("schema")[1])

    assert {"source", "base_url", "streams"} <= set(described["properties"])
    assert all("description" in each for each in described["properties"].values())


def test_run_as_json_is_a_list_of_reports(tidemill, config):
    code, out = tidemill("run", config, "--json", "--stream", "things")

    assert (0, 5, 3) == (code, json.loads(out)[0]["inserted"], json.loads(out)[0]["pages"])


def test_plan_and_status_ask_nothing_of_the_api(tidemill, config, api):
    before = tidemill("plan", config)
    asked = len(api.seen)
    tidemill("run", config)
    after = json.loads(tidemill("plan", config, "--json")[1])
    status = json.loads(tidemill("status", config, "--json")[1])

    assert (0, 0, True) == (before[0], asked, "(new)" in before[1])
    assert (False, 5, 3) == (after[0]["is_new"], after[0]["rows"], after[0]["known_pages"])
    assert ("done", 5) == (status["loads"][0]["status"], status["loads"][0]["facts"]["records"])
    assert "done" in tidemill("status", config)[1]


def test_preview_prints_rows_or_fields_and_writes_nothing(tidemill, config, tmp_path):
    rows = tidemill("preview", config, "--rows", "1")
    fields = tidemill("preview", config, "--fields", "--pages", "2")

    assert (0, {"id": 0, "name": "n0"}) == (rows[0], json.loads(rows[1]))
    assert "  id: int64\n  name: string\n" in fields[1]
    assert not (tmp_path / "i.db").exists()


def test_validate_names_the_line_and_exits_with_3(tidemill, config, capsys):
    assert 0 == tidemill("validate", config)[0]

    Path(config).write_text(Path(config).read_text() + "serv: {}\n")

    with pytest.raises(SystemExit) as done:
        main(["ingest", "validate", config])
    assert 3 == done.value.code
    assert "source.yaml:12" in capsys.readouterr().err


def test_an_upstream_that_is_away_exits_with_75(tidemill, config, api):
    api.close()
    Path(config).write_text(Path(config).read_text() + "http: {retry: {attempts: 1}}\n")

    assert 75 == tidemill("run", config)[0]


def test_an_unknown_stream_exits_with_1(tidemill, config):
    assert 1 == tidemill("run", config, "--stream", "nope")[0]


def test_keys_and_built_in_sources_are_printed(tidemill):
    secret, entry = tidemill("key", "ada", "--table", "things")[1].splitlines()

    assert (43, "ada", ["things"]) == (len(secret), json.loads(entry)["id"], json.loads(entry)["scopes"])
    assert "builtin:github_issues" in tidemill("sources")[1].splitlines()
    assert 0 == tidemill("validate", "builtin:open_meteo")[0]
