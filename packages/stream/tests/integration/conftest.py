"""Brokers of a test's own, and pipelines in files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

TABLES = {"rows_table": "events.flights", "windows_table": "events.hourly", "dlq_table": "events.dead"}
PREFIXES = {"rows": "flights", "windows": "hourly", "dlq": "dead"}
COMMAND = [sys.executable, "-c", "import sys; from tidemill_core.cli import main; main(sys.argv[1:])", "stream"]


@pytest.fixture
def own_mock_broker():
    """Start mock brokers that a test may end: returns (bootstrap servers, function that ends it)."""
    from confluent_kafka import Producer

    alive = []

    def start():
        owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        alive.append(owner)
        brokers = owner.list_topics(timeout=15).brokers.values()
        return ",".join(f"{each.host}:{each.port}" for each in brokers), alive.clear

    yield start
    alive.clear()


@pytest.fixture
def pipeline_file(tmp_path, make_plan):
    """Write a file with the flights pipeline, changed at its top level."""

    def write(**changes):
        path = tmp_path / "pipelines.yaml"
        config = make_plan(**changes).config.model_dump(mode="json", by_alias=True, exclude_none=True)
        for sink, given in zip(config["sinks"], changes.get("sinks", config["sinks"]), strict=True):
            sink.update(given)  # secrets are masked in a dump
        path.write_text(yaml.safe_dump({"pipelines": [config]}))
        return path

    return write


@pytest.fixture
def tidemill_stream():
    """Run `tidemill stream ...` to its end; returns what it printed as JSON."""

    def run(*args):
        done = subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in args else done.stdout

    return run
