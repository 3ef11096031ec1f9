"""The summary of a failed run prints our error, which says what to do, and not the driver's that caused it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.dag import DagSpec, loaded_dag
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag

MODULE = """
import dagster as dg
from tidemill_core.postgres.errors import PostgresRefused

def driver():
    raise OSError("errno 42 in column 7")

@dg.asset
def ours():
    try:
        driver()
    except OSError as error:
        raise PostgresRefused("the table is not there; create it") from error

@dg.asset
def theirs():
    try:
        driver()
    except OSError as error:
        raise RuntimeError("wrapped") from error
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    (tmp_path / "failing_assets_of_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with dg.DagsterInstance.ephemeral() as made:
        yield made
    sys.modules.pop("failing_assets_of_test", None)


@pytest.mark.parametrize(
    ("asset", "expected"), [("ours", "the table is not there; create it"), ("theirs", "errno 42 in column 7")]
)
def test_the_error_that_is_shown_is_ours_and_the_innermost_only_where_none_is(
    instance: dg.DagsterInstance, asset: str, expected: str
) -> None:
    task = {
        "name": "a",
        "use": "tidemill_core.AssetsComponent",
        "with": {"load": [f"failing_assets_of_test:{asset}"]},
    }
    found = loaded_dag(DagSpec.model_validate({"name": f"d_{asset}", "tasks": [task]}))

    ended = start_dag(found, RunRequest(), instance)

    (failed,) = (each for each in ended.tasks if each.state == "failed")
    assert failed.error.endswith(expected)
