"""Importing the kernel is light: heavy libraries load when they are used."""

import subprocess
import sys

import pytest

HEAVY = {"dagster", "polars", "pyarrow", "confluent_kafka", "grpc"}

KERNEL = [
    "tidemill_core",
    "tidemill_core.cli",
    "tidemill_core.config",
    "tidemill_core.errors",
    "tidemill_core.lifecycle",
    "tidemill_core.lineage_hooks",
    "tidemill_core.plugins",
    "tidemill_core.postgres",
    "tidemill_core.retry",
    "tidemill_core.settings",
    "tidemill_core.storage",
    "tidemill_core.telemetry",
    "tidemill_core.telemetry.health",
    "tidemill_core.telemetry.metrics",
]


def imported(program: str) -> set[str]:
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


@pytest.mark.parametrize("module", KERNEL)
def test_a_kernel_module_imports_no_heavy_library(module: str) -> None:
    assert not imported(f"import {module}") & HEAVY


def test_logging_and_metrics_load_their_libraries_at_first_use() -> None:
    declared = (
        "from tidemill_core.telemetry import get_logger, metrics\n"
        "log = get_logger('x'); log.debug('unseen')\n"
        "rows = metrics.counter('tidemill_rows_total', 'Rows.')\n"
    )

    before = imported(declared)
    after = imported(declared + "log.warning('seen'); rows.inc()")

    assert not before & {"structlog", "prometheus_client", "rich"}
    assert after >= {"structlog", "prometheus_client"}


def test_defs_imports_dagster_but_no_data_library() -> None:
    found = imported(
        "from tidemill_core.defs import ConfigComponent, ParquetIOManager, PostgresIOManager, PostgresResource"
    )

    assert "dagster" in found
    assert not found & (HEAVY - {"dagster"})


def test_defs_names_are_listed_and_a_wrong_one_is_refused() -> None:
    program = (
        "import tidemill_core.defs as defs\n"
        "assert set(defs.__all__) <= set(dir(defs))\n"
        "try: defs.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit(1)\n"
    )

    assert "dagster" not in imported(program)
