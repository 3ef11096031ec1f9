"""The pytest plugin costs nothing to load, and decides between a skip and a failure."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tidemill_core.testing.servers import absent


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = """
import sys, pytest
before = set(sys.modules)
import tidemill_core.testing.plugin
heavy = {"pydantic", "psycopg", "confluent_kafka", "dagster", "polars", "pyarrow", "httpx"}
print(sorted(heavy & (set(sys.modules) - before)))
"""

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


def test_an_absent_server_skips_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_REQUIRE", "postgres")

    with pytest.raises(pytest.skip.Exception, match="no kafka: java is missing"):
        absent("kafka", RuntimeError("java is missing"))


def test_an_absent_server_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_REQUIRE", "postgres, kafka")

    with pytest.raises(pytest.fail.Exception, match="TIDEMILL_REQUIRE names kafka"):
        absent("kafka", RuntimeError("java is missing"))
