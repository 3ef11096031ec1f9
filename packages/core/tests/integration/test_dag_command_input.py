"""Bad input to `tidemill dag`: one clear line, the right exit code, no traceback, and no run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tidemill_core.dag.cli import dag
from tidemill_core.errors import TidemillError, exit_code

FILE = """
name: quick
params: {n: {type: int, default: 1}, day: {type: date, default: "2024-01-01"}, mode: {type: str, choices: [a, b], default: a}}
tasks:
  - {name: first, run: "echo ${params.n}; echo n=1 >> $TIDEMILL_OUTPUTS", outputs: [n]}
  - {name: second, run: "echo ${outputs.first.n}", needs: [first]}
---
name: parts
partitions: {type: static, keys: [p, q]}
tasks:
  - {name: only, run: "echo ${partition.key}"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("dags")
    (made / "dags").mkdir()
    (made / "dags" / "d.yaml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("TIDEMILL_HOME", str(made / "home"))
        patch.delenv("DAGSTER_HOME", raising=False)
        patch.delenv("TIDEMILL_DAGS", raising=False)
        yield made


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the command as the program does; gives its exit code and all that it says."""
    try:
        found = dag.main(list(arguments), prog_name="tidemill dag", standalone_mode=False)
    except click.UsageError as error:
        return error.exit_code, error.format_message()
    except TidemillError as error:
        said = capfd.readouterr()
        return int(exit_code(error)), f"{said.out}{said.err}{error}"
    said = capfd.readouterr()
    return int(found or 0), said.out + said.err


CASES = [
    # What is asked for is not there.
    (["run", "nobody"], 3, "nobody"),
    (["run", "nowhere.yaml"], 3, "nowhere.yaml"),
    (["validate", "nowhere"], 3, "nowhere"),
    (["plan", "qick"], 3, "quick"),
    (["graph", "qick"], 3, "quick"),
    # Parameters.
    (["run", "quick", "-p", "m=1"], 3, "no parameter 'm'"),
    (["run", "quick", "-p", "n=one"], 3, "'one' is not an int"),
    (["run", "quick", "-p", "day=yesterday"], 3, "not a date"),
    (["run", "quick", "-p", "mode=c"], 3, "one of a, b"),
    (["run", "quick", "-p", "n"], 2, "NAME=VALUE"),
    (["plan", "quick", "-p", "n=one"], 3, "'one' is not an int"),
    # Tasks.
    (["run", "quick", "--only", "frist"], 3, "first"),
    (["run", "quick", "--from", "nothing"], 3, "no task 'nothing'"),
    # Runs.
    (["run", "quick", "--retry-failed", "0000"], 3, "no such run"),
    (["run", "quick", "--only", "second", "--outputs-from", "0000"], 3, "no such run"),
    (["run", "quick", "--outputs-from", "last"], 3, "goes with --only or --from"),
    (["run", "quick", "--only", "second"], 3, "no finished run"),
    (["logs", "0000"], 3, "no such run"),
    (["status", "0000"], 3, "no such run"),
    # Partitions.
    (["run", "parts"], 3, "--partition KEY"),
    (["run", "parts", "--partition", "r"], 3, "no partition 'r'"),
    (["run", "quick", "--partition", "p"], 3, "has no partitions"),
    (["run", "quick", "--partition-range", "p...q"], 3, "has no partitions"),
    (["run", "parts", "--partition-range", "p"], 3, "FROM...TO"),
    (["run", "parts", "--partition-range", "q...p"], 3, "p...q"),
    (["run", "parts", "--partition-range", "p...z"], 3, "no partition 'z'"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_what_is_wrong_is_said_and_nothing_runs(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    found, text = call(capfd, *arguments)

    assert (code, True) == (found, says in text), text
    assert "Traceback" not in text
    assert len(text) < 1500


def test_nothing_of_all_that_was_recorded(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """After all refusals above there is no run."""
    for arguments, *_ in CASES:
        call(capfd, *arguments)

    code, text = call(capfd, "status", "--json")

    assert 0 == code
    assert [] == json.loads(text)["runs"] if isinstance(json.loads(text), dict) else json.loads(text) == []


@pytest.mark.parametrize("arguments", [["run"], ["run", "quick", "--executor", "magic"], ["validate"], ["nothing"]])
def test_a_wrong_command_line_is_one_of_usage(
    folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, text = call(capfd, *arguments)

    assert 2 == code
    assert text
