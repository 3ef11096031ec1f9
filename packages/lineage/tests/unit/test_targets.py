"""Targets: what is written in the settings and the resource is checked, and a stranger's emitter is reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tidemill_core.errors import ConfigError, PluginError
from tidemill_lineage import EventLog, OpenLineageEmitter, declare
from tidemill_lineage.collect import collect
from tidemill_lineage.defs import LineageResource
from tidemill_lineage.emitters._base import EMITTERS, open_emitter, open_target, parse_target, parse_targets
from tidemill_lineage.settings import VARIABLES, targets_of

STRANGER = """
import json
from pathlib import Path
from typing import Literal

from tidemill_lineage.emitters._base import Target, Traits, takes


class Sink:
    name = "stranger"
    traits = Traits(local=True)

    def __init__(self, path, greeting="none"):
        self.path, self.greeting, self.identity = Path(path), greeting, f"stranger {path}"

    def emit(self, runs):
        if self.greeting == "break":
            raise RuntimeError("a fault of mine")
        with self.path.open("a") as file:
            file.writelines(json.dumps([self.greeting, run.job]) + "\\n" for run in runs)

    def close(self):
        pass


class StrangerTarget(Target):
    type: Literal["stranger"]
    greeting: Literal["hello", "break"] = "hello"


@takes(StrangerTarget)
def open_stranger(target):
    return Sink(target.url, target.greeting)


def open_bare(url):
    return Sink(url)
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """An installed distribution of somebody else's with two emitters, and a home in which something ran."""
    site = tmp_path / "site"
    info = site / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    points = "stranger = stranger_sink:open_stranger\nbare = stranger_sink:open_bare\n"
    (info / "entry_points.txt").write_text(f"[tidemill.lineage.emitters]\n{points}")
    (site / "stranger_sink.py").write_text(STRANGER)
    log = EventLog(tmp_path / "home" / "lineage" / "events")
    log.append(declare(job="load", output="pg://db/raw", columns={"a": ["file:///x#a"]}, run_id="r1", at=1))
    collect(log, tmp_path / "home" / "lineage" / "lineage.json")
    return tmp_path


def tidemill(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the stranger is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    return subprocess.run(
        [sys.executable, "-c", "from tidemill_core.cli import main; main()", "lineage", *args],
        env={**kept, "PYTHONPATH": str(folder / "site"), "TIDEMILL_HOME": str(folder / "home"), **env},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_push_reaches_a_strangers_emitters(stranger: Path) -> None:
    for name in ("stranger", "bare"):
        done = tidemill(stranger, "push", name, "--url", str(stranger / name), "--json")

        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == [{"pushed": 1, "to": name}]
    assert (stranger / "stranger").read_text() == '["hello", "load"]\n'
    assert (stranger / "bare").read_text() == '["none", "load"]\n'


def test_push_without_a_url_goes_to_the_targets_of_that_name(stranger: Path) -> None:
    targets = [{"type": "stranger", "url": str(stranger / each)} for each in "ab"]
    other = [{"type": "openlineage", "url": (stranger / "events").as_uri()}]

    done = tidemill(stranger, "push", "stranger", TIDEMILL_LINEAGE_TARGETS=json.dumps(targets + other))

    assert done.returncode == 0
    assert (stranger / "a").read_text() == (stranger / "b").read_text() == '["hello", "load"]\n'
    assert not (stranger / "events").exists()


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ({"greeting": "hullo"}, "TIDEMILL_LINEAGE_TARGETS[0] (stranger): greeting: Input should be 'hello' or 'break'"),
        ({"gretting": "hello"}, "TIDEMILL_LINEAGE_TARGETS[0] (stranger): gretting: Extra inputs are not permitted"),
    ],
)
def test_a_strangers_settings_are_checked_by_its_own_model(stranger: Path, target: dict[str, str], fault: str) -> None:
    value = [{"type": "stranger", "url": str(stranger / "out"), **target}]

    done = tidemill(stranger, "push", "stranger", TIDEMILL_LINEAGE_TARGETS=json.dumps(value))

    assert (done.returncode, done.stdout, done.stderr) == (3, "", f"error: {fault}\n")
    assert not (stranger / "out").exists()


def test_a_strangers_emitter_that_breaks_is_one_line_that_names_it(stranger: Path) -> None:
    value = [{"type": "stranger", "url": str(stranger / "out"), "greeting": "break"}]

    done = tidemill(stranger, "push", "stranger", TIDEMILL_LINEAGE_TARGETS=json.dumps(value))

    expected = "error: lineage emitter 'stranger' broke: RuntimeError('a fault of mine')\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_an_emitter_that_is_not_installed_is_told_with_the_nearest(stranger: Path) -> None:
    done = tidemill(stranger, "push", "strangr", "--url", "x")

    expected = "error: unknown lineage emitter 'strangr'; did you mean 'stranger'?\n"
    assert (done.returncode, done.stderr) == (3, expected)


