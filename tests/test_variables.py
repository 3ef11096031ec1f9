"""Every `TIDEMILL_*` variable that a source names is declared by its part, and another one ends a command."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tidemill_core.variables import declared

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "packages").glob("*/src")), ROOT / "deploy/src"]
NAME = re.compile(r"TIDEMILL_[A-Z0-9_]*[A-Z0-9]")
OF_TESTS = ("TIDEMILL_TEST_", "TIDEMILL_REQUIRE")


def undeclared(folders: Iterable[Path]) -> Iterator[str]:
    """Yield each place that names a variable which no part declares; parts of a name end with ``_``."""
    known = [variable for _, variable in declared()]
    for path in (each for folder in folders for each in sorted(folder.rglob("*"))):
        if path.suffix not in {".py", ".yaml", ".yml", ".json", ".sh"}:
            continue
        text = path.read_text(encoding="utf-8")
        for found in NAME.finditer(text):
            name = found[0]
            is_part = text[found.end() : found.end() + 1] in {"_", "*"}
            if not is_part and not name.startswith(OF_TESTS) and not any(each.fits(name) for each in known):
                yield f"{path.name}: {name}"


def test_every_variable_that_a_source_names_is_declared() -> None:
    assert list(undeclared(SOURCES)) == []


def test_a_source_that_reads_a_variable_nobody_declares_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text('import os\nos.environ["TIDEMILL_PLANTED"]\n')

    assert list(undeclared([tmp_path])) == ["planted.py: TIDEMILL_PLANTED"]


@pytest.mark.parametrize("command", [["demo"], ["dag", "list"], ["services", "status"], ["sync", "status"]])
def test_a_misspelt_variable_ends_every_command_before_it_does_anything(tmp_path: Path, command: list[str]) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    home = tmp_path / "home"
    env = {**kept, "TIDEMILL_HOME": str(home), "TIDEMILL_POSTGRESS_URL": "postgresql://db.example/prod"}

    ended = subprocess.run(
        [sys.executable, "-c", "from tidemill_core.cli import main; main()", *command],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 3
    assert ended.stderr == "error: TIDEMILL_POSTGRESS_URL is no setting; did you mean TIDEMILL_POSTGRES_URL?\n"
    assert not home.exists()
