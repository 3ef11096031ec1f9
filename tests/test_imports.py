"""Importing a package stays cheap, and the command's help imports nothing heavy."""

import json
import subprocess
import sys

import pytest

HEAVY = {"dagster", "polars", "pyarrow", "confluent_kafka", "grpc"}
PACKAGES = ["core", "ingest_api", "stream", "loader", "sync", "lineage"]


def modules_after(code: str) -> set[str]:
    program = f"import contextlib, io, json, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n    {code}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_nothing_heavy(package: str) -> None:
    modules = modules_after(f"import tidemill_{package}")

    assert set() == modules & HEAVY
    assert f"tidemill_{package}" in modules


def test_the_help_of_the_command_imports_nothing_heavy() -> None:
    modules = modules_after("import tidemill_core.cli as c; c.cli.main(['--help'], standalone_mode=False)")

    assert set() == modules & HEAVY
    assert "click" in modules


def test_the_probe_does_see_a_heavy_import() -> None:
    assert "pyarrow" in modules_after("import pyarrow")
