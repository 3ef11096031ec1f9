"""The DAG files that the how-to page shows are valid and run as they stand."""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from tidemill_core.dag import load_dags
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag

PAGE = Path(__file__).parents[4] / "docs/how-to/dags.md"
BLOCKS = {
    found["name"]: found["text"]
    for found in re.finditer(
        r"^```yaml\n(?P<text># dags/(?P<name>\w+)\.yaml\n.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("home"))) as made:
        yield made


def test_page_shows_files() -> None:
    assert {"hello", "files", "branches", "outer", "clock"} <= BLOCKS.keys()


@pytest.mark.parametrize("name", BLOCKS)
def test_file_of_the_page_runs(name: str, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    # All files of the page lie in one folder, as a reader has them.
    for each, text in BLOCKS.items():
        (tmp_path / f"{each}.yaml").write_text(text)
    found = next(dag for dag in load_dags(tmp_path) if dag.spec.name == name)

    run = start_dag(found, RunRequest(), instance)

    assert run.state == "done", run
