"""A sink from a wheel that Tidemill has never seen: by YAML, command, component and suite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tidemill_stream import Partition, produce
from tidemill_stream.testing import fake_messages, replay
from tidemill_stream.testing.flights import FLIGHTS, flight_records

PROJECT = Path(__file__).parent / "stranger"
COMMAND = [sys.executable, "-c", "import sys; from tidemill_core.cli import main; main(sys.argv[1:])", "stream"]
SUITE = """
import pytest
from acme_sink import AcmeSink
from tidemill_stream.testing.sinks import SinkBench, SinkSuite


class TestAcme(SinkSuite):
    @pytest.fixture
    def bench(self, tmp_path):
        def tables():
            sink = AcmeSink(bench.plan.config.sinks[0], bench.context)
            return {name: sink.rows(name) for name in ("rows", "windows", "dlq")}

        bench = SinkBench({"type": "acme", "path": str(tmp_path / "acme.db")}, tables)
        return bench
"""
COMPONENT = """
import json, sys
import dagster as dg
from tidemill_stream.defs import StreamDrainComponent

made = StreamDrainComponent.from_attributes_dict(attributes=json.loads(sys.argv[1]))
assets = list(made.build_defs(dg.ComponentTree.for_test().load_context).assets)
done = dg.materialize(assets)
checks = {each.check_name: each.passed for each in done.get_asset_check_evaluations()}
kinds = sorted({kind for each in assets for spec in each.specs for kind in spec.kinds})
print(json.dumps({"success": done.success, "checks": checks, "kinds": kinds}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the stranger's wheel outside the repository and install it beside ours; returns the environment."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(PROJECT, folder / "project")
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, folder / "project"], check=True)
    (wheel,) = folder.glob("*.whl")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", folder / "site", wheel]
    subprocess.run([*command, "--python", sys.executable], check=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "TIDEMILL_HOME": str(folder / "home")}


@pytest.fixture
def run(installed):
    def run(*args, expected=0, command=COMMAND):
        done = subprocess.run(
            [*command, *map(str, args)], capture_output=True, text=True, env=installed, timeout=240, check=False
        )
        assert expected == done.returncode, done.stdout + done.stderr
        return done.stdout if expected == 0 else done.stderr

    return run


@pytest.fixture
def flights(own_mock_broker, tmp_path):
    servers, _ = own_mock_broker()
    records = flight_records(400)
    produce(servers, "flights", [(0, b"k", each) for each in records])
    sink = {"type": "acme", "path": str(tmp_path / "acme.db")}
    return {**FLIGHTS, "source": {"topics": "flights", "bootstrap_servers": servers}, "sinks": [sink]}, records


def test_it_works_by_yaml_and_commands(run, flights, tmp_path, make_plan):
    pipeline, records = flights
    path = tmp_path / "pipelines.yaml"
    path.write_text(yaml.safe_dump({"pipelines": [pipeline]}))

    run("validate", path)
    first = json.loads(run("drain", path, "--json"))
    second = json.loads(run("drain", path, "--json"))

    truth = replay(make_plan(), {Partition("flights", 0): fake_messages(records)}, flush=True)
    listed = json.loads(run("dlq", "list", path, "--limit", "1000", "--json"))
    assert sorted(row["offset"] for row in truth["dlq"]) == sorted(each["offset"] for each in listed)
    assert (len(records), 0) == tuple(_of(each)["done"]["consumed"] for each in (first, second))
    assert len(truth["rows"]) == _of(json.loads(run("status", path, "--json")))["totals"]["rows"]


def _of(answer):
    return answer[0] if isinstance(answer, list) else answer


def test_its_settings_are_checked_in_the_file_and_stand_in_the_schema(run, flights, tmp_path):
    pipeline, _ = flights
    path = tmp_path / "pipelines.yaml"
    pipeline["sinks"][0]["paht"] = pipeline["sinks"][0].pop("path")
    path.write_text(yaml.safe_dump({"pipelines": [pipeline]}))

    fault = run("validate", path, expected=3)

    line = 1 + next(at for at, text in enumerate(path.read_text().splitlines()) if "paht" in text)
    assert f"pipelines.yaml:{line}" in fault
    assert "paht" in fault
    assert "AcmeSettings" in run("schema")


def test_it_works_as_a_component(run, flights):
    pipeline, _ = flights

    found = json.loads(
        run(json.dumps({"pipeline": pipeline}), command=[sys.executable, "-c", COMPONENT]).splitlines()[-1]
    )

    assert found["success"]
    assert {"no_lag": True, "every_record_accounted_for": True, "outputs_match_checkpoint": True} == found["checks"]
    assert {"kafka", "sqlite"} == set(found["kinds"])


def test_it_passes_the_shipped_suite(run, tmp_path):
    (tmp_path / "test_acme.py").write_text(SUITE)

    said = run(tmp_path / "test_acme.py", "-q", "-p", "no:cacheprovider", command=[sys.executable, "-m", "pytest"])

    assert " passed" in said
    assert "skipped" not in said


def test_without_its_wheel_the_name_is_unknown(flights, make_plan):
    pipeline, _ = flights

    with pytest.raises(ValueError, match="unknown stream sink 'acme'"):
        make_plan(sinks=pipeline["sinks"])
