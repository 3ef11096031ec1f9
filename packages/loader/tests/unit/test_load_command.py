"""The command as far as it needs no database: what it plans, checks and refuses."""

import json

import pytest
from tidemill_core.cli import main


@pytest.fixture
def tidemill(tmp_path, monkeypatch, capsys):
    """Run a command in this process; gives its exit code, output and error lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TIDEMILL_POSTGRES_URL", raising=False)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def planes(tmp_path):
    path = tmp_path / "planes.csv"
    path.write_text("tailnum,year\nN1,2004\nN2,NA\nN3,1999\n")
    return path


def test_a_plan_shows_the_table_and_the_units_and_needs_no_database(tidemill, planes, tmp_path):
    code, out, err = tidemill("load", "plan", "planes.csv", "-t", "raw.planes", "-k", "tailnum", "--null", "NA")

    assert (0, "") == (code, err)
    assert "-- replace raw.planes: 1 files, 1 units" in out
    assert '"year" bigint' in out
    assert 'PRIMARY KEY ("tailnum")' in out
    assert not (tmp_path / "home").exists()


def test_a_plan_for_machines_has_the_statement_columns_and_units(tidemill, planes):
    _, out, _ = tidemill(
        "load", "plan", "planes.csv", "-t", "raw.planes", "--column", "year=text", "-m", "append", "--json"
    )

    plan = json.loads(out)
    assert ("raw.planes", "append", {"tailnum": "text", "year": "text"}) == (
        plan["table"],
        plan["mode"],
        plan["columns"],
    )
    assert '"year" text' in plan["ddl"]
    assert [planes.stat().st_size] == [unit["bytes"] for unit in plan["units"]]


def test_a_file_of_loads_is_validated_load_by_load(tidemill, planes, tmp_path):
    (tmp_path / "loads.yaml").write_text(
        "loads:\n  - files: planes.csv\n    table: raw.a\n  - {files: planes.csv, table: raw.b}\n"
    )

    code, out, _ = tidemill("load", "validate", "-c", "loads.yaml")
    _, as_json, _ = tidemill("load", "validate", "-c", "loads.yaml", "--json")

    assert (0, ["raw.a: 1 files, 2 columns, ok", "raw.b: 1 files, 2 columns, ok"]) == (code, out.splitlines())
    assert ["raw.a", "raw.b"] == [json.loads(line)["table"] for line in as_json.splitlines()]


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("plan",), 2, "give FILES and --table, or --config"),
        (("plan", "planes.csv", "-c", "loads.yaml"), 2, "give FILES and --table, or --config"),
        (("plan", "planes.csv"), 2, "--table is needed with FILES"),
        (("plan", "planes.csv", "-t", "a", "--column", "year"), 2, "--column year: write NAME=TYPE"),
        (("plan", "planes.csv", "-t", "a", "-m", "swap"), 2, "'swap' is not one of"),
        (("plan", "planes.csv", "-t", "a", "--max-rejects", "-1"), 3, "max_rejects: Input should be greater than"),
        (("plan", "planes.csv", "-t", "a.b.c"), 3, "a.b.c"),
        (("plan", "planes.csv", "-t", "a", "-m", "upsert"), 3, "key"),
        (("plan", "planes.csv", "-t", "a", "-f", "cvs"), 3, "did you mean 'csv'"),
        (("plan", "gone.csv", "-t", "a"), 1, "no file matches"),
        (("validate", "planes.csv", "-t", "a", "--column", "yaer=int"), 1, "yaer"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_in_words_with_its_exit_code(tidemill, planes, words, code, why):
    found, out, err = tidemill("load", *words)

    assert (code, "") == (found, out)
    assert why in err


def test_no_files_are_all_right_where_the_load_says_so(tidemill, tmp_path):
    (tmp_path / "load.yaml").write_text("files: none/*.csv\ntable: raw.a\nallow_empty: true\n")

    code, out, _ = tidemill("load", "plan", "-c", "load.yaml")

    assert (0, "-- no files") == (code, out.splitlines()[-1])
