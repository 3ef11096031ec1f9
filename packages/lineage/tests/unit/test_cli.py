"""`tidemill lineage`: what each verb prints, as text and as JSON, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidemill_core.errors import ConfigError
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.cli import lineage
from tidemill_lineage.collect import collect
from tidemill_lineage.errors import GraphError
from tidemill_lineage.events import EventLog


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    for name in ("TIDEMILL_NEO4J_URL", "TIDEMILL_OPENLINEAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    log = EventLog(tmp_path / "lineage" / "events")
    log.append(declare(job="load", output="pg://db/raw", columns={"a": ["file:///x#a"]}, run_id="r1", at=1))
    log.append(
        declare(
            job="mart",
            output="pg://db/mart",
            columns={"t": ["pg://db/raw#a"]},
            rows=["pg://db/raw#b"],
            run_id="r2",
            at=2,
        )
    )
    collect(log, tmp_path / "lineage" / "lineage.json")
    return tmp_path


def run(*args: str) -> Any:
    result = CliRunner().invoke(lineage, list(args), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def asked(*args: str) -> Any:
    return json.loads(run(*args, "--json").stdout)


def test_show_lists_datasets() -> None:
    assert [row["dataset"] for row in asked("show")] == ["file:///x", "pg://db/mart", "pg://db/raw"]


def test_show_of_one_dataset_lists_its_edges() -> None:
    assert len(asked("show", "mart")) == 2
    assert "pg://db/raw#a -> pg://db/mart#t  DIRECT TRANSFORMATION (declared, mart)" in run("show", "mart").stdout


def test_upstream_and_downstream_go_opposite_ways() -> None:
    assert asked("upstream", "mart#t", "--depth", "1") == ["pg://db/raw#a", "pg://db/raw#b"]
    assert asked("downstream", "file:///x#a") == ["pg://db/raw#a", "pg://db/mart#t"]


def test_impact_says_how() -> None:
    assert asked("impact", "raw#b") == [{"name": "pg://db/mart#t", "kind": "INDIRECT"}]


def test_path_prints_the_chain_and_fails_without_one() -> None:
    assert len(asked("path", "file:///x#a", "mart#t")) == 2
    with pytest.raises(GraphError, match="nothing leads"):
        run("path", "mart", "file:///x")


def test_diff_compares_two_runs() -> None:
    found = asked("diff", "r1", "r2")

    assert found["datasets_added"] == ["pg://db/mart"]
    assert found["datasets_removed"] == ["file:///x"]
    assert "+ pg://db/mart" in run("diff", "r1", "r2").stdout


def test_diff_of_an_unknown_run_names_the_known_ones() -> None:
    with pytest.raises(GraphError, match="the latest are: r1, r2"):
        run("diff", "r1", "r9")


def test_runs_lists_the_kept_runs() -> None:
    assert asked("runs") == ["r1", "r2"]


def test_html_writes_a_page_beside_the_graph(home: Path) -> None:
    assert asked("html") == [str(home / "lineage" / "lineage.html")]
    assert "pg://db/mart" in (home / "lineage" / "lineage.html").read_text()


def test_validate_accepts_a_good_graph_and_refuses_a_broken_one(home: Path) -> None:
    assert run("validate").exit_code == 0
    path = home / "lineage" / "lineage.json"
    path.write_text(path.read_text().replace('"name": "load"', '"name": "lost"'))

    with pytest.raises(GraphError, match="1 faults"):
        run("validate", "--graph", str(path))


def test_rebuild_forgets_what_no_kept_run_does(home: Path) -> None:
    collect(EventLog(home / "lineage" / "events"), home / "lineage" / "lineage.json", keep_runs=1)

    assert asked("rebuild") == [{"datasets": 2, "edges": 2}]
    assert asked("upstream", "mart") == ["pg://db/raw"]


def test_rebuild_without_events_leaves_the_graph(home: Path) -> None:
    for file in (home / "lineage" / "events").iterdir():
        file.unlink()

    with pytest.raises(GraphError, match="left as it is"):
        run("rebuild")
    assert len(asked("show")) == 3


def test_push_sends_the_kept_runs(home: Path) -> None:
    file = home / "events.jsonl"

    assert asked("push", "openlineage", "--url", file.as_uri()) == [{"pushed": 2, "to": "openlineage"}]
    assert len(file.read_text().splitlines()) == 4


def test_push_without_an_address_says_where_to_give_one() -> None:
    with pytest.raises(ConfigError, match="TIDEMILL_NEO4J_URL"):
        run("push", "neo4j")


def test_a_missing_graph_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="run a traced job first"):
        run("show", "--graph", str(tmp_path / "none.json"))