def test_every_emitter_of_ours_is_opened_by_its_name(tmp_path: Path) -> None:
    urls = {"json": "a.json", "sqlite": "a.sqlite", "neo4j": "bolt://127.0.0.1:9", "openlineage": "http://127.0.0.1:9"}

    for name, url in urls.items():
        assert open_emitter(name, url).name == name
    assert urls.keys() <= set(EMITTERS.names())


def test_a_targets_settings_reach_its_emitter(tmp_path: Path) -> None:
    url = (tmp_path / "events").as_uri()

    emitter = open_target(parse_target({"type": "openlineage", "url": url, "namespace": "mine"}, where="x"))

    assert isinstance(emitter, OpenLineageEmitter)
    assert emitter.namespace == "mine"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({}, "a list of targets wanted"),
        ("neo4j", "a list of targets wanted"),
        ([{}], r"x\[0\] is no target"),
        (["neo4j"], r"x\[0\] is no target"),
        ([{"type": "neo4j", "url": "bolt://h"}, {"type": "neo4j"}], r"x\[1\] \(neo4j\): url: Field required"),
        ([{"type": "neo5j", "url": "bolt://h"}], "did you mean 'neo4j'"),
        ([{"type": "json", "url": "a.json", "user": "me"}], "user: Extra inputs"),
        ([{"type": "neo4j", "url": "bolt://h", "timeout_s": 0}], "timeout_s: Input should be greater than 0"),
    ],
)
def test_wrong_targets_are_refused_with_their_place(value: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_targets(value, where="x")


def test_a_wrong_password_never_shows() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target({"type": "neo4j", "url": "bolt://h", "password": ["hush"]}, where="x")
    assert "hush" not in str(caught.value)


def test_the_shorthands_are_targets_too() -> None:
    env = {
        "TIDEMILL_LINEAGE_TARGETS": '[{"type": "json", "url": "a.json"}]',
        "TIDEMILL_NEO4J_URL": "bolt://h",
        "TIDEMILL_NEO4J_USER": "me",
        "TIDEMILL_NEO4J_PASSWORD": "hush",
        "TIDEMILL_OPENLINEAGE_URL": "http://h",
    }

    found = targets_of(env=env)

    assert [(each.type, each.url) for each in found] == [
        ("json", "a.json"), ("neo4j", "bolt://h"), ("openlineage", "http://h")
    ]  # fmt: skip
    assert found[1].model_dump()["user"] == "me"
    assert "hush" not in repr(found)


def test_a_target_that_is_named_twice_is_pushed_to_once() -> None:
    env = {
        "TIDEMILL_LINEAGE_TARGETS": '[{"type": "neo4j", "url": "bolt://h"}]',
        "TIDEMILL_NEO4J_URL": "bolt://h",
    }

    assert len(targets_of(env=env)) == 1


def test_targets_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    file.write_text('[{"type": "json", "url": "a.json"}]\n')

    assert [each.type for each in targets_of(env={"TIDEMILL_LINEAGE_TARGETS_FILE": str(file)})] == ["json"]


def test_targets_that_are_no_json_are_told() -> None:
    with pytest.raises(ConfigError, match="TIDEMILL_LINEAGE_TARGETS is no JSON"):
        targets_of(env={"TIDEMILL_LINEAGE_TARGETS": "neo4j"})


def test_the_resources_targets_stand_in_place_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("TIDEMILL_LINEAGE_TARGETS", '[{"type": "json", "url": "a.json"}]')
    own = [{"type": "sqlite", "url": str(tmp_path / "b.sqlite")}, {"type": "json", "url": str(tmp_path / "c.json")}]

    assert [each.name for each in LineageResource().push_targets()] == ["json"]
    assert [each.name for each in LineageResource(targets=own).push_targets()] == ["sqlite", "json"]
    with pytest.raises(PluginError, match="unknown lineage emitter"):
        LineageResource(targets=[{"type": "sqlit", "url": "x"}]).push_targets()


def test_two_targets_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    log.append(declare(job="load", output="pg://db/raw", columns={"a": ["file:///x#a"]}, run_id="r1", at=1))
    dead = {"type": "openlineage", "url": "http://127.0.0.1:9", "attempts": 1}
    good = {"type": "openlineage", "url": (tmp_path / "out").as_uri()}
    emitters = [open_target(each) for each in parse_targets([dead, good], where="x")]

    found = collect(log, tmp_path / "lineage.json", emitters=emitters)

    assert found.pushed == {f"openlineage {good['url']} tidemill": 1}
    assert found.failed.keys() == {"openlineage http://127.0.0.1:9/api/v1/lineage tidemill"}
    assert "not answering" in next(iter(found.failed.values()))
